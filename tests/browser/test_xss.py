"""What people write stays text: a corpus of injections through every field that anybody can send anything in, and no page runs, loads or
asks for what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from zlib import crc32

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import Window
from tests.browser.conftest import House, passage, settled
from tests.people import PASSWORD, Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

AWAY = "http://192.0.2.1/"
"""Where nothing may ever ask (RFC 5737)."""
CORPUS = [
    "<script>window.PWNED=1</script>",
    "</textarea></title></style><script>window.PWNED=1</script>",
    '"><img src=x onerror="window.PWNED=1">',
    "' autofocus onfocus='window.PWNED=1' x='",
    f'<img src="{AWAY}pixel"><link rel=stylesheet href="{AWAY}css"><iframe src="{AWAY}frame"></iframe>',
    '<svg/onload=window.PWNED=1><svg><script xlink:href="data:text/javascript,window.PWNED=1"></script></svg>',
    '<a href="javascript:window.PWNED=1">javascript:window.PWNED=1</a>',
    "{{7*7}} {% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %} ${7*7} <%= 7*7 %> #{7*7}",
    '<div hx-get="/console/metrics" hx-trigger="load" hx-on:htmx:load="window.PWNED=1" hx-on::load="window.PWNED=1">x</div>',
    '<form action="/console/logout" method=post><button data-key-for="confirm undo text">x</button></form>',
    "\u202emoc.elpmaxe\u202c \u2066\u200f\u200b\ufeff <b>bold</b>",
    '"}]}\'></div><div data-plot=\'{"series":["x"],"data":[[0],[1]]}\' data-keys=\'{"confirm":"h"}\'></div><!--',
    '<meta http-equiv="refresh" content="0;url=/console/logout"><base href="http://192.0.2.1/"><dialog open>x</dialog>',
]
NUL = "\x00<script>window.PWNED=1</script>"
ALL = "\n".join(CORPUS)
_ROOM = {"term": 200, "name": 80, "vendor": 200, "reference": 200, "role": 200, "model": 200, "id": 32}


class _Tags(HTMLParser):
    """The tags of a page that the console itself would not have written."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name: value or "" for name, value in attrs}
        ours = names.get("src", "").startswith("/console/static/")
        foreign = any(
            "192.0.2.1" in names.get(a, "") or "javascript:" in names.get(a, "") for a in ("src", "href", "action")
        )
        if (tag == "script" and not ours) or tag in ("svg", "iframe", "base", "b", "img") or foreign:
            self.found.append(tag)
        self.found += [name for name in names if name.startswith(("on", "hx-on"))]
        if names.get("hx-get"):
            self.found.append("hx-get")


class Filled(NamedTuple):
    """A house in which all that can be written was written, and where it shows."""

    lead: Person
    addresses: list[str]
    case: str
    other: str
    matter: str


def _each(do: Callable[[str], Any]) -> None:
    for said in CORPUS:
        do(said)


