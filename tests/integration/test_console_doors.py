"""The doors of the console: the first account by a one-time link, passwords and how often one may guess, sessions and how they end, who may
open which page, and what no other site can make a browser do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.accounts import SCOPES
from app.logins import FROM_ADDRESS, FROM_HERE, IDLE, OF_ACCOUNT, WHOLE
from app.settings import ROLES
from app.web.console import HEADERS, pages
from tests.conftest import Model, whole_gateway
from tests.people import PASSWORD, House, Person, hire, house
from tests.provider import CLIENT, CONSOLE, SECRET, SUBJECT, OpenID, agree, provider

PAGES = pages()
ROOMS = [page for page in PAGES if not page.open and page.path != "/logout"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("doors"), shared_model.url) as place:
        yield place


@pytest.fixture(scope="module")
def morning(bare: House) -> dict[str, Any]:
    """What happened before there was an account: what the first page said, what a wrong link led to, and three who came at once with the
    right one."""
    nobody, wrong = Person(bare.admin), Person(bare.admin)
    nobody.get("/cases")
    wrong.get("/setup?token=" + "x" * 32)
    wrong.send("/setup", id="intruder", password=PASSWORD, again=PASSWORD)
    after = bare.store.hlen(bare.key("accounts"))

    def race(n: int) -> tuple[int, Person]:
        person = Person(bare.admin)
        person.get("/setup?token=" + bare.link.partition("token=")[2])
        person.send("/setup", id=f"racer{n}", password=PASSWORD, again=PASSWORD)
        return person.status, person

    with ThreadPoolExecutor(3) as pool:
        raced = list(pool.map(race, range(3)))
    return {"nobody": nobody, "wrong": wrong, "after": after, "raced": raced}


@pytest.fixture(scope="module")
def operator(morning: dict[str, Any]) -> Person:
    """Whoever made the first account."""
    return next(person for status, person in morning["raced"] if status == 200)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def staff(operator: Person) -> dict[str, Person]:
    """One person of every role."""
    return {role: hire(operator, f"an-{role}", role) for role in ROLES}


@pytest.fixture(autouse=True)
def forgiven(bare: House) -> None:
    bare.forgive()


# ---- the first account


def test_before_there_is_an_account_there_is_one_way_in_for_one_person(bare: House, morning: dict[str, Any]) -> None:
    assert "one-time link" in morning["nobody"].said and "token=" + "x" not in morning["nobody"].page
    assert morning["wrong"].status == 403 and "this link was used already" in morning["wrong"].said
    assert morning["after"] == 0, "a wrong link makes nobody"
    assert sorted(status for status, _ in morning["raced"]) == [200, 403, 403], "of those who come at once, one"
    assert len(bare.chain(what="account_add", who="setup")) == 1


def test_the_link_that_was_printed_makes_one_account_and_never_another(bare: House, operator: Person) -> None:
    late = Person(bare.admin)
    late.get("/setup?token=" + bare.link.partition("token=")[2])
    assert late.at.startswith("/login"), "there is no such page any more"
    data = {"token": bare.link.partition("token=")[2], "id": "late", "password": PASSWORD, "again": PASSWORD}
    assert "this link was used already" in late.post("/setup", data) and late.status == 403
    assert (bare.whole.folder / "log").read_text("utf-8").count("/setup?token=") == 1
    (made,) = bare.chain(what="account_add", who="setup")
    assert made["roles"] == ["reviewer", "lead", "operator"]


# ---- passwords


def tried(place: House, name: str, password: str, source: str = "127.0.0.1") -> tuple[int, str]:
    person = Person(place.admin, source=source)
    person.enter(name, password)
    return person.status, person.said.replace(name, "NAME")


def test_a_wrong_password_and_an_unknown_name_look_the_same_and_take_as_long(bare: House, operator: Person) -> None:
    hire(operator, "known", "reviewer")
    assert tried(bare, "known", "not the password") == tried(bare, "unknown", "not the password")
    assert tried(bare, "known", "not the password")[0] == 401

    def took(name: str) -> float:
        began = time.perf_counter()
        tried(bare, name, "not the password")
        return time.perf_counter() - began

    times = {name: [] for name in ("known", "unknown")}  # type: dict[str, list[float]]
    for _ in range(3):
        bare.forgive()
        for name, found in times.items():
            found.append(took(name))
    assert min(times["unknown"]) > min(times["known"]) / 3, "a password is looked at either way"


def test_whoever_guesses_at_an_account_is_not_heard_for_a_while_not_even_with_the_right_password(
    bare: House, operator: Person
) -> None:
    hire(operator, "guessed", "reviewer")
    bare.forgive()
    said = [tried(bare, "guessed", f"guess number {n}")[0] for n in range(FROM_HERE)]
    assert said == [401] * FROM_HERE
    status, words = tried(bare, "guessed", PASSWORD)
    assert status == 429 and "too many attempts; again in" in words
    assert tried(bare, "guessed", PASSWORD, source="127.0.0.2")[0] == 200, "its owner elsewhere is"
    assert tried(bare, "an-unknown", "whatever it is")[0] == 401, "and so are others here"


def test_right_passwords_count_for_nobody(bare: House, operator: Person) -> None:
    hire(operator, "regular", "reviewer")
    assert {tried(bare, "regular", PASSWORD)[0] for _ in range(FROM_HERE + 2)} == {200}


def test_one_address_and_one_account_have_an_end_of_their_own(bare: House, operator: Person) -> None:
    hire(operator, "spread", "reviewer")
    bare.forgive()
    tried(bare, "spread", "a wrong password")
    counters = list(bare.store.scan_iter("*login:*"))
    assert len(counters) == 3 and "spread" not in str(counters) and "127.0.0" not in str(counters)
    assert all(0 < bare.store.ttl(key) <= 900 for key in counters)  # type: ignore[operator]
    for most in (OF_ACCOUNT, FROM_ADDRESS):
        for key in counters:
            bare.store.set(key, most, keepttl=True)
        there = "127.0.0.3" if most == OF_ACCOUNT else "127.0.0.1"
        name = "spread" if most == OF_ACCOUNT else "somebody-else"
        assert tried(bare, name, "a wrong password", source=there)[0] == 429


def test_a_login_is_in_the_audit_and_a_password_nowhere(bare: House, operator: Person) -> None:
    hire(operator, "seen", "reviewer")
    assert bare.chain(what="login", who="seen")[0]["how"] == "password"
    tried(bare, "seen", "MARKED-AS-WRONG")
    stored = "".join(str(bare.store.hgetall(key)) for key in (bare.key("accounts"),))
    log = (bare.whole.folder / "log").read_text("utf-8")
    for secret in (PASSWORD, "MARKED-AS-WRONG"):
        assert secret not in stored + log + str(bare.chain())
    assert "$argon2id$v=19$m=65536" in stored


# ---- sessions


def test_a_session_ends_on_logout_and_its_cookie_is_worth_nothing_then(bare: House, operator: Person) -> None:
    person = hire(operator, "leaver", "reviewer")
    kept = person.cookie
    person.get("/me")
    person.send("/logout")
    assert person.at.startswith("/login") and bare.chain(what="logout", who="leaver")
    thief = Person(bare.admin)
    thief.http.cookies.set("sluice_console", kept)
    thief.get("/me")
    assert thief.at.startswith("/login")


def session_of(place: House, person: Person) -> str:
    return place.key("session:" + hashlib.sha256(person.cookie.encode()).hexdigest())


def test_the_store_knows_a_session_by_a_hash_and_forgets_it_after_an_hour_without_a_click(
    bare: House, operator: Person
) -> None:
    person = hire(operator, "idler", "reviewer")
    name = session_of(bare, person)
    assert bare.store.exists(name) and not list(bare.store.scan_iter(f"*{person.cookie}*"))
    bare.store.expire(name, 5)
    person.get("/me")
    assert IDLE - 5 < int(bare.store.ttl(name)) <= IDLE, "each click renews it"  # type: ignore[arg-type]
    bare.store.pexpire(name, 1)
    time.sleep(0.01)
    person.get("/me")
    assert person.at.startswith("/login")


def test_a_session_is_over_after_twelve_hours_however_busy(bare: House, operator: Person) -> None:
    import json

    person = hire(operator, "busy", "reviewer")
    name = session_of(bare, person)

    def aged(seconds: float) -> None:
        row = json.loads(str(bare.store.get(name)))
        bare.store.set(name, json.dumps(row | {"began": time.time() - seconds}), keepttl=True)

    account = bare.store.hget(bare.key("accounts"), "busy")
    assert account
    bare.edit("accounts", "busy", since=0.0)
    aged(WHOLE - 60)
    person.get("/me")
    assert person.at == "/me" and int(bare.store.ttl(name)) <= 60  # type: ignore[arg-type]
    aged(WHOLE + 1)
    person.get("/me")
    assert person.at.startswith("/login") and not bare.store.exists(name)


def test_another_password_ends_every_other_session(bare: House, operator: Person) -> None:
    person = hire(operator, "changer", "reviewer")
    elsewhere = Person(bare.admin)
    elsewhere.enter("changer")
    person.get("/me")
    person.send(
        "/me/password", old="wrong old password", password="another long password", again="another long password"
    )
    assert person.status == 401 and "name or password is wrong" in person.said
    person.send("/me/password", old=PASSWORD, password="short", again="short")
    assert person.status == 422 and "12 to 200" in person.said
    person.send("/me/password", old=PASSWORD, password="another long password", again="yet another password")
    assert person.status == 422 and "not the same password" in person.said
    person.get("/me")
    person.send("/me/password", old=PASSWORD, password="another long password", again="another long password")
    assert person.status == 200 and person.at == "/me"
    person.get("/cases")
    assert person.at == "/cases", "whoever changed it stays"
    elsewhere.get("/cases")
    assert elsewhere.at.startswith("/login")
    assert tried(bare, "changer", PASSWORD)[0] == 401
    assert tried(bare, "changer", "another long password")[0] == 200
    assert len(bare.chain(what="password", account="changer")) == 1


def test_guessing_at_the_old_password_is_counted_as_a_login_is(bare: House, operator: Person) -> None:
    person = hire(operator, "borrowed", "reviewer")
    bare.forgive()
    for n in range(FROM_HERE):
        person.get("/me")
        person.send(
            "/me/password", old=f"guess number {n}", password="another long password", again="another long password"
        )
    person.send("/me/password", old=PASSWORD, password="another long password", again="another long password")
    assert person.status == 429


def test_whoever_is_disabled_is_out_at_the_next_click_and_comes_in_no_more(bare: House, operator: Person) -> None:
    person = hire(operator, "dismissed", "reviewer")
    operator.get("/accounts")
    operator.send("/accounts/change", id="dismissed", what="disable", expected_version="1")
    assert operator.status == 200, operator.said
    person.get("/cases")
    assert person.at.startswith("/login")
    assert tried(bare, "dismissed", PASSWORD)[0] == 401
    operator.send("/accounts/change", id="dismissed", what="enable", expected_version="2")
    assert tried(bare, "dismissed", PASSWORD)[0] == 200


def test_the_cookie_is_for_the_console_alone_and_no_script_reads_it(bare: House, operator: Person) -> None:
    hire(operator, "cookies", "reviewer")
    person = Person(bare.admin)
    person.get("/login")
    answer = person.http.post("/console/login", data={"id": "cookies", "password": PASSWORD})
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/console", f"max-age={WHOLE}"} <= parts
    assert "secure" not in parts, "on http there would be no login"


# ---- what another site can make a browser do


def filled(path: str) -> str:
    """An address of a route, with names that lead nowhere."""
    return path.replace("{id}", "case_00000000000000000000")


@pytest.mark.parametrize("path", sorted({p.path for p in PAGES if p.method == "POST" and not p.open}))
def test_a_form_without_this_sessions_word_is_refused(
    bare: House, staff: dict[str, Person], operator: Person, path: str
) -> None:
    person = operator
    for word in ("", "x" * 32, staff["reviewer"].csrf):
        answer = person.http.post(f"/console{filled(path)}", data={"csrf": word} if word else {"a": "b"})
        assert answer.status_code == 403 and "load it again" in answer.text, path
    assert operator.get("/me") and operator.status == 200, "and nothing came of it"


@pytest.mark.parametrize(
    "head",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://["},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    ],
)
def test_a_form_of_another_site_is_refused_at_the_doors_too(
    bare: House, operator: Person, head: dict[str, str]
) -> None:
    for path in ("/me/language", "/login", "/setup", "/login/provider", "/logout"):
        answer = operator.http.post(
            f"/console{path}", data={"csrf": operator.csrf, "id": "an-unknown", "password": PASSWORD}, headers=head
        )
        assert answer.status_code == 403 and "another page" in answer.text, path
    assert operator.get("/me") and operator.at == "/me", "nobody was logged out"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_a_form_comes_as_a_form(operator: Person, kind: str) -> None:
    answer = operator.http.post(
        "/console/me/language", content=f"csrf={operator.csrf}&language=zh", headers={"content-type": kind}
    )
    assert answer.status_code == 415 and "application/x-www-form-urlencoded" in answer.text


def test_a_form_has_an_end_and_an_encoding(operator: Person) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body, status in ((b"a=" + b"x" * (2 << 20), 413), (b"a=\xff\xfe", 400), (b"a=1&" * 3000, 400)):
        assert operator.http.post("/console/me/language", content=body, headers=form).status_code == status


def test_every_page_says_what_may_run_in_it_and_that_nothing_is_kept(operator: Person) -> None:
    lost = ["/nowhere", "/cases/case_00000000000000000000", "/login", "/login/return"]
    for path in [filled(p.path) for p in PAGES if p.method == "GET"] + lost:
        answer = operator.http.get(f"/console{path}")
        for name, said in HEADERS.items():
            assert answer.headers.get(name) == said, (path, name)
    assert operator.http.put("/console/me").status_code == 405
    assert operator.http.put("/console/me").headers["content-security-policy"] == HEADERS["content-security-policy"]
    csp = HEADERS["content-security-policy"]
    assert (
        csp
        == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        and HEADERS["cache-control"] == "no-store"
    )


def test_no_page_has_a_script_or_a_style_written_in_it(operator: Person) -> None:
    for path in [p.path for p in PAGES if p.method == "GET" and "{" not in p.path and p.path not in ("/evidence",)]:
        operator.get(path)
        for tag, attrs in operator.shown.elements:
            assert "style" not in attrs and not [name for name in attrs if name.startswith("on")], (path, tag)
        inline = [said for tag, said in operator.shown.texts if tag in ("script", "style") and said.strip()]
        assert inline == []
        places = [
            attrs.get("src") or attrs.get("href") or ""
            for tag, attrs in operator.shown.elements
            if tag in ("script", "link", "img")
        ]
        assert all(place.startswith("/console/static/") for place in places)


def test_files_of_the_pages_are_kept_for_ever_under_their_hash_and_there_are_no_others(
    bare: House, operator: Person
) -> None:
    operator.get("/")
    for attrs in operator.shown.of("script") + operator.shown.of("link"):
        address = attrs.get("src") or attrs["href"]
        answer = httpx.get(bare.admin + address)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert hashlib.sha256(answer.content).hexdigest().startswith(address.partition("?v=")[2])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert httpx.get(bare.admin + address + "0").headers["cache-control"] == "no-cache", (
            "another version is not this one"
        )
    for name in (
        "no.js", "VENDOR.txt", "console.py", "..%2fcall.py", "..%2f..%2f..%2fpolicy.yaml", "%2e%2e/call.py", "../call.py",
        "....//call.js", "%00.js", "console.css%00", "/etc/passwd", "..%5ccall.py", ".css",
    ):  # fmt: skip
        answer = httpx.get(f"{bare.admin}/console/static/{name}")
        assert answer.status_code in (303, 404) and "import" not in answer.text, name


# ---- who may open which page


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("page", ROOMS, ids=lambda p: f"{p.method} {p.path}")
def test_a_role_opens_what_it_needs_and_nothing_else(staff: dict[str, Person], page: Any, role: str) -> None:
    person = staff[role]
    may = (not page.needs or bool(SCOPES[role] & set(page.needs))) and set(page.also) <= SCOPES[role]
    if page.method == "GET":
        answer = person.http.get(f"/console{filled(page.path)}")
    else:
        data = {"csrf": person.csrf, "language": "en"} if page.path == "/me/language" else {"csrf": person.csrf}
        if page.path == "/me":
            data |= {"cap": "40", "pause": "50"}
        answer = person.http.post(f"/console{filled(page.path)}", data=data)
    if not may:
        assert answer.status_code == 403 and "your roles do not include this" in answer.text
    else:
        usual = (
            (200, 303)
            if page.method == "GET" and "{" not in page.path and "diff" not in page.path
            else (200, 303, 401, 404, 409, 422)
        )
        assert answer.status_code in usual, answer.text[-500:]


@pytest.mark.parametrize("role", ROLES)
def test_the_menu_leads_where_its_reader_may_go(staff: dict[str, Person], role: str) -> None:
    person = staff[role]
    person.get("/")
    places = [a["href"] for a in person.shown.of("a") if a["href"].startswith("/console")]
    assert len(places) > 5
    for place in dict.fromkeys(places):
        assert person.http.get(place).status_code in (200, 303), place


@pytest.mark.parametrize("page", [p for p in PAGES if not p.open], ids=lambda p: f"{p.method} {p.path}")
def test_logged_out_every_page_leads_to_the_door(bare: House, operator: Person, page: Any) -> None:
    answer = Person(bare.admin).http.request(
        page.method, f"/console{filled(page.path)}", data={"a": "b"} if page.method == "POST" else None
    )
    assert answer.status_code == 303 and answer.headers["location"].startswith("/console/login")
    if page.method == "GET" and page.path != "/":
        asked = parse_qs(urlsplit(answer.headers["location"]).query)
        assert asked["next"] == [filled(page.path)]
    if page.method == "POST":
        part = Person(bare.admin).http.post(
            f"/console{filled(page.path)}", data={"a": "b"}, headers={"hx-request": "true"}
        )
        assert part.status_code == 401 and "log in in another tab" in part.text and "<html" not in part.text


def test_after_the_login_one_is_where_one_wanted_to_be_with_what_one_asked(bare: House, operator: Person) -> None:
    hire(operator, "goer", "reviewer")
    person = Person(bare.admin)
    person.get("/cases?lane=overdue&category=violence")
    assert person.at.startswith("/login?next=")
    person.send("/login", id="goer", password="not the password")
    assert person.status == 401
    person.send("/login", id="goer", password=PASSWORD)
    assert person.at == "/cases?lane=overdue&category=violence"
    person.get("/login")
    assert person.at == "/", "who is in already does not log in"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
        "evil.example", "/%09/evil.example", "/\t/evil.example", "///evil.example", "http:evil.example", "/..//evil.example",
        "@evil.example",
        "//[", "/[", "",
    ],
)  # fmt: skip
def test_no_login_leads_to_another_site(bare: House, operator: Person, elsewhere: str) -> None:
    person = Person(bare.admin)
    data = {"id": "an-reviewer", "password": PASSWORD, "next": elsewhere}
    for path in ("/login",):
        answer = person.http.post(f"/console{path}", data=data)
        place = answer.headers.get("location", "/console/")
        assert place.startswith("/console/") and urlsplit(place).netloc == "" and "\n" not in place
        assert httpx.URL(bare.admin).join(place).host == "127.0.0.1"
    data = {"csrf": operator.csrf, "language": "en", "back": elsewhere}
    place = operator.http.post("/console/me/language", data=data).headers["location"]
    assert place.startswith("/console/") and httpx.URL(bare.admin).join(place).host == "127.0.0.1"


# ---- by a provider


@pytest.fixture(scope="module")
def openid() -> Iterator[OpenID]:
    with provider() as made:
        yield made
        assert made.wrong == []


@pytest.fixture(scope="module")
def vouched(
    bare: House, operator: Person, tmp_path_factory: pytest.TempPathFactory, shared_model: Model, openid: OpenID
) -> Iterator[House]:
    """Another gateway on the same store, with a provider."""
    settings = {
        "CONSOLE_URL": CONSOLE, "OIDC_ISSUER": openid.issuer, "OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": SECRET,
        "OIDC_ROLES": "groups=sluice-reviewers:reviewer,sluice-leads:lead", "REDIS_URL": bare.server.url, "WORKERS": "1",
    }  # fmt: skip
    with whole_gateway(tmp_path_factory.mktemp("vouched"), shared_model.url, **settings) as whole:
        yield House(whole, bare.server)


class Behind(Person):
    """A browser that reaches the console by https, through the operator's own proxy."""

    def __init__(self, admin: str) -> None:
        super().__init__(admin)
        self.http.headers.update({"host": "ops.example.test", "origin": "https://ops.example.test"})
        self.kept: dict[str, str] = {}
        self.set: list[str] = []

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        self.http.cookies.clear()
        head = {"cookie": "; ".join(f"{k}={v}" for k, v in self.kept.items())} if self.kept else {}
        answer = self.http.request(method, f"/console{path}", headers=head, **more)
        for said in answer.headers.get_list("set-cookie"):
            name, _, value = said.partition(";")[0].partition("=")
            self.set.append(said)
            if "max-age=0" in said.lower():
                self.kept.pop(name, None)
            else:
                self.kept[name] = value
        self.page, self.status = answer.text, answer.status_code
        return answer

    def provider(self, **instead: str) -> httpx.Response:
        """Log in there, and come back with what it sent, but `instead`."""
        answer = self.ask("POST", "/login/provider", data={"a": "b"})
        assert answer.status_code == 200, answer.text
        (link,) = self.shown.of("a")
        back = agree(link["href"]) | instead
        # From another site: no Strict cookie comes along.
        self.kept.pop("sluice_console", None)
        return self.ask("GET", "/login/return", params=back)


