"""People at the console in a real browser: two at once, input methods, keys, what is shown when, drafts, undo, and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import Window
from tests.browser.conftest import House, passage, settled
from tests.people import PASSWORD, Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

OpenWindow = Callable[..., Window]


class Two(NamedTuple):
    anna: Person
    bert: Person


@pytest.fixture(scope="module")
def two(house: House) -> Two:
    return Two(house.hire("anna", "reviewer"), house.hire("bert", "reviewer"))


@pytest.fixture
def reported(house: House, request: pytest.FixtureRequest) -> str:
    """A fresh case; what its model says is an ordinary passage."""
    number = crc32(request.node.name.encode())
    house.says[f"第{number}号"] = passage(number)
    return house.report(f"请说第{number}号", "u1", comment="不对，电话 13800138000。")


def at(window: Window, house: House, path: str) -> Page:
    window.page.goto(f"{house.console}{path}")
    return settled(window.page)


# ---- two at once


def test_no_case_is_decided_twice_and_a_stale_page_keeps_what_was_typed(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    mine, yours = (at(open_window(p), house, f"/cases/{reported}") for p in two)
    for page, reason in ((mine, "what I think of it"), (yours, "another view of it, at length")):
        page.check("[value=reject]" if page is yours else "[value=confirm]")
        page.fill("#reason", reason)
    mine.click("form[data-decision] button.main")
    mine.wait_for_selector(".undo")
    yours.click("form[data-decision] button.main")
    yours.wait_for_selector(".fault")
    assert house.case(reported)["state"] == "confirmed"
    assert yours.locator("h1 .tag").first.inner_text() == "confirmed", "the page is fresh"
    assert yours.input_value("#reason") == "another view of it, at length", "and the words are kept"
    assert yours.locator("[type=radio][value=reject]").count() == 0, "what can no longer be decided is not offered"
    told = [r for r in house.whole.call("GET", "/audit").json()["rows"] if r.get("case") == reported]
    assert [r["what"] for r in told].count("confirm") == 1 and "reject" not in {r["what"] for r in told}


def test_both_send_at_the_same_moment_and_one_decision_stands(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    windows = [open_window(p) for p in two]
    for window, decision in zip(windows, ("confirm", "reject"), strict=True):
        page = at(window, house, f"/cases/{reported}")
        page.check(f"[value={decision}]")
        page.fill("#reason", decision)
    for window in windows:
        window.page.evaluate("document.querySelector('form[data-decision]').requestSubmit()")
    for window in windows:
        window.page.wait_for_selector(".undo, .fault")
    assert sorted(w.page.locator(".fault").count() for w in windows) == [0, 1]
    version = house.case(reported)["version"]
    told = [r for r in house.whole.call("GET", "/audit").json()["rows"] if r.get("case") == reported]
    assert sum(r["what"] in ("confirm", "reject") for r in told) == 1 and version > 1


def test_a_claimed_case_shows_whose_it_is_and_is_not_brought_to_others(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    mine = at(open_window(two.anna), house, f"/cases/{reported}")
    mine.keyboard.press("c")
    mine.wait_for_selector("form[action$='/release']")
    alias = mine.locator(".me a").inner_text().removesuffix(" (me)")
    yours = at(open_window(two.bert), house, "/cases")
    row = yours.locator("[data-row]", has=yours.locator(f"a[href$='{reported}']"))
    assert alias in row.inner_text()
    at_case = at(open_window(two.bert), house, f"/cases/{reported}")
    assert alias in at_case.locator(".note").inner_text()
    at_case.keyboard.press("c")
    at_case.wait_for_selector(".fault")
    assert alias in at_case.locator(".fault").inner_text()
    assert reported not in at(open_window(two.bert), house, "/cases/next").url
    mine.keyboard.press("c")
    mine.wait_for_selector("form[action$='/claim']")


# ---- input methods and keys

_COMPOSING = """(init) => document.activeElement.dispatchEvent(
  Object.assign(new KeyboardEvent("keydown", { bubbles: true, cancelable: true, ...init })))"""


def test_while_an_input_method_composes_no_key_acts(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.evaluate("document.body.focus()")
    for key in ("a", "r", "s", "g", "c", "?", "n", "1"):
        page.evaluate(_COMPOSING, {"key": key, "isComposing": True})
        page.evaluate(_COMPOSING, {"key": "Process", "keyCode": 229})
        page.evaluate(_COMPOSING, {"key": key, "keyCode": 229})
    page.wait_for_timeout(200)
    assert page.url.endswith(reported) and page.locator("[type=radio]:checked").count() == 0
    assert page.locator("dialog[open]").count() == 0 and page.locator("form[action$='/claim']").count() == 1
    # A real composition, as an input method makes it; Ctrl Enter within it sends nothing.
    page.check("[value=reject]")
    page.focus("#reason")
    method = page.context.new_cdp_session(page)
    method.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    for key in ("a", "r", "?", "Escape"):
        page.evaluate(_COMPOSING, {"key": key, "isComposing": True, "keyCode": 229})
    page.evaluate(_COMPOSING, {"key": "Enter", "ctrlKey": True, "isComposing": True, "keyCode": 229})
    method.send("Input.insertText", {"text": "你好"})
    page.wait_for_timeout(200)
    assert page.input_value("#reason") == "你好" and page.url.endswith(reported)
    assert page.evaluate("document.activeElement.id") == "reason"
    assert house.case(reported)["state"] == "verified"


def test_keys_in_a_text_field_are_letters(house: House, two: Two, reported: str, open_window: OpenWindow) -> None:
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.check("[value=confirm]")
    page.focus("#reason")
    page.keyboard.type("argcsz?1njk/")
    assert page.input_value("#reason") == "argcsz?1njk/" and page.url.endswith(reported)
    assert page.locator("dialog[open]").count() == 0 and page.locator("[value=confirm]").is_checked()


def test_a_decision_and_a_prepared_reason_are_two_keys(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.keyboard.press("r")
    page.keyboard.press("2")
    assert page.input_value("#reason") == "teaching, research or fiction"
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".undo")
    assert house.case(reported)["state"] == "rejected"


def test_keys_that_were_changed_act_and_the_usual_ones_no_more(
    house: House, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(house.hire("mapper", "reviewer")), house, "/me")
    page.fill("[name=key-confirm]", "y")
    page.fill("[name=key-guide]", "页")
    with page.expect_navigation():
        page.click("form[action$='/me'] button.main")
    page.goto(f"{house.console}/cases/{reported}")
    settled(page)
    page.keyboard.press("a")
    assert not page.locator("[value=confirm]").is_checked()
    page.keyboard.press("y")
    assert page.locator("[value=confirm]").is_checked()
    page.keyboard.press("?")
    assert "y" in page.locator("#help kbd").all_inner_texts()


def test_help_opens_by_its_key_and_closes_by_escape(house: House, two: Two, open_window: OpenWindow) -> None:
    page = at(open_window(two.anna), house, "/cases")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    assert page.locator("#help dt").count() > 15
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    assert page.url.endswith("/cases"), "no key acts behind a dialog"


def test_rows_are_walked_by_keys_and_opened(house: House, two: Two, reported: str, open_window: OpenWindow) -> None:
    house.says["另一号"] = passage(-7)
    house.report("请说另一号", "u2")
    page = at(open_window(two.anna), house, "/cases")
    links = [link.get_attribute("href") for link in page.locator("[data-row] a").all()]
    assert len(links) >= 2

    def focused() -> str | None:
        return page.evaluate("document.activeElement.getAttribute('href')")

    page.keyboard.press("j")
    assert focused() == links[0]
    page.keyboard.press("j")
    assert focused() == links[1]
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert focused() == links[0], "and not beyond the first"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{links[0]}")


# ---- care


def test_texts_are_blurred_or_hidden_until_held_for_whoever_wants_that(
    house: House, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(house.hire("careful", "reviewer")), house, "/me")
    page.check("[name=blur]")
    page.check("[name=held]")
    with page.expect_navigation():
        page.click("form[action$='/me'] button.main")
    page.goto(f"{house.console}/cases/{reported}")
    settled(page)
    page.keyboard.press("o")
    page.wait_for_selector("#part-passage .text")
    page.mouse.move(0, 0)

    def blurred() -> bool:
        return page.evaluate("getComputedStyle(document.querySelector('.text')).filter") != "none"

    assert blurred() and page.locator(".blur.held").count() == 1
    page.keyboard.down("h")
    assert not blurred()
    page.keyboard.up("h")
    assert blurred()


def test_personal_information_is_covered_until_it_is_asked_for(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.keyboard.press("m")
    page.wait_for_selector("#part-comments .text")
    assert "13800138000" not in page.content()
    for text in page.locator("#part-comments .text").all_inner_texts():
        assert "电话" in text and "●" in text, "what is beside it is not covered, folded or not"
    page.keyboard.press("u")
    page.wait_for_selector("#part-comments .text:has-text('13800138000')")
    told = [r for r in house.whole.call("GET", "/audit").json()["rows"] if r.get("case") == reported]
    assert told[-1]["part"] == "comments, unmasked" and told[-1]["who"] == "anna"


# ---- ten seconds


def test_the_offer_to_undo_ends_after_ten_seconds_also_where_no_case_is_left(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    for case in house.whole.call("GET", "/cases").json()["cases"]:
        if case["id"] != reported and case["state"] in ("received", "verified", "provisional"):
            house.decide(case["id"], "reject")
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.keyboard.press("a")
    page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".undo")
    assert "/cases?" in page.url, "nothing else waits"
    page.wait_for_selector(".undo", state="detached", timeout=11_500)
    page.keyboard.press("z")
    page.wait_for_timeout(200)
    assert house.case(reported)["state"] == "confirmed"


# ---- what was typed


def test_a_reason_that_was_typed_survives_a_reload_and_goes_when_it_was_sent(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    page = at(open_window(two.anna), house, f"/cases/{reported}")
    page.check("[value=reject]")
    page.fill("#reason", "half a thought")
    page.reload()
    assert page.input_value("#reason") == "half a thought"
    page.check("[value=reject]")
    page.click("form[data-decision] button.main")
    page.wait_for_selector(".undo")
    assert page.evaluate("sessionStorage.length") == 0
    page.keyboard.press("z")
    page.wait_for_url(f"**/cases/{reported}")
    assert page.input_value("#reason") == ""


def test_a_reason_is_not_there_again_for_the_next_decision_of_the_case(
    house: House, reported: str, open_window: OpenWindow
) -> None:
    house.decide(reported, "confirm")
    page = at(open_window(house.operator), house, f"/cases/{reported}")
    page.check("[value=optimise]")
    page.fill("#reason", "for the model's people")
    page.click("form[data-decision] button.main")
    page.wait_for_selector("h1 .tag:has-text('in optimisation')")
    settled(page)
    assert page.input_value("#reason") == ""
    page.fill("#reason", "another thought")
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    page.wait_for_selector("#part-passage .text")
    page.reload()
    assert page.input_value("#reason") == "another thought"


def test_whoever_was_logged_out_keeps_what_they_typed(house: House, reported: str, open_window: OpenWindow) -> None:
    window = open_window(house.hire("leaver", "reviewer"))
    page = at(window, house, f"/cases/{reported}")
    page.check("[value=reject]")
    page.fill("#reason", "a long thought")
    window.context.clear_cookies()
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/login*")
    page.fill("[name=id]", "leaver")
    page.fill("[name=password]", PASSWORD)
    page.click("button.main")
    page.wait_for_selector(".top")
    page.goto(f"{house.console}/cases/{reported}")
    assert page.input_value("#reason") == "a long thought"


def test_cases_that_are_alike_are_decided_together_after_a_preview(
    house: House, two: Two, open_window: OpenWindow
) -> None:
    said = passage(77_001)
    house.says |= {"甲号": said, "乙号": said.replace(said[9:11], "某处"), "丙号": said.replace(said[40:42], "某物")}
    first, *more = (house.report(f"请说{name}", "u1") for name in ("甲号", "乙号", "丙号"))
    page = at(open_window(two.anna), house, f"/cases/{first}")
    found = page.locator("form[action$='/preview'] [name=case][type=checkbox]").count()
    assert found == len(more)
    page.check("[data-all]")
    page.keyboard.press("i")
    page.wait_for_selector("#preview fieldset")
    assert said[:20] in page.locator("#preview").inner_text(), "what would be decided is shown first"
    assert house.case(first)["state"] == "verified"
    page.check("#preview [value=confirm]")
    page.fill("#preview [name=reason]", "the same, all of them")
    page.click("#preview button.main")
    page.wait_for_selector("h1:has-text('together')")
    assert page.locator(".tag.good").count() == 3
    assert {house.case(id)["state"] for id in (first, *more)} == {"confirmed"}
    page.click("form[action$='/undo'] button >> nth=0")
    page.wait_for_selector("h1 .tag")
    assert sorted(house.case(id)["state"] for id in (first, *more)) == ["confirmed", "confirmed", "verified"]


# ---- without scripts


def test_without_scripts_a_reviewer_logs_in_opens_the_text_and_decides(
    house: House, two: Two, reported: str, open_window: OpenWindow
) -> None:
    window = open_window(scripts=False)
    page = at(window, house, f"/cases/{reported}")
    page.fill("[name=id]", "anna")
    page.fill("[name=password]", PASSWORD)
    page.click("button.main")
    page.wait_for_url(f"**/cases/{reported}")
    page.click("form:has([value=passage]) button")
    page.wait_for_selector(".text")
    page.go_back()
    page.check("[value=confirm]")
    page.fill("#reason", "by hand alone")
    page.click("form[data-decision] button.main")
    page.wait_for_selector(".undo")
    assert house.case(reported)["state"] == "confirmed"