@pytest.fixture(scope="module")
def filled(house: House) -> Filled:
    whole, lead = house.whole, house.operator
    house.says |= {
        "注入甲": f"{passage(1)}{ALL}", "注入乙": f"{passage(2)}{ALL}", "注入丙": f"{passage(3)}{ALL}", "注入丁": f"{passage(4)}{ALL}",
    }  # fmt: skip
    case = house.report(f"注入甲 {ALL}", "u1", comment=ALL)
    _each(lambda said: house.report(f"注入甲 {said}", f"u{crc32(said.encode())}", comment=said))
    duty = house.report(f"注入乙 {ALL}", "u1", comment=ALL)
    closed = house.report(f"注入丙 {ALL}", "u1", comment=ALL)
    other = house.report(f"注入丁 {ALL}", "u1", comment=ALL)

    def decide(id: str, decision: str, **said: str) -> None:
        lead.get(f"/cases/{id}")
        lead.send(f"/cases/{id}/decision", decision=decision, **said)
        assert lead.status == 200, lead.said

    for id in (duty, closed):
        decide(id, "confirm", reason=ALL)
    house.decide(other, "confirm", reason=ALL)  # by somebody else: the second look is another person's
    decide(duty, "widen", reason=ALL, term=CORPUS[0])
    decide(duty, "hand_over", reason=ALL, vendor=CORPUS[2], reference=CORPUS[3], date="2027-01-31")
    decide(duty, "probe", reason=ALL, model=CORPUS[2], variants=ALL)
    decide(closed, "except", reason=ALL, role=CORPUS[5])
    lead.get(f"/cases/{case}")
    lead.send(f"/cases/{case}/decision", decision="confirm", reason="")
    # Complaints and appeals.
    matters = []
    for kind in ("pi_block", "pi_correct", "infringement"):
        sent = {"kind": kind, "comment": ALL, "text": ALL}
        matters.append(str(whole.http.post("/sluice/v1/complaints", json=sent).json()["ticket"]))
    lead.get(f"/complaints/{matters[0]}")
    said = {"decision": "uphold", "reason": ALL, "identifiers": "13800138000", "public_interest": ALL, "days": "10"}
    lead.send(f"/complaints/{matters[0]}/decision", **said)
    lead.get(f"/complaints/{matters[1]}")
    lead.send(f"/complaints/{matters[1]}/decision", decision="refuse", reason=ALL)
    # Entries: terms, passages, reasons, proposals.
    for at, term in enumerate(CORPUS):
        lead.get("/entries")
        more = {"propose": "1"} if at % 4 == 3 else {}
        lead.send("/entries", term=term[:200], category="violence", action="flag", reason=term, **more)
    entry = whole.add({"term": CORPUS[2], "reason": ALL[:900]}).json()
    # Accounts: names, and what they like.
    for at, name in enumerate(CORPUS):
        lead.get("/accounts")
        lead.send("/accounts", id=f"inj{at}", name=name[:80], password=PASSWORD, roles=["reviewer"], language="en")
    lead.get("/me")
    keys = {"key-confirm": "<", "key-reject": '"', "key-skip": "'", "key-undo": "&", "key-guide": "{"}
    lead.send("/me", **keys, cap="0", pause="0")
    assert lead.status == 200, lead.said
    q = quote(ALL[:1500])
    addresses = [
        "/", f"/cases/{case}", f"/cases/{duty}", f"/cases/{closed}", f"/second/{other}", "/second", "/cases?lane=duty",
        *(f"/complaints/{m}" for m in matters), "/complaints", "/entries", "/entries/history", "/entries/diff?a=0",
        "/audit", "/audit?check=1",
        "/accounts", "/me", "/metrics", "/decisions", "/transparency", "/policy", "/standings",
        # Whatever an address can say.
        f"/cases?lane={q}&category={q}&from={q}", f"/cases/next?done={q}", f"/rest?done={q}", f"/cases/{quote(CORPUS[2], safe='')}",
        f"/decisions?id={q}&rule={q}&direction={q}&action={q}&category={q}", f"/entries?q={q}&list={q}&category={q}&owner={q}",
        f"/entries/{quote(CORPUS[0], safe='')}", f"/entries/history?until={q}", f"/entries/diff?a={q}&b={q}",
        f"/lexicon?q={q}&category={q}",
        f"/policy?app={q}", f"/audit?from={q}&check={q}", f"/transparency?half={q}", f"/transparency?form={q}", f"/complaints?kind={q}",
        f"/standings?proposed={q}", f"/standings/{quote(CORPUS[2], safe='')}", f"/login?next={q}&lang={q}", f"/setup?token={q}",
        f"/login/return?state={q}&code={q}&error={q}", f"/{quote(CORPUS[0], safe='')}",
    ]  # fmt: skip
    if "id" in entry:
        addresses.append(f"/entries/{entry['id']}")
    return Filled(lead, addresses, case, other, matters[2])


class Watched:
    """A window in which nothing of the corpus may happen."""

    def __init__(self, window: Window, house: House) -> None:
        self.window, self.page, self.house = window, window.page, house
        self.dialogs: list[str] = []
        self.asked: list[str] = []
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))
        self.page.on("request", lambda r: self.asked.append(r.url))

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.house.console}{path}")
        return settled(self.page)

    def harmless(self) -> None:
        """Nothing ran, nothing was asked for that is not ours, and no tag of the corpus is one."""
        assert self.page.evaluate("window.PWNED") is None, self.page.url
        assert self.dialogs == [] and not urlsplit(self.page.url).path.endswith("/logout")
        assert all(url.startswith(self.house.whole.admin) for url in self.asked), self.asked
        tags = _Tags()
        tags.feed(self.page.evaluate("document.documentElement.outerHTML.replaceAll(/<canvas.*?<.canvas>/gs, '')"))
        assert tags.found == [], (self.page.url, tags.found)
        self.window.clean()


@pytest.fixture
def watched(open_window: Callable[..., Window], house: House, filled: Filled) -> Iterator[Watched]:
    watched = Watched(open_window(filled.lead), house)
    yield watched
    assert not [
        url for url in watched.asked if url.endswith("/metrics") and "console/metrics" not in watched.page.url
    ], "htmx did what an attribute of the input said"


def test_every_page_that_shows_what_was_written(watched: Watched, filled: Filled) -> None:
    for path in filled.addresses:
        if path != "/metrics":
            watched.go(path)
            watched.harmless()
    assert filled.lead.get("/me") and filled.lead.status == 200, "still logged in"


