"""From a report to proof by the console alone: by mouse, and by keyboard alone, in both languages and on both widths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import Window
from tests.browser.conftest import House, passage, settled
from tests.conftest import wait_for
from tests.people import PASSWORD, Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

KEYS = {"claim": "c", "text": "o", "prompt": "p", "guide": "g", "confirm": "a", "undo": "z"}


class Hands(Protocol):
    """How somebody works a page."""

    def press(self, selector: str) -> None: ...
    def write(self, selector: str, text: str) -> None: ...
    def choose(self, selector: str) -> None: ...
    def do(self, name: str) -> None: ...
    def row(self) -> None: ...
    def reason(self, number: int) -> None: ...
    def send(self) -> None: ...
    def shut(self) -> None: ...


class Mouse:
    """Clicks alone, and letters."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def press(self, selector: str) -> None:
        self._page.click(selector)

    def write(self, selector: str, text: str) -> None:
        self._page.click(selector)
        self._page.keyboard.insert_text(text)

    def choose(self, selector: str) -> None:
        self._page.check(selector)

    def do(self, name: str) -> None:
        self._page.click(f'[data-key-for~="{name}"] >> visible=true >> nth=0')

    def row(self) -> None:
        self._page.click("[data-row] a >> nth=0")

    def reason(self, number: int) -> None:
        self._page.click(f"[data-reason] >> visible=true >> nth={number - 1}")

    def send(self) -> None:
        self._page.click("form[data-decision] button.main")

    def shut(self) -> None:
        self._page.click("dialog[open] button")


class Keyboard:
    """Keys alone: whoever holds one has no page to click on."""

    def __init__(self, page: Page) -> None:
        self._keys = page.keyboard
        self._at: Callable[[str], bool] = lambda selector: bool(
            page.evaluate("(s) => document.activeElement.matches(s)", selector)
        )

    def _reach(self, selector: str, key: str = "Tab", most: int = 150) -> None:
        for _ in range(most):
            if self._at(selector):
                return
            self._keys.press(key)
        raise AssertionError(f"{selector} cannot be reached by {key}")

    def press(self, selector: str) -> None:
        self._reach(selector)
        self._keys.press("Enter")

    def write(self, selector: str, text: str) -> None:
        self._reach(selector)
        self._keys.type(text)

    def choose(self, selector: str) -> None:
        if "radio" not in selector:
            self._reach(selector)
            self._keys.press("Space")
            return
        self._reach("[type=radio]")
        self._reach(selector, "ArrowDown", 12)
        self._keys.press("Space")

    def do(self, name: str) -> None:
        self._keys.press(KEYS[name])

    def row(self) -> None:
        self._keys.press("j")
        self._keys.press("Enter")

    def reason(self, number: int) -> None:
        self._keys.press(str(number))

    def send(self) -> None:
        self._keys.press("Control+Enter")

    def shut(self) -> None:
        self._keys.press("Escape")


class Desk:
    """One person at a window, who logged in there."""

    def __init__(self, window: Window, hands: type[Mouse] | type[Keyboard], house: House, person: str) -> None:
        self.window, self.page, self.house = window, window.page, house
        self.hands: Hands = hands(window.page)
        self.page.goto(f"{house.console}/")
        self.hands.write("[name=id]", person)
        self.hands.write("[name=password]", PASSWORD)
        self.hands.press("button.main")
        self.page.wait_for_selector(".top")

    def go(self, part: str) -> None:
        self.hands.press(f"nav a[href$='/console/{part}']")
        self.page.wait_for_url(f"**/console/{part}*")

    def duty(self, case: str) -> None:
        """To a case that was confirmed."""
        self.go("cases")
        self.hands.press(".lanes a[href$='lane=duty']")
        self.page.wait_for_url("**lane=duty")
        self.hands.press(f"[data-row] a[href$='{case}']")
        self.page.wait_for_url(f"**/cases/{case}")

    def decide(self, decision: str, reason: str, *fields: tuple[str, str], check: str = "") -> None:
        version = self.page.locator("form[data-decision] [name=expected_version]").input_value()
        assert self.page.input_value("#reason") == "", "nothing is left of an earlier decision"
        self.hands.choose(f"[type=radio][value={decision}]")
        if check:
            self.hands.choose(check)
        for name, said in fields:
            self.hands.write(f"[name={name}]", said)
        self.hands.write("#reason", reason)
        self.hands.send()
        self.page.wait_for_function(
            "(v) => document.querySelector('[name=expected_version]')?.value !== v && document.readyState === 'complete'",
            arg=version,
        )
        assert self.page.locator(".fault").count() == 0, self.page.locator(".fault").all_inner_texts()

    def state(self) -> str:
        return self.page.locator("h1 .tag").first.inner_text()


@pytest.fixture(scope="module")
def staff(house: House) -> dict[str, Person]:
    roles = {"reviewer": ("reviewer",), "lead": ("lead",), "other": ("lead",), "auditor": ("auditor",)}
    return {
        f"{name}-{language}": house.hire(f"{name}-{language}", *given, language=language)
        for language in ("zh", "en")
        for name, given in roles.items()
    }


