"""The failure catalogue from outside, concluded: A1 to A9 and A11, what is done to the desk: its door, its pages, its lists, its reports.

The numbers are those of the catalogue. A10 is a matter of a console, of which there is none yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
import pytest

from app.cli import main
from app.demo import speech
from app.demo.story import free_port
from app.entries import EntryIn, written
from app.settings import SCOPES
from app.web.admin import needed
from tests.conftest import (
    ROOT,
    SECRET,
    Model,
    RedisServer,
    Running,
    redis_binaries,
    wait_for,
    whole_gateway,
)
from tests.integration.test_abuse import storm
from tests.integration.test_disclosure import BROWSER, FIELDS, PAGE
from tests.integration.test_eval import ROWS, Bench
from tests.integration.test_lexicon_command import lexicon
from tests.integration.test_pairs_command import POLICY as PROBES
from tests.integration.test_pairs_command import Pairs
from tests.integration.test_reports import ANSWER, APPS, REVIEWERS, Desk, variant

Make = Callable[..., Running]
POLICY = (
    "reports: {deliveries: true, per_reporter: 30, per_source: 100000}\nprobes: {terms_allow: true, per_minute: 6000}\n"
)
ADMIN = "/sluice/v1/admin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, server: RedisServer, shared_model: Model) -> Iterator[Desk]:
    """A gateway and its reviewers for all tests here; each uses words of its own."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "apps.yaml").write_text(APPS)
    with whole_gateway(
        folder, shared_model.url, REDIS_URL=server.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(folder / "policy.yaml"),
        APPS=str(folder / "apps.yaml"),
    ) as whole:  # fmt: skip
        yield Desk(whole)


@pytest.fixture
def model(shared_model: Model) -> Model:
    shared_model.script.__init__()  # type: ignore[misc]
    return shared_model


class Done(NamedTuple):
    status: int
    out: str
    err: str