def test_texts_that_are_opened(watched: Watched, filled: Filled) -> None:
    page = watched.go(f"/cases/{filled.case}")
    for part in ("passage", "prompt", "comments"):
        page.click(f"form:has(input[name=part][value={part}]) button >> nth=0")
        page.wait_for_selector(f"#part-{part} .text")
        watched.harmless()
    said = page.locator("#part-passage .text").first.inner_text()
    assert "window.PWNED=1" in said and "{{7*7}}" in said and "49" not in said.replace("{{7*7}}", "")
    assert page.locator("#part-passage .badge").count() >= 3, "what turns or hides text is a badge"
    page = watched.go(f"/complaints/{filled.matter}")
    page.click("form[action$='/open'] button")
    page.wait_for_selector("#part-matter .text")
    watched.harmless()
    page = watched.go(f"/second/{filled.other}")
    page.click("form[action$='/open'] button")
    page.wait_for_selector("#part-passage .text")
    watched.harmless()


def test_every_field_of_every_form_that_is_refused_shows_what_was_typed_as_text(
    watched: Watched, filled: Filled
) -> None:
    """Each form, filled in with all of the corpus by whoever knows no bounds, and sent: what comes back is the same page."""
    forms = [
        (f"/cases/{filled.case}", "/decision"), (f"/cases/{filled.case}", "/preview"), (f"/complaints/{filled.matter}", "/decision"),
        ("/entries", "/entries"), ("/accounts", "/accounts"), ("/me", "/console/me"), ("/me", "/me/password"), ("/policy", "/policy/check"),
        ("/playground", "/playground"), ("/me", "/me/language"),
    ]  # fmt: skip
    for path, action in forms:
        page = watched.go(path)
        page.evaluate(
            """([action, said]) => {
              const form = [...document.querySelectorAll("form")].find((f) => (f.getAttribute("action") || "").endsWith(action));
              for (const name of ["hx-post", "hx-target"]) form.removeAttribute(name);
              for (const field of form.elements) {
                if (!field.name || field.name === "csrf" || field.name === "key" || field.tagName === "BUTTON") continue;
                const fresh = document.createElement("textarea");
                fresh.name = field.name;
                fresh.value = said;
                field.replaceWith(fresh);
              }
              form.setAttribute("data-sent-here", "1");
              HTMLFormElement.prototype.submit.call(form);
            }""",
            [action, ALL],
        )
        page.wait_for_selector("[data-sent-here]", state="detached")
        page.wait_for_load_state()
        watched.harmless()


def test_the_playground_the_policy_and_the_preview_in_their_places(watched: Watched, filled: Filled) -> None:
    page = watched.go("/playground")
    for said in [ALL, NUL]:
        page.evaluate("(said) => (document.querySelector('[name=text]').value = said)", said)
        page.fill("[name=size]", "7")
        page.click("button.main")
        page.wait_for_selector("#looked h2, #looked .fault")
        watched.harmless()
    page = watched.go("/policy")
    for said in [*CORPUS, f"categories: {{'{CORPUS[0]}': {{answer: block}}}}", f"apps: ['{CORPUS[1]}']"]:
        page.fill("[name=policy]", said)
        page.click("form[action$='/policy/check'] button.main")
        page.wait_for_selector("#checked p")
        watched.harmless()
        page.evaluate("document.querySelector('#checked').replaceChildren()")
    page = watched.go("/entries")
    for said in CORPUS:
        page.fill("form[action$='/entries'] [name=term]", said[:200])
        page.fill("form[action$='/entries'] [name=reason]", said)
        page.click("[formaction$='/preview']")
        page.wait_for_selector("#entry-preview p")
        watched.harmless()
        page.evaluate("document.querySelector('#entry-preview').replaceChildren()")


def test_a_login_says_back_only_text(open_window: Callable[..., Window], house: House, filled: Filled) -> None:
    watched = Watched(open_window(), house)
    for said in (CORPUS[1], CORPUS[3], CORPUS[11]):
        page = watched.go("/login")
        page.fill("[name=id]", said[:80])
        page.fill("[name=password]", said)
        page.click("button.main")
        page.wait_for_selector(".fault")
        assert page.input_value("[name=id]") == said[:80]
        watched.harmless()


def test_files_that_are_downloaded_say_it_as_text_too(
    open_window: Callable[..., Window], house: House, filled: Filled, tmp_path: Any
) -> None:
    for path in ("/evidence", "/transparency?form=html"):
        text = filled.lead.http.get(f"/console{path}").text
        (tmp_path / "file.html").write_text(text, "utf-8")
        window = open_window()
        window.page.goto((tmp_path / "file.html").as_uri())
        assert window.page.evaluate("window.PWNED") is None
        assert not re.search(r"<(script|img|iframe|svg|base)\b", text)