@pytest.fixture(scope="module")
def boss(vouched: House, operator: Person) -> Behind:
    """The operator, by https."""
    person = Behind(vouched.admin)
    name = vouched.chain(what="account_add", who="setup")[0]["account"]
    answer = person.ask("POST", "/login", data={"id": name, "password": PASSWORD})
    assert answer.status_code == 303 and "secure" in person.set[-1].lower()
    return person


def test_a_start_on_a_store_that_has_accounts_prints_no_link_and_a_login_holds_there_too(
    vouched: House, operator: Person
) -> None:
    assert "token=" not in (vouched.whole.folder / "log").read_text("utf-8")
    other = Person(vouched.admin)
    other.http.cookies.set("sluice_console", operator.cookie)
    assert other.get("/accounts") and other.status == 200


def test_whom_the_provider_vouches_for_is_in_with_the_roles_that_it_says(
    vouched: House, boss: Behind, openid: OpenID
) -> None:
    person = Behind(vouched.admin)
    assert person.ask("GET", "/login") and "Log in with your organisation" in person.said
    answer = person.provider()
    assert answer.status_code == 200 and "sluice_console" in person.kept, person.said
    login = [said.lower() for said in person.set if said.startswith("sluice_login=")]
    assert all(
        word in login[0] for word in ("httponly", "secure", "path=/console/login", "samesite=lax", "max-age=600")
    )
    assert "max-age=0" in login[-1]
    assert "samesite=strict" in next(said.lower() for said in person.set if said.startswith("sluice_console="))
    assert person.ask("GET", "/cases").status_code == 200 and person.ask("GET", "/entries").status_code == 403
    assert vouched.chain(what="login", how="provider")[0]["who"] == f"oidc:{SUBJECT}"
    assert f"oidc:{SUBJECT}" not in person.page and "Canary Name" not in person.page
    openid.person = {"groups": ["sluice-leads"]}
    again = Behind(vouched.admin)
    assert again.provider().status_code == 200
    assert again.ask("GET", "/entries").status_code == 200, "other groups, other roles"
    assert person.ask("GET", "/entries").status_code == 200
    openid.person = {}