WAYS = [(Mouse, "zh", 1440), (Keyboard, "en", 1440), (Mouse, "en", 390), (Keyboard, "zh", 390)]


@pytest.mark.parametrize(("hands", "language", "width"), WAYS)
def test_from_a_report_to_proof(
    house: House, staff: dict[str, Person], open_window: Callable[..., Window], tmp_path: Path,
    hands: type[Mouse] | type[Keyboard], language: str, width: int,
) -> None:  # fmt: skip
    number = WAYS.index((hands, language, width))
    word, said = f"{number}号清单", passage(100 + number)
    prompt = f"请说{word}"
    house.says |= {word: said, f"{number}号便条": passage(200 + number)}
    other = house.report(f"请说{number}号便条", "u1")
    case = house.report(prompt, "u1", "u2", "u3", comment="不对", category="violence")

    def sit(name: str) -> Desk:
        return Desk(open_window(None, width, language), hands, house, f"{name}-{language}")

    def shot(desk: Desk, name: str) -> None:
        desk.window.shot(f"story-{name}-{hands.__name__.lower()}-{language}-{width}")

    # A reviewer: the first of the queue, claimed, read, decided, undone, decided.
    desk = sit("reviewer")
    page = desk.page
    desk.go("cases")
    assert page.locator("[data-row] a").first.get_attribute("href") == f"/console/cases/{case}", "it is the first"
    shot(desk, "queue")
    desk.hands.row()
    page.wait_for_url(f"**/cases/{case}")
    desk.hands.do("claim")
    page.wait_for_selector("form[action$='/release']")
    settled(page)
    desk.hands.do("text")
    page.wait_for_selector("#part-passage .text")
    assert said in page.locator("#part-passage .text").first.inner_text()
    desk.hands.do("prompt")
    page.wait_for_selector("#part-prompt .text")
    assert prompt in page.locator("#part-prompt .text").first.inner_text()
    shot(desk, "read")
    desk.hands.do("guide")
    page.wait_for_selector("#guide[open]")
    shot(desk, "guideline")
    desk.hands.shut()
    page.wait_for_selector("#guide", state="hidden")

    def confirm() -> None:
        desk.hands.do("confirm")
        desk.hands.reason(1)
        page.wait_for_function("() => document.querySelector('#reason').value.length > 3")
        desk.hands.send()
        page.wait_for_selector(".undo")

    confirm()
    shot(desk, "undo")
    assert house.case(case)["state"] == "confirmed"
    desk.hands.do("undo")
    page.wait_for_url(f"**/cases/{case}")
    assert house.case(case)["state"] == "provisional"
    confirm()
    assert wait_for(lambda: said not in house.said(prompt), 1) < 1.0, "the next request gets it no longer"
    assert page.url.split("?")[0].endswith(other), "and the next case is there"

    house.decide(other, "reject")

    # A lead widens it, another one agrees.
    for who, entries in (("lead", 1), ("other", 2)):
        desk = sit(who)
        desk.duty(case)
        if who == "lead":
            desk.decide("widen", "everywhere", check="[name=to]")
        else:
            assert desk.page.locator("[name=to]").is_checked(), "what was proposed stands there"
            desk.decide("widen", "agreed")
        assert len(house.case(case)["entries"]) == entries

    # To the model's people; the model is asked again, and says it; then it does not.
    desk.decide("optimise", "to be tuned")
    desk.decide("probe", "says it still?", ("model", "m"))
    wait_for(lambda: house.case(case)["state"] == "in_optimisation", 40)
    assert house.case(case)["probes"][-1]["outcome"] == "failed"
    house.says[word] = "这件事我不能说。"
    desk.page.reload()
    desk.decide("probe", "and now?")
    wait_for(lambda: house.case(case)["state"] == "closed", 40)
    desk.page.reload()
    assert desk.state() == {"zh": "已办结", "en": "closed"}[language]
    desk.page.wait_for_selector(".plot canvas")
    shot(desk, "closed")

    # An auditor: the evidence, the report, the chain.
    desk = sit("auditor")
    desk.go("audit")

    def download(selector: str) -> str:
        with desk.page.expect_download() as found:
            desk.hands.press(selector)
        found.value.save_as(tmp_path / "file")
        return (tmp_path / "file").read_text("utf-8")

    told = json.loads(download("a[href$='/evidence?form=json']"))
    (mine,) = [c for c in told["cases"] if c["case"] == case]
    assert mine["state"] == "closed" and [p["outcome"] for p in mine["probes"]] == ["failed", "passed"]
    assert told["audit"]["chain"] == "whole"
    assert said not in download("a[href$='/evidence']")
    desk.hands.press("a[href='?check=1']")
    desk.page.wait_for_selector("[role=status].done")
    shot(desk, "audit")
    desk.go("transparency")
    assert desk.page.locator(".done").count() == 1
    report = json.loads(download("a[href*='form=json']"))
    assert report["chain"] == "whole"
    shot(desk, "transparency")