def sluice(desk: Desk, *words: str | Path) -> Done:
    """The command line, as an operator gives it, in this process."""
    own = {"SLUICE_ADMIN_TOKEN": "a" * 32, "SLUICE_ADMIN_PORT": desk.whole.admin.rpartition(":")[2]}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        for name, value in own.items():
            patch.setenv(name, value)
        try:
            status = main(list(map(str, words)))
        except SystemExit as e:  # of an option that is unknown
            status = int(e.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def add(desk: Desk, second: str = "", **entry: Any) -> httpx.Response:
    """`second`: another person's token."""
    return desk.admin(
        "POST",
        "/entries",
        json={"category": "violence", "reason": "test", **entry},
        headers={"X-Sluice-Second": second},
    )


# ---- A1: the door


def started(folder: Path, model: Model, **values: str) -> tuple[int, str]:
    """Exit status and what was said of `sluice serve` with these settings; fails where it serves."""
    names = {
        "UPSTREAM_URL": model.url, "DATA_DIR": str(folder), "SECRET_KEY": SECRET, "PORT": str(free_port()), "OPS_PORT": str(free_port()),
        "ADMIN_PORT": str(free_port()), **values,
    }  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {
        f"SLUICE_{k}": v for k, v in names.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"], env=env, capture_output=True, cwd=ROOT, timeout=60
    )
    return done.returncode, done.stdout.decode() + done.stderr.decode()


WEAK = ("", " ", "short", "t" * 31, "anna:" + "a" * 32 + ",bert:" + "b" * 31)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a1_an_admin_port_that_others_reach_does_not_start_without_a_long_token_for_everybody(
    model: Model, tmp_path: Path, host: str, subtests: pytest.Subtests
) -> None:
    for token in WEAK if host == "0.0.0.0" else WEAK[:1]:
        with subtests.test(token=token):
            status, said = started(tmp_path, model, ADMIN_HOST=host, ADMIN_TOKEN=token)
            assert (
                status == 2 and "SLUICE_ADMIN_TOKEN" in said and "SLUICE_ADMIN_HOST" in said and "Traceback" not in said
            )
            assert len(token) < 5 or token not in said


def test_a1_with_one_it_starts_for_all_and_without_any_for_this_machine_alone_and_lets_nobody_in(
    model: Model, tmp_path: Path
) -> None:
    with whole_gateway(tmp_path / "open", model.url, ADMIN_HOST="0.0.0.0", ADMIN_TOKEN="t" * 32) as whole:
        for token, status in (("t" * 32, 200), ("t" * 31, 401), ("T" * 32, 401), ("x", 401)):
            head = {"Authorization": f"Bearer {token}"}
            assert httpx.get(whole.admin + ADMIN + "/entries", headers=head).status_code == status
    with whole_gateway(tmp_path / "closed", model.url, ADMIN_TOKEN="") as whole:
        for said in ("Bearer", "", "Bearer admin", "Bearer None", "Basic YWRtaW46YWRtaW4="):
            assert httpx.get(whole.admin + ADMIN + "/entries", headers={"Authorization": said}).status_code == 401, said


def operations(desk: Desk) -> list[tuple[str, str]]:
    """(method, path) of every call that the admin API describes."""
    paths = httpx.get(f"{desk.whole.admin}{ADMIN}/openapi.json").json()["paths"]
    return [(m.upper(), re.sub(r"\{.*?\}", "x", p)) for p, of in paths.items() for m in of if p.startswith(ADMIN)]


def test_a1_no_call_of_the_admin_api_is_answered_without_a_token_in_its_header(
    desk: Desk, subtests: pytest.Subtests
) -> None:
    calls = [(m, p) for m, p in operations(desk) if "{" not in p and not p.endswith("/{path}")]
    assert len(calls) > 25
    a = "a" * 32
    wrong: list[dict[str, Any]] = [
        {}, {"headers": {"Authorization": f"Bearer {a[:-1]}"}}, {"headers": {"Authorization": f"Bearer {a}a"}},
        {"headers": {"Authorization": f"Basic {a}"}}, {"headers": {"Authorization": f"Bearer {REVIEWERS}"}},
        {"headers": {"Authorization": f"Bearer anna:{a}"}}, {"params": {"token": a, "access_token": a, "authorization": f"Bearer {a}"}},
        {"cookies": {"token": a, "authorization": f"Bearer {a}"}}, {"headers": {"x-api-key": a, "Proxy-Authorization": f"Bearer {a}"}},
        {"headers": [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {a}")]},
    ]  # fmt: skip
    with httpx.Client(base_url=desk.whole.admin) as http:
        for method, path in calls:
            with subtests.test(method=method, path=path):
                for n, more in enumerate(wrong if path in (f"{ADMIN}/entries", f"{ADMIN}/cases") else wrong[:2]):
                    http.cookies.clear()
                    answer = http.request(method, path, **more)
                    assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized", (
                        n,
                        answer.text,
                    )
                    assert a not in answer.text
    # And none of it stands on the ports of others.
    for other in (desk.whole.url, desk.whole.ops):
        assert httpx.get(other + ADMIN + "/entries", headers={"Authorization": f"Bearer {a}"}).status_code == 404


SCOPED = ",".join(f"{scope}/{scope}:{scope * 4}-token-of-a-test" for scope in SCOPES)


def test_a1_a_token_does_what_its_scopes_say_and_nothing_else(
    model: Model, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Every call needs one scope, or is a look at what all may see."""
    with whole_gateway(tmp_path / "scoped", model.url, ADMIN_TOKEN=f"{SCOPED},all:{'t' * 32}") as whole:
        document = httpx.get(f"{whole.admin}{ADMIN}/openapi.json").json()["paths"]
        tokens = {scope: f"{scope * 4}-token-of-a-test" for scope in SCOPES} | {"all": "t" * 32}
        seen: Counter[str] = Counter()
        for path, methods in document.items():
            for method in methods:
                with subtests.test(path=path, method=method):
                    wanted = needed(method.upper(), path)
                    for scope, token in tokens.items():
                        answer = httpx.request(
                            method,
                            whole.admin + re.sub(r"\{.*?\}", "x", path),
                            headers={"Authorization": f"Bearer {token}"},
                        )
                        may = wanted is None or scope in (wanted, "all")
                        assert (answer.status_code != 403) == may, (scope, answer.text)
                        if not may:
                            assert (
                                answer.json()["error"]["code"] == "scope"
                                and wanted in answer.json()["error"]["message"]
                            )
                    seen[str(wanted)] += 1
        assert set(seen) == {*SCOPES, "None"} and seen["None"] == 5
    status, said = started(tmp_path, model, ADMIN_TOKEN=f"anna/everything:{'t' * 32}")
    assert status == 2 and "review, lists, audit, operate" in said and "t" * 32 not in said


# ---- A2: what somebody else wrote, on a page

PWNED = "PWNED"
CORPUS = (
    "<script>PWNED</script>", "<img src=x onerror=PWNED>", "\"><svg onload=PWNED>", "'\"--></style></script><script>PWNED</script>",
    "javascript:PWNED", "<a href=\"javascript:PWNED\" onclick='PWNED'>x</a>", "</title><script>PWNED</script>", "<!--PWNED", "]]><PWNED>",
    "<iframe srcdoc='PWNED'>", "&lt;script&gt;PWNED", "{{PWNED}} ${PWNED} <%=PWNED%>", "<base href=//PWNED.example>", "\u202e<PWNED>",
)  # fmt: skip
ALL = " ".join(CORPUS)


class Parsed(HTMLParser):
    """What a browser makes of a page, as far as it matters here."""

    ALLOWED = frozenset(
        "html head meta title style body main header section nav footer h1 h2 h3 p span small code ul li a div br hr b i em dl dt dd "
        "table caption thead tbody tr th td details summary figure figcaption svg g rect line path text circle polyline polygon desc "
        "defs".split()
    )  # fmt: skip

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.policies: list[str] = []
        self.text = ""
        self._in = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        given = dict(attrs)
        if tag not in self.ALLOWED:
            self.wrong.append(f"<{tag}>")
        if tag == "meta" and (given.get("http-equiv") or "").lower() == "content-security-policy":
            self.policies.append(given.get("content") or "")
        for name, value in attrs:
            if (
                name.startswith("on")
                or PWNED.lower() in name.lower()
                or name in ("src", "srcdoc", "action", "formaction")
            ):
                self.wrong.append(f"{tag} {name}")
            if name.endswith("href") and not re.match(r"(https?://|/|#)", value or ""):
                self.wrong.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("style", "script") and PWNED in data:
            self.wrong.append(f"in <{self._in}>")
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.wrong.append("a comment")

    def handle_pi(self, data: str) -> None:
        self.wrong.append("an instruction")


def harmless(page: str, *, told: tuple[str, ...] = CORPUS) -> Parsed:
    """The page, where what was written in it is text, and all of it."""
    parsed = Parsed(page)
    assert parsed.wrong == []
    assert [words for words in told if words not in parsed.text] == []
    return parsed


def strict(policy: str) -> None:
    """A policy under which not even a mistake of ours would run (CSP level 3)."""
    assert "default-src 'none'" in policy, policy or "no policy at all"
    assert "unsafe-" not in policy, policy


def published(desk: Desk) -> list[str]:
    """Statements with the corpus in every field that takes a text; where they can be read."""
    both = {"zh": ALL, "en": ALL}
    fields = FIELDS | dict.fromkeys(("users", "occasions", "uses", "limits", "contacts", "minors"), both)
    fields |= {
        "report_to_authority": [{"zh": ALL, "en": ALL, "url": "https://example.org/\"'><script>PWNED</script>"}],
        "filing": {"algorithm_number": ALL[:60], "assessment_date": "2026-05-01"},
    }
    sent: list[dict[str, Any]] = [
        {"kind": "disclosure", "fields": fields},
        {"kind": "algorithms", **both},
        {"kind": "model", "zh": ALL, "note": ALL},
    ]
    paths = [PAGE]
    for said in sent:
        answer = desk.admin("POST", "/statements", json=said)
        while answer.status_code == 422 and "fields" in said:  # what may not be said there at all
            refused = answer.json()["error"]["param"].split(".")[1]
            said["fields"][refused] = FIELDS[refused]
            answer = desk.admin("POST", "/statements", json=said)
        assert answer.status_code == 201, answer.text
        paths.append(f"{PAGE}/{said['kind']}/{answer.json()['version']}")
    wait_for(lambda: all(desk.whole.http.get(path).status_code == 200 for path in paths), 5)
    return paths


def test_a2_what_is_published_is_shown_as_text_and_no_page_could_run_anything(
    desk: Desk, subtests: pytest.Subtests
) -> None:
    for path in published(desk):
        answer = desk.whole.http.get(path, headers={"accept": BROWSER})
        with subtests.test("text", path=path):
            harmless(answer.text)
            assert answer.headers["x-content-type-options"] == "nosniff"
        with subtests.test("policy", path=path):
            strict(answer.headers["content-security-policy"])
        with subtests.test("as data", path=path):
            data = desk.whole.http.get(path, headers={"accept": "application/json"})
            assert (
                data.headers["content-type"] == "application/json"
                and data.headers["x-content-type-options"] == "nosniff"
            )


def test_a2_what_reporters_and_reviewers_say_runs_on_no_page_of_evidence(
    desk: Desk, model: Model, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    model.script.chat(f"{ANSWER}{ALL}")
    name = ALL.encode("ascii", "ignore").decode()
    answer = desk.ask(name, model=ALL)
    taken = desk.report(answer, name, comment=ALL, prompt=ALL)
    assert taken.status_code == 202, taken.text
    for path, body in (
        ("appeals", {"kind": "blocked_answer", "decision_id": answer["id"], "prompt": ALL, "comment": ALL}),
        ("complaints", {"kind": "pi_delete", "comment": ALL, "text": ALL}),
    ):
        desk.whole.http.post(f"/sluice/v1/{path}", json=body, headers={"x-user": name})
    case = next(c for c in desk.admin("GET", "/cases").json()["cases"])["id"]
    desk.decide(case, "confirm", reason=ALL)
    desk.admin("POST", f"/cases/{case}/decision", json={"decision": "except", "reason": ALL, "role": ALL[:60]})
    assert add(desk, term="页面上的示例短语", reason=ALL).status_code == 201
    published(desk)
    done = sluice(desk, "evidence", "export", "--out", tmp_path / "evidence")
    assert done.status == 0, done.err
    assert sorted(p.name for p in (tmp_path / "evidence").iterdir()) == ["evidence.html", "evidence.json"]
    with subtests.test("text"):
        harmless((tmp_path / "evidence" / "evidence.html").read_text("utf-8"), told=())
    with subtests.test("policy"):
        strict(" ".join(Parsed((tmp_path / "evidence" / "evidence.html").read_text("utf-8")).policies))


def test_a2_what_a_model_says_and_is_called_runs_on_no_page_of_pairs(
    model: Model, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    model.script.reply = lambda path, body: speech.Answer(f"可以考虑。{ALL}")
    pairs = Pairs(tmp_path, model.url)
    run = pairs("--attribute", "gender", "--language", "zh", "--answers", "2", "--model", ALL[:200], policy=PROBES)
    assert run.status in (0, 1), run.err
    page = (run.folder / "report.html").read_text("utf-8")
    with subtests.test("text"):
        harmless(page, told=CORPUS[:3])
    with subtests.test("policy"):
        strict(" ".join(Parsed(page).policies))


def test_a2_what_a_bank_says_runs_on_no_page_of_an_evaluation(tmp_path: Path, subtests: pytest.Subtests) -> None:
    bench = Bench(tmp_path)
    short = [c for c in CORPUS if len(c) <= 40 and c.isprintable()]
    rows = [dict(ROWS[0]) | {"text": c, "source": c, "lang": c, "aspect": c} for c in short]
    rows += [dict(row) | {"source": c} for row in ROWS for c in short[:2]]
    done = bench.evaluate(bench.bank(*rows, name="bank<script>PWNED.jsonl"))
    assert done.status in (0, 1), done.err
    with subtests.test("text"):
        harmless(done.html, told=tuple(short[:4]))
    with subtests.test("policy"):
        strict(" ".join(Parsed(done.html).policies))


# ---- A3: a page of somebody else's, in the browser of a reviewer


def test_a3_a_form_of_another_site_is_nobody_and_no_answer_is_for_another_site_to_read(
    desk: Desk, subtests: pytest.Subtests
) -> None:
    body = json.dumps({"term": "表单里的示例短语", "category": "violence", "action": "block", "reason": "r"})
    before = desk.admin("GET", "/entries").json()["version"]
    origins = ("https://other.example", "null", desk.whole.admin)
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json")
    own = {"Authorization": "Bearer " + "a" * 32}
    for origin in origins:
        for path in ("/entries", "/cases/x/decision", "/statements", "/lists/a/remove", "/privacy/erase"):
            for kind in kinds:
                head = {
                    "Origin": origin,
                    "Content-Type": kind,
                    "Cookie": "token=" + "a" * 32,
                    "Sec-Fetch-Site": "cross-site",
                }
                answer = httpx.post(desk.whole.admin + ADMIN + path, content=body, headers=head)
                assert answer.status_code == 401 and "set-cookie" not in answer.headers
                assert not [h for h in answer.headers if h.startswith("access-control-")]
        # Not with a bearer either, nor where the browser asks beforehand.
        ask = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answers = [
            httpx.request("OPTIONS", url, headers=ask)
            for url in (desk.whole.admin + ADMIN + "/entries", desk.whole.url + "/v1/models", desk.whole.url + PAGE)
        ]
        answers += [
            httpx.get(desk.whole.admin + ADMIN + "/entries", headers={"Origin": origin} | own),
            httpx.get(desk.whole.url + PAGE, headers={"Origin": origin}),
        ]
        for answer in answers:
            with subtests.test(origin=origin, url=str(answer.url), method=answer.request.method):
                assert (
                    not [h for h in answer.headers if h.startswith("access-control-")]
                    and "set-cookie" not in answer.headers
                )
    for page in ("", "/", "?x=1"):  # a form can only be posted: a link changes nothing
        assert httpx.get(desk.whole.admin + ADMIN + "/entries" + page, headers={"Cookie": "a=b"}).status_code in (
            401,
            307,
            404,
        )
    assert desk.admin("GET", "/entries").json()["version"] == before


# ---- A4: logs, terminals, spreadsheets

NASTY = '一行\r\n{"level": "critical"}\x1b[31m\x1b]0;title\x07\x9b2J\u202e\u2028=HYPERLINK("http://x")\x00\x7f'


def drawn_wrong(said: str, *, own: str = "\n") -> list[str]:
    """Characters by which a text would steer a terminal, or turn a line around, by name."""
    return sorted(
        {f"U+{ord(c):04X}" for c in said if c not in own and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    )


def test_a4_whatever_is_sent_a_log_is_lines_of_json_without_control_characters(desk: Desk, model: Model) -> None:
    from urllib.parse import quote

    model.script.chat(NASTY)
    http = desk.whole.http
    chat = {"model": NASTY, "messages": [{"role": "user", "content": NASTY}], "user": NASTY}
    for body in (chat, chat | {"stream": True}, chat | {NASTY: 1}, {"model": "m", "messages": NASTY}):
        http.post(
            "/v1/chat/completions",
            json=body,
            headers={"x-user": NASTY.encode("ascii", "ignore").translate(None, b"\r\n\0\x07\x1b\x7f")},
        )
    for path in (
        f"/v1/{quote(NASTY)}",
        f"/v1/models/{quote(NASTY)}",
        f"/sluice/v1/decisions/{quote(NASTY)}",
        f"/sluice/v1/reports/{quote(NASTY)}",
    ):
        assert http.get(httpx.URL(desk.whole.url + path)).status_code < 500
        assert desk.admin("GET", path[3:]).status_code < 500
    desk.report(text=NASTY, comment=NASTY)
    model.script.plain = (500, {}, NASTY.encode())
    http.post("/v1/chat/completions", json=chat | {"messages": [{"role": "user", "content": "你好"}]})
    assert httpx.get(f"{desk.whole.admin}{ADMIN}/openapi.json").status_code == 200
    lines = (desk.whole.folder / "log").read_bytes().decode("utf-8").split("\n")
    # Beside the log, once: the link by which the first account is made.
    assert sum(line.startswith("控制台首次设置") for line in lines) <= 1
    for line in (line for line in lines if line and not line.startswith("控制台首次设置")):
        assert isinstance(json.loads(line), dict) and drawn_wrong(line) == [], line
        assert "HYPERLINK" not in line
    journal = [
        line
        for file in (desk.whole.folder / "data" / "journal").glob("*.jsonl")
        for line in file.read_bytes().split(b"\n")
    ]
    assert [line for line in journal if drawn_wrong(line.decode()) or b"HYPERLINK" in line] == []
    assert "HYPERLINK" not in httpx.get(desk.whole.ops + "/metrics").text


def test_a4_what_a_command_prints_of_others_words_cannot_steer_the_terminal(
    desk: Desk, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    marks = "\x1b[31m\x1b]0;t\x07\x9b2J\u202e"
    folder = tmp_path / "mine" / "violence"
    folder.mkdir(parents=True)
    (folder / "terms.tsv").write_text("term\ttier\towner\treason\n示例短语\tsuspect\tops\tlist\n", "utf-8")
    (tmp_path / "other" / "violence").mkdir(parents=True)
    (tmp_path / "other" / "violence" / "terms.tsv").write_text(
        f"term\ttier\towner\treason\n示例{marks}甲短语\tsuspect\tops{marks}\tlist\n", "utf-8"
    )
    vendor = tmp_path / "list.txt"
    vendor.write_text(f"出售{marks}示例货物\n短\n{marks}\n", "utf-8")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"term": f"坏{marks}", marks: 1}, ensure_ascii=False) + "\n" + f"{marks}\n", "utf-8")
    who = ("--owner", "ops", "--reason", "list")
    for name, run in {
        "import": lambda: lexicon("import", vendor, "--lexicons", folder.parent, "--category", "violence", *who),
        "diff": lambda: lexicon("diff", folder.parent, tmp_path / "other"),
        "lint": lambda: lexicon("lint", "--lexicons", tmp_path / "other"),
        "audit": lambda: lexicon("audit", "--lexicons", tmp_path / "other"),
    }.items():
        with subtests.test(f"lexicon {name}"):
            assert drawn_wrong("".join(map(str, run()[1:]))) == []
    taken = desk.report(
        text=f"第一句{marks}，这一段里有很多控制字符，没有别的用处，只是为了凑够四十个字而已，没有别的。", comment=marks
    ).json()
    add(desk, term=f"终端{marks}里的示例", reason=f"r{marks}", list="a4")
    for words in (
        ("case", "list"),
        ("case", "show", taken["ticket"]),
        ("list", "show", "--list", "a4"),
        ("list", "load", "--kind", "secret", rows),
    ):
        with subtests.test(" ".join(map(str, words[:2]))):
            done = sluice(desk, *words)
            # JSON, in which a program reads what was said; what steers every terminal is escaped there.
            found = drawn_wrong(done.out + done.err)
            assert [name for name in found if name < "U+0080"] == []


# ---- A5: what a refusal tells

LISTED = {
    "entry": "甲类示例短语", "passage": "乙类的一段只在测试里出现的话，讲的是一条不存在的河和河边的一座石桥。", "lexicon": "丙类示例词条",
    "rule": "丁类示例，请加好友", "other": "戊类示例短语",
}  # fmt: skip
"""The list on which a text stands -> the text; the last is on that of another app."""


@pytest.fixture
def listed(make_gateway: Make, model: Model, tmp_path: Path) -> Running:
    folder = tmp_path / "lexicons" / "violence"
    folder.mkdir(parents=True)
    (folder / "terms.tsv").write_text(f"term\ttier\n{LISTED['lexicon']}\tcertain\n", "utf-8")
    (folder / "rules.tsv").write_text("name\tanchor\trest\twithin\nfour\t丁类示例\t.{0,9}加好友\t32\n", "utf-8")
    apps = "apps:" + "".join(
        f"\n  - {{id: {name}, keys: ['sha256:{hashlib.sha256(name.encode()).hexdigest()}']}}"
        for name in ("web", "other", "strict")
    )
    every = "categories: {violence: {prompt: block, answer: block}}\n"
    gateway = make_gateway(f"{every}apps: {{strict: {{blocked_as: error}}}}\n", apps, lexicons=folder.parent)
    keys = gateway.gateway.keys
    given = [
        EntryIn(term=LISTED["entry"], category="violence", reason="r"), EntryIn(passage=LISTED["passage"], category="violence", reason="r"),
        EntryIn(term=LISTED["other"], category="violence", reason="r", scope={"app": "other"}),  # type: ignore[arg-type]
    ]  # fmt: skip
    gateway.gateway.blocklist.load(
        [written(e, "admin", keys) | {"id": f"ent_{n}", "version": n + 1} for n, e in enumerate(given)]
    )
    return gateway


def told(response: httpx.Response) -> tuple[int, list[str], str]:
    """An answer without what is new in each: ids, times, the receipt."""
    text = re.sub(r"slc_[a-z2-7]{26}", "ID", response.text)
    text = re.sub(r'"receipt":"[^"]*"', '"receipt":"R"', re.sub(r'"created":\d+', '"created":0', text))
    return response.status_code, sorted(response.headers), text


def asked(gateway: Running, key: str, text: str, **more: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return gateway.http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize("key", ["web", "strict"])
def test_a5_a_refusal_does_not_tell_which_list_has_the_text(listed: Running, model: Model, key: str) -> None:
    mine = [LISTED[name] for name in ("entry", "passage", "lexicon", "rule")]
    for stream in (False, True):
        prompts = [asked(listed, key, f"说：{text}", stream=stream) for text in mine]
        assert all("ID" in told(p)[2] and not any(t in p.text for t in mine) for p in prompts)
        assert len({str(told(p)) for p in prompts}) == 1, [told(p) for p in prompts]
        answers = []
        for text in mine:
            model.script.chat(text)
            answers.append(asked(listed, key, "说吧", stream=stream))
        assert len({str(told(a)) for a in answers}) == 1, [told(a) for a in answers]
        assert all(
            a.json()["choices"][0]["finish_reason"] == "content_filter" for a in answers if not stream and key == "web"
        )
    model.script.chat("好的。")
    shown = set()
    for response in (asked(listed, "web", f"又说：{text}").json() for text in mine):
        path, head = (
            f"/sluice/v1/decisions/{response['id']}",
            {"Authorization": f"Bearer {response['sluice']['receipt']}"},
        )
        wait_for(lambda: listed.http.get(path, headers=head).status_code == 200)  # noqa: B023
        decision = listed.http.get(path, headers=head).json()
        shown.add(json.dumps({k: v for k, v in decision.items() if k not in ("decision", "at")}))
    assert len(shown) == 1, shown


def test_a5_what_stands_on_another_apps_list_looks_like_what_stands_on_none(listed: Running, model: Model) -> None:
    assert told(asked(listed, "other", LISTED["other"]))[2] == told(asked(listed, "other", LISTED["entry"]))[2]
    took: dict[str, list[float]] = {"on another's": [], "on none": []}
    for n in range(40):
        for name, text in (("on another's", LISTED["other"]), ("on none", "己类示例短语")):
            began = time.perf_counter()
            answer = asked(listed, "web", f"{n}：{text}")
            took[name].append(time.perf_counter() - began)
            assert answer.json()["choices"][0]["message"]["content"] == "好的。"
            assert told(answer) == told(asked(listed, "web", f"{n}：你好"))
    print("median: " + ", ".join(f"{name} {median(t) * 1000:.2f} ms" for name, t in took.items()))


# ---- A6: a flood of reports


def test_a6_reports_of_one_text_are_one_case_with_a_count_and_everybody_gets_a_ticket(desk: Desk, model: Model) -> None:
    text = variant(61)
    model.script.chat(text)
    answer = desk.ask("flooded")
    tickets = [desk.report(answer, f"a6-{n}").json() for n in range(12)]
    tickets += [desk.report(text=text, user=f"a6-again-{n}").json() for n in range(12)]
    assert len({t["ticket"] for t in tickets}) == 24 == len({t["status_token"] for t in tickets})
    assert {desk.state(t) for t in tickets} <= {"verified", "unverified", "provisional"}
    (case,) = [c for c in desk.admin("GET", "/cases").json()["cases"] if c["reports"] == 24]
    desk.decide(case["id"], "reject")
    assert {desk.state(t) for t in tickets} == {"rejected"}, "each is told what came of it"


def test_a6_whoever_reports_without_end_is_told_to_wait_and_buries_nobody(desk: Desk) -> None:
    honest = "只有一个人举报过的一段话，说的是河边第三块石头下面压着的那张旧纸条，纸条上写着一个日期。"
    flood = [f"灌水的第{n}条，内容各不相同，说的都是同一个箱子，箱子在仓库的第{n}层。" for n in range(60)]
    got = [desk.report(text=text, user="a6-flood") for text in flood[:30]]
    mine = desk.report(text=honest, user="a6-honest")
    got += [desk.report(text=text, user="a6-flood") for text in flood[30:]]
    assert mine.status_code == 202
    assert [g.status_code for g in got] == [202] * 30 + [429] * 30
    assert 0 < int(got[-1].headers["retry-after"]) <= 3600 and got[-1].json()["error"]["code"] == "too_many_reports"
    assert "灌水" not in got[-1].text
    page = desk.admin("GET", "/cases").json()["cases"]
    passages = [desk.admin("GET", f"/cases/{c['id']}/evidence").json().get("passage", "") for c in page]
    assert honest in passages
    # Somebody else is heard at once.
    assert desk.report(text=honest, user="a6-other").status_code == 202


# ---- A7: reports as a weapon


@pytest.mark.parametrize(
    "text", ["你好", "你好！很高兴见到你，有什么我可以帮助你的吗？您好，我是您的智能助手，请问今天有什么可以帮到您？"]
)
def test_a7_however_many_report_a_greeting_it_is_said_on(desk: Desk, model: Model, text: str) -> None:
    model.script.chat(text)
    answer = desk.ask("a7")
    entries = desk.admin("GET", "/entries").json()["version"]
    given = {"text": text, "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"]}
    storm(desk, [(given, f"a7-{len(text)}-{n}") for n in range(20)])
    case = next(c for c in desk.admin("GET", "/cases").json()["cases"] if c["reports"] == 20)
    fresh = desk.admin("GET", "/entries", params={"after": entries, "limit": 1000}).json()["entries"]
    assert [e for e in fresh if not e["scope"].get("readers")] == [], (
        "what is hidden is hidden from those who reported it"
    )
    for stream in (False, True):
        assert text in desk.whole.chat(f"{text}，{len(text)}", stream=stream).text.replace('"}}],', "") or stream
    assert desk.said("somebody else") == desk.said() == text
    desk.decide(case["id"], "reject")
    assert desk.said() == text


def test_a7_what_was_confirmed_by_mistake_is_undone_in_one_step_as_if_it_had_never_been(
    desk: Desk, model: Model
) -> None:
    text = variant(73)
    model.script.chat(text)
    ticket = desk.report(desk.ask("a7-undo"), "a7-undo").json()
    case = desk.case(ticket["ticket"])
    before = {e["id"] for e in desk.admin("GET", "/entries", params={"limit": 1000}).json()["entries"]}
    assert desk.decide(case["id"], "confirm").status_code == 200
    wait_for(lambda: desk.said() != text, 3)
    assert desk.decide(case["id"], "undo").status_code == 200
    wait_for(lambda: desk.said() == text, 3)
    after = {e["id"] for e in desk.admin("GET", "/entries", params={"limit": 1000}).json()["entries"]}
    assert (after, desk.case(case["id"])["state"]) == (before, case["state"])
    # For everybody, and not for this app alone: not by one reviewer.
    desk.decide(case["id"], "confirm")
    widened = desk.decide(case["id"], "widen", to="*")
    assert desk.said("somebody else") != text
    rows = desk.admin("GET", "/entries", params={"limit": 1000}).json()["entries"]
    assert widened.status_code >= 400 or not [e for e in rows if e["scope"]["app"] == "*" and e["id"] not in before]
    desk.decide(case["id"], "undo")
    desk.decide(case["id"], "reject")


# ---- A8: entries that are too short or too broad

TOO_SHORT = (
    "的",
    "",
    " ",
    "\u200b",
    "\u200b\u200d\ufeff",
    "。，！",
    ".*",
    "a",
    "the",
    "\u3000",
    "的\u200b",
    "%",
    "**",
    "\U000e0061" * 9,
    "\u0301" * 4,
    "…………",
)
TOO_BROAD = ("我们", "你好", "什么", "今天", "这个", "with", "have", "please")


def test_a8_an_entry_that_holds_next_to_nothing_is_refused_by_its_field(desk: Desk, subtests: pytest.Subtests) -> None:
    before = desk.admin("GET", "/entries").json()["version"]
    page = "这一页上的每一句话都是编的。" * 1600
    for body in (
        [{"term": t} for t in TOO_SHORT]
        + [{"passage": p} for p in ("", "\u200b" * 60, "。" * 60, "太短的一段")]
        + [{"term": page}, {"passage": page * 3}]
    ):
        with subtests.test(body=str(body)[:30]):
            answer = add(desk, action="block", **body)
            assert answer.status_code == 422 and answer.json()["error"]["param"] in body, answer.text
            assert "编的" not in answer.text
    assert desk.admin("GET", "/entries").json()["version"] == before
    assert desk.said() and desk.ask("a8")["sluice"]["action"] == "pass"


def test_a8_a_word_that_stands_in_ordinary_texts_does_not_come_into_force_by_one_call(
    desk: Desk, model: Model, subtests: pytest.Subtests
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    late = (datetime.now(UTC) + timedelta(days=100)).isoformat()
    for word in TOO_BROAD:
        with subtests.test(word):
            for second, until, at in (
                ("", soon, "term"),
                ("a" * 32, soon, "term"),
                ("x" * 32, soon, "term"),
                ("b" * 32, late, "expires_at"),
                ("b" * 32, None, "expires_at"),
            ):
                answer = add(desk, second=second, term=word, action="block", expires_at=until)
                assert answer.status_code == 422, "it would refuse nearly every question"
                assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("gate", at)
            assert word not in {e.get("term") for e in desk.admin("GET", "/entries?limit=1000").json()["entries"]}
            rows = {"entries": [{"term": word, "category": "violence", "action": "block", "reason": "r"}]}
            listed = desk.admin("POST", "/lists/broad/entries", json=rows)
            assert listed.status_code == 422 and listed.json()["error"]["code"] == "gate"
    # Two people, and an end: it acts, and both stand at it. What only flags needs neither.
    row = add(desk, second="b" * 32, term=TOO_BROAD[0], action="block", expires_at=soon).json()
    assert (row["owner"], row["second"]) == ("anna", "bert")
    assert desk.admin("DELETE", f"/entries/{row['id']}").status_code == 200
    row = add(desk, term=TOO_BROAD[0], action="flag").json()
    assert "second" not in row and desk.admin("DELETE", f"/entries/{row['id']}").status_code == 200


# ---- A9: lists that are taken away


def listed_as(desk: Desk, folder: Path, rows: list[str], *options: str) -> Done:
    file = folder / "a9.jsonl"
    file.write_text("".join(json.dumps({"term": row}, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return sluice(desk, "list", "load", "--kind", "secret", file, *options)


def in_force(desk: Desk) -> set[str]:
    return {e["term"] for e in desk.admin("GET", "/entries", params={"list": "a9"}).json()["entries"]}


def test_a9_a_list_is_not_emptied_by_a_file_that_is_empty_or_broken_and_not_shrunk_by_more_than_a_fifth(
    desk: Desk, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    rows = [f"{c}号涂料的配比表" for c in "甲乙丙丁戊己庚辛壬癸"]
    assert listed_as(desk, tmp_path, rows).status == 0 and in_force(desk) == set(rows)
    file = tmp_path / "a9.jsonl"
    for raw in (
        b"",
        b"\n \n",
        b"\xef\xbb\xbf",
        b"[]",
        b"{",
        b"\xff\xfe",
        json.dumps({"term": rows[0]}).encode() + b"\n{",
    ):
        with subtests.test(raw=raw):
            file.write_bytes(raw)
            done = sluice(desk, "list", "load", "--kind", "secret", file)
            assert done.status == 2 and str(file) in done.err
            assert in_force(desk) == set(rows)
    with subtests.test("a fifth may go"):
        assert listed_as(desk, tmp_path, rows[2:]).status == 0 and in_force(desk) == set(rows[2:])
        assert listed_as(desk, tmp_path, rows).status == 0
    with subtests.test("more may not, unasked"):
        done = listed_as(desk, tmp_path, rows[5:])
        assert done.status != 0 and "--shrink" in done.err and in_force(desk) == set(rows)
    with subtests.test("more may, where that is meant"):
        assert listed_as(desk, tmp_path, rows[5:], "--shrink").status == 0 and in_force(desk) == set(rows[5:])
    sluice(desk, "list", "remove", "--list", "a9")


def test_a9_a_category_is_not_emptied_by_an_import_and_not_shrunk_by_more_than_a_fifth(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "violence").mkdir(parents=True)
    target = folder / "violence" / "terms.tsv"
    rows = [f"{c}号示例的短语" for c in "甲乙丙丁戊己庚辛壬癸"]
    target.write_text("term\ttier\towner\treason\n" + "".join(f"{row}\tsuspect\tops\tlist\n" for row in rows), "utf-8")
    before = target.read_bytes()
    file = tmp_path / "list.txt"
    options = ("--lexicons", folder, "--category", "violence", "--owner", "ops", "--reason", "list", "--apply")

    def left(*lines: str, more: tuple[str, ...] = ()) -> tuple[int, int, str]:
        file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        status, _, said = lexicon("import", file, *options, *more)
        now = target.read_text("utf-8")
        return status, sum(row in now for row in rows), said

    assert left() == (0, 10, "") and target.read_bytes() == before, "an empty file adds nothing, and takes nothing away"
    for lines in ((), ("# 注释",), tuple(rows[3:])):
        status, kept, said = left(*lines, more=("--replace",))
        assert (status, kept) == (1, 10) and "--shrink" in said and target.read_bytes() == before
    assert left(*rows[2:], more=("--replace",))[:2] == (0, 8)
    assert left(rows[2], more=("--replace", "--shrink"))[:2] == (0, 1)


# ---- A11: without the store; the last, for it takes the store away


def test_a11_without_the_store_the_lists_hold_what_is_written_is_refused_and_nothing_is_lost(
    desk: Desk, server: RedisServer, model: Model
) -> None:
    word = "断库前的示例短语"
    assert add(desk, term=word, action="block").status_code == 201
    wait_for(lambda: desk.whole.chat(f"说{word}").headers["x-sluice-action"] == "block", 3)
    text = "断库时举报的一段话，说的是乙码头的第三个泊位，和捆成双层的蓝色木箱，还有编号为七的印章。"
    taken = desk.report(text=text + "之前。", user="a11").json()
    server.kill()
    try:
        for n in range(3):
            assert desk.whole.chat(f"{n}：说{word}").headers["x-sluice-action"] == "block"
            assert desk.whole.chat(f"{n}：你好").headers["x-sluice-action"] == "pass"
            assert "content_filter" in desk.whole.chat(f"{n}：又说{word}", stream=True).text
        assert httpx.get(desk.whole.ops + "/readyz").status_code == 200, "it can moderate: it is ready"
        wait_for(lambda: desk.whole.ready()["store"]["up"] is False)
        refused = [
            desk.report(text=text, user="a11", key="a11"), add(desk, term="断库时的短语"),
            desk.admin("DELETE", "/entries/x"), desk.admin("GET", "/cases"),
            desk.whole.http.post("/sluice/v1/complaints", json={"kind": "pi_delete", "comment": "断库"}),
            desk.whole.http.get(f"/sluice/v1/reports/{taken['ticket']}", headers={"Authorization": f"Bearer {taken['status_token']}"}),
        ]  # fmt: skip
        for answer in refused:
            if answer.status_code != 404:
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable"), answer.text
                assert answer.headers["retry-after"] and text not in answer.text
        assert [r.status_code for r in refused].count(503) >= 5
    finally:
        server.start()
    wait_for(lambda: desk.report(text=text, user="a11", key="a11").status_code == 202, 15)
    ticket = desk.report(text=text, user="a11", key="a11").json()
    assert desk.state(ticket) == "unverified" and desk.state(taken) == "unverified"
    held = [
        c
        for c in desk.admin("GET", "/cases").json()["cases"]
        if desk.admin("GET", f"/cases/{c['id']}/evidence").json().get("passage") == text
    ]
    assert len(held) == 1 and held[0]["reports"] == 1, "sent again with its key it is one report"
    assert desk.whole.chat(f"后来又说{word}").headers["x-sluice-action"] == "block"
    assert [row["what"] for row in desk.chain() if row.get("case") == held[0]["id"]].count("report") == 1