def test_whoever_has_no_role_or_no_account_any_more_stays_outside(vouched: House, boss: Behind, openid: OpenID) -> None:
    openid.person = {"groups": ["others"], "sub": "without-a-role"}
    person = Behind(vouched.admin)
    assert (
        person.provider().status_code == 403
        and "no role here" in person.said
        and person.kept.keys() == {"sluice_login"}
    )
    openid.person = {"sub": "to-be-disabled"}
    assert Behind(vouched.admin).provider().status_code == 200
    boss.ask("GET", "/accounts")
    said = boss.hidden("/accounts/change") | {"id": "oidc:to-be-disabled", "what": "disable", "expected_version": "1"}
    assert boss.ask("POST", "/accounts/change", data=said).status_code == 303
    gone = Behind(vouched.admin)
    assert gone.provider().status_code == 403 and "disabled" in gone.said and "sluice_console" not in gone.kept
    openid.person = {}


def test_a_login_that_was_begun_elsewhere_is_refused_and_a_link_of_a_provider_serves_once(
    vouched: House, boss: Behind, openid: OpenID
) -> None:
    person = Behind(vouched.admin)
    assert person.provider(state="of-another-browser").status_code == 401 and "begin again" in person.said
    assert person.ask("GET", "/login/return", params={"code": "x", "state": "y"}).status_code in (401, 403)
    nobody = Behind(vouched.admin)
    assert nobody.ask("GET", "/login/return", params={"code": "x", "state": "y"}).status_code == 403
    assert "begin again" in nobody.said
    broken = Behind(vouched.admin)
    broken.kept["sluice_login"] = '"[1\\054 2]"'
    assert broken.ask("GET", "/login/return", params={"code": "x", "state": "y"}).status_code == 403
    assert "sluice_console" not in person.kept | nobody.kept | broken.kept


def test_without_a_provider_there_is_no_such_door(bare: House, operator: Person) -> None:
    person = Person(bare.admin)
    person.get("/login")
    assert "organisation" not in person.said
    person.post("/login/provider", {"a": "b"})
    assert person.status == 404
    person.get("/login/return?code=a&state=b")
    assert person.status == 404


def test_whoever_comes_by_a_provider_has_no_password_here(vouched: House, boss: Behind, openid: OpenID) -> None:
    openid.person = {"sub": "no-password"}
    person = Behind(vouched.admin)
    person.provider()
    person.ask("GET", "/me")
    assert "Change your password" not in person.page
    data = {**person.hidden("/me"), "old": "", "password": PASSWORD, "again": PASSWORD}
    assert person.ask("POST", "/me/password", data=data).status_code == 409
    openid.person = {}
    assert tried(vouched, "oidc:no-password", PASSWORD)[0] in (401, 403)
