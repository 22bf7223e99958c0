"""Every page of the console in Chinese and English, at 1440 and at 390 pixels: it breaks nothing, asks no other machine, has no serious
fault of accessibility and no scroll bar to the side. Each leaves a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from app.web.console import pages
from tests.browser.chromium import Window
from tests.browser.conftest import House, let_in, passage, settled
from tests.conftest import WORD, wait_for
from tests.people import PASSWORD, Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

VIEWS = [(language, width) for language in ("zh", "en") for width in (1440, 390)]
AXE = {("zh", 1440), ("en", 390)}
"""Where axe-core looks: each language and each width once."""
SHOWN = {page.path for page in pages() if page.method == "GET"}
FILES = {"/evidence"}
"""What is no page but a file."""
ADDRESSES = {
    "overview": "/", "metrics": "/metrics", "decisions": "/decisions", "decision": "/decisions?id={decision}", "audit": "/audit",
    "audit-checked": "/audit?check=1", "transparency": "/transparency", "transparency-public": "/transparency?public=1",
    "cases": "/cases", "cases-duty": "/cases?lane=duty", "cases-none": "/cases?lane=overdue", "next": "/cases/next", "rest": "/rest",
    "case": "/cases/{fresh}", "case-closed": "/cases/{closed}", "second": "/second", "second-one": "/second/{other}",
    "complaints": "/complaints", "complaint": "/complaints/{complaint}", "standings": "/standings", "standing": "/standings/{standing}",
    "entries": "/entries", "entries-found": "/entries?q={word}&category=violence", "history": "/entries/history",
    "diff": "/entries/diff?a=0", "entry": "/entries/{entry}", "lexicon": "/lexicon", "lexicon-found": "/lexicon?category=abuse_malware",
    "policy": "/policy", "playground": "/playground", "me": "/me", "accounts": "/accounts", "lost": "/no-such-page",
}  # fmt: skip
DOORS = {"login": "/login", "setup": "/setup", "login-return": "/login/return"}


class Sample(NamedTuple):
    """Two people who may see every page, one in each language, and ids of what there is to see."""

    people: dict[str, Person]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def sample(house: House) -> Sample:
    whole = house.whole
    people = {"en": house.operator, "zh": house.hire("second", "reviewer", "lead", "operator", language="zh")}
    seen = passage(1).replace("码头", "码\u200b头")
    house.says |= {
        "一号": f"好的。{seen}以上。", "二号": f"好的。{seen.replace('，', '、', 1)}完。", "三号": passage(3), "四号": passage(4),
    }  # fmt: skip
    fresh = house.report("请说一号清单", "u1", "u2", comment="不对，请打电话 13800138000 找我核实。")
    house.report("请说二号清单", "u1")
    closed, other = house.report("请说三号清单", "u1"), house.report("请说四号清单", "u2")
    for id in (closed, other):
        house.decide(id, "confirm")
    house.decide(closed, "probe", model="m")
    wait_for(lambda: house.case(closed)["state"] == "confirmed", 30)
    house.says["三号"] = "这件事我不能说。"
    house.decide(closed, "optimise")
    house.decide(closed, "probe", model="m")
    wait_for(lambda: house.case(closed)["state"] == "closed", 30)
    entry = whole.add({"term": WORD}).json()["id"]
    gone = whole.add({"term": "另一个示例短语"}).json()["id"]
    whole.call("DELETE", f"/entries/{gone}")
    wait_for(lambda: house.ask(f"请问{WORD}是什么意思").get("sluice", {}).get("action") == "block", 3)
    decision = house.ask(f"请问{WORD}是什么意思")["id"]
    sent = {"kind": "pi_block", "comment": "那是我的号码 13800138000。"}
    complaint = whole.http.post("/sluice/v1/complaints", json=sent).json()["ticket"]
    for n in range(3):
        house.ask(f"接单攻击网站，不限。第{n}单", "u-row")
    wait_for(lambda: bool(whole.call("GET", "/standings").json()["standings"]), 5)
    standing = whole.call("GET", "/standings").json()["standings"][0]["id"]
    proposer = people["zh"]
    proposer.get("/entries")
    proposer.send("/entries", term="今天", category="violence", action="flag", reason="示例", propose="1")
    assert proposer.status == 200, proposer.said
    ids = {
        "fresh": fresh, "closed": closed, "other": other, "entry": entry, "decision": decision, "complaint": complaint,
        "standing": standing, "word": WORD,
    }  # fmt: skip
    return Sample(people, ids)


@pytest.fixture(scope="module")
def desks(browser: Browser, house: House, sample: Sample) -> Iterator[dict[tuple[str, int], Window]]:
    """A window of each language and width, logged in."""
    found = {(lang, width): Window(browser, width, "zh-CN" if lang == "zh" else "en-GB") for lang, width in VIEWS}
    for (language, _), window in found.items():
        let_in(window, sample.people[language])
    yield found
    for window in found.values():
        window.close()


def sound(window: Window, name: str, language: str, width: int) -> None:
    """Fails unless the page is as it must be; its picture is taken first."""
    window.page.evaluate("document.activeElement?.blur()")
    window.shot(f"{name}-{language}-{width}")
    window.clean()
    assert (language, width) not in AXE or window.faults() == []
    assert window.sideways() <= 0, "wider than its window"


every_view = pytest.mark.parametrize(("language", "width"), VIEWS)


@every_view
def test_before_anybody_has_an_account(
    open_window: Callable[..., Window], house: House, language: str, width: int
) -> None:
    window = open_window(None, width, language)
    window.page.goto(house.link)
    sound(window, "setup", language, width)
    for path in ("/login", "/setup", "/"):
        window.page.goto(f"{house.console}{path}")
        sound(window, "setup-without-link", language, width)


def test_the_first_account_is_made_by_the_link(open_window: Callable[..., Window], house: House) -> None:
    assert house._operator is None, "this test comes before those that make it"
    window = open_window()
    window.page.goto(house.link)
    window.page.fill("[name=id]", "first")
    window.page.fill("[name=password]", PASSWORD)
    window.page.fill("[name=again]", PASSWORD)
    window.page.click("button.main")
    window.page.wait_for_url("**/console/me?first=1")
    house._operator = Person(house.whole.admin)
    house._operator.enter("first")
    assert house._operator.status == 200


@every_view
@pytest.mark.parametrize("name", ["login", "login-return"])
def test_a_door(
    open_window: Callable[..., Window], house: House, sample: Sample, name: str, language: str, width: int
) -> None:
    window = open_window(None, width, language)
    window.page.goto(f"{house.console}{DOORS[name]}")
    sound(window, name, language, width)


def test_every_page_has_an_address_here(sample: Sample) -> None:
    told = [*ADDRESSES.values(), *DOORS.values()]
    shown = {path.split("?")[0] for path in told}
    kinds = {"/cases/{id}", "/second/{id}", "/complaints/{id}", "/standings/{id}", "/entries/{id}"}
    assert SHOWN - FILES - kinds <= shown
    assert all(any(a.split("?")[0].startswith(k.partition("{")[0] + "{") for a in told) for k in kinds & SHOWN)


@pytest.mark.parametrize("name", ADDRESSES)
@every_view
def test_a_page(
    desks: dict[tuple[str, int], Window], house: House, sample: Sample, name: str, language: str, width: int
) -> None:
    window = desks[language, width]
    answer = window.page.goto(house.console + ADDRESSES[name].format(**sample.ids))
    assert answer is not None and answer.status == (404 if name == "lost" else 200)
    assert window.page.locator("html").get_attribute("lang") == ("zh-CN" if language == "zh" else "en")
    sound(window, name, language, width)


def _texts(page: Page) -> None:
    for part in ("passage", "prompt", "comments"):
        page.click(f"form:has(input[name=part][value={part}]) button >> nth=0")
        page.wait_for_selector(f"#part-{part} .text")


def _played(page: Page) -> None:
    page.fill("[name=text]", "好的，接单攻击网站，不\u200b限。电话 13800138000。")
    page.fill("[name=size]", "4")
    page.click("button.main")
    page.wait_for_selector("#looked table")


def _checked(page: Page) -> None:
    page.fill("[name=policy]", "categories: {violence: {answer: flag}}\n")
    page.click("form[action$='/policy/check'] button.main")
    page.wait_for_selector("#checked p")


def _previewed(page: Page) -> None:
    page.fill("form[action$='/entries'] [name=term]", "今天")
    page.fill("form[action$='/entries'] [name=reason]", "示例")
    page.click("[formaction$='/preview']")
    page.wait_for_selector("#entry-preview [role=status]")


def _opened(page: Page) -> None:
    page.click("form[action$='/open'] button")
    page.wait_for_selector("#part-matter .text")


def _alike(page: Page) -> None:
    page.check("[data-all]")
    page.click("[data-key-for=similar]")
    page.wait_for_selector("#preview fieldset")


def _helped(page: Page) -> None:
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")


def _guided(page: Page) -> None:
    page.keyboard.press("g")
    page.wait_for_selector("#guide[open]")


PARTS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "case-texts": ("/cases/{fresh}", _texts), "case-similar": ("/cases/{fresh}", _alike), "keys": ("/cases", _helped),
    "guideline": ("/cases/{fresh}", _guided), "playground-looked": ("/playground", _played), "policy-checked": ("/policy", _checked),
    "entry-preview": ("/entries", _previewed), "complaint-opened": ("/complaints/{complaint}", _opened),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@every_view
def test_what_a_page_shows_when_it_is_asked(
    desks: dict[tuple[str, int], Window], house: House, sample: Sample, name: str, language: str, width: int
) -> None:
    window, (address, ask) = desks[language, width], PARTS[name]
    window.page.goto(house.console + address.format(**sample.ids))
    ask(settled(window.page))
    sound(window, name, language, width)


@pytest.mark.parametrize("name", ["overview", "cases", "case", "case-closed", "login"])
def test_in_the_dark(open_window: Callable[..., Window], house: House, sample: Sample, name: str) -> None:
    window = open_window(None if name == "login" else sample.people["zh"], language="zh")
    window.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    window.page.goto(house.console + (ADDRESSES | DOORS)[name].format(**sample.ids))
    if name == "case":
        _texts(settled(window.page))
    sound(window, f"{name}-dark", "zh", 1440)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_file_for_an_auditor_opens_without_a_server(
    open_window: Callable[..., Window], house: House, sample: Sample, tmp_path: Path, language: str
) -> None:
    person = sample.people[language]
    for path in ("/evidence", "/transparency?form=html"):
        answer = person.http.get(f"/console{path}")
        assert answer.headers["content-disposition"].startswith("attachment"), path
        name = path.strip("/").partition("?")[0] + "-file"
        (tmp_path / f"{name}.html").write_text(answer.text, "utf-8")
        for width in (1440, 390):
            window = open_window(None, width, language)
            window.page.goto((tmp_path / f"{name}.html").as_uri())
            sound(window, name, language, width)
    person.get(f"/cases/{sample.ids['closed']}")
    person.send(f"/cases/{sample.ids['closed']}/export")
    assert person.response.headers["content-type"] == "application/json"
