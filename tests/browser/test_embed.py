"""The script tag in a real browser: a chatbot's page of another origin, with a strict policy of its own, reports an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from app.web import asgi
from tests.conftest import Model, RedisServer, Whole, redis_binaries, served, whole_gateway

pytestmark = pytest.mark.browser

KEY = "key-of-the-chat"
TEXT = "示例答复：**会议**改到\n\n今天下午三点，\n地点在二号楼。"


class Host:
    """The chatbot's page, as its developers write it. `answers`: (text, attributes)."""

    def __init__(self) -> None:
        self.gateway, self.answers, self.tag = "", list[tuple[str, dict[str, str]]](), 'data-app="chat"'

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        def shown(text: str, said: dict[str, str]) -> str:
            attributes = "".join(f' {k}="{_escaped(v)}"' for k, v in said.items())
            return f"<div class=answer{attributes}><p>{_escaped(text)}</p></div>"

        body = (
            f'<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>chat</title>'
            f'<script src="{self.gateway}/sluice/report.js" {self.tag} defer></script></head><body>'
            f'<h1>chat</h1><div id="talk">{"".join(shown(*a) for a in self.answers)}</div></body></html>'
        )
        policy = (
            f"default-src 'none'; script-src {self.gateway}; frame-src {self.gateway}; base-uri 'none'; "
            "require-trusted-types-for 'script'"
        )
        head = [(b"content-security-policy", policy.encode())]
        await asgi.respond(send, 200 if scope["path"] == "/" else 404, body.encode(), head, b"text/html; charset=utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[Host, str]]:
    page = Host()
    with served(page) as port:
        yield page, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_model: Model, host: tuple[Host, str]) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("embed")
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    app = {
        "id": "chat",
        "keys": [f"sha256:{hashed}"],
        "pages": {"open": True, "origins": ["https://chat.example", host[1]]},
    }
    (folder / "apps.yaml").write_text(
        json.dumps({"apps": [app, app | {"id": "other", "keys": [f"sha256:{'0' * 64}"], "pages": {"open": True}}]})
    )
    with whole_gateway(folder, shared_model.url, REDIS_URL=server.url, APPS=str(folder / "apps.yaml")) as whole:
        host[0].gateway = whole.url
        yield whole
    server.kill()


@pytest.fixture
def errors() -> list[str]:
    """What the browser complains of: none may be left at the end."""
    return []


@pytest.fixture
def page(browser: Browser, host: tuple[Host, str], whole: Whole, errors: list[str]) -> Iterator[Page]:
    """A page that fails the test for a policy that was broken, an error of a script, or a request to anywhere else."""
    host[0].answers, host[0].tag = [], 'data-app="chat"'
    context: BrowserContext = browser.new_context(viewport={"width": 1200, "height": 900})
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('VIOLATION ' + e.violatedDirective + ' ' + e.blockedURI))"
    )
    page, asked = context.new_page(), list[str]()
    context.on("request", lambda request: asked.append(request.url))
    # A form that is refused is no error of the page.
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" and "status of 4" not in m.text else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert asked and all(url.startswith("http://127.0.0.1:") for url in asked), asked
    assert errors == []


def answered(whole: Whole, model: Model, text: str) -> dict[str, str]:
    """Have the model say this: the attributes that the chatbot's page puts on the answer."""
    model.script.chat(text)
    body = {"model": "m", "messages": [{"role": "user", "content": "说吧"}]}
    answer = httpx.post(
        f"{whole.base_url}/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}
    ).json()
    came: dict[str, Any] = answer["sluice"]
    return {"data-sluice-decision": came["decision"], "data-sluice-receipt": came["receipt"], "data-sluice-text": text}


def form_of(page: Page) -> FrameLocator:
    return page.frame_locator("dialog.sluice-dialog iframe")


def sent(whole: Whole, form: FrameLocator) -> str:
    """The ticket that is shown; the report is with the reviewers."""
    ticket = form.locator("#ticket").inner_text()
    assert ticket.startswith("tkt_") and form.locator("#token").inner_text()
    return str(whole.call("GET", f"/cases/{ticket}/evidence").json()["text"])


def test_an_answer_is_reported_by_mouse_with_the_proof_of_its_delivery(
    whole: Whole, shared_model: Model, host: tuple[Host, str], page: Page
) -> None:
    said = answered(whole, shared_model, TEXT)
    host[0].answers = [("示例答复：会议改到今天下午三点，地点在二号楼。", said), ("没有标记的话", {})]
    page.goto(host[1])
    button = page.get_by_role("button", name="举报此回答")
    expect(button).to_have_count(1)
    button.click()
    form = form_of(page)
    expect(form.get_by_label("回答原文")).to_have_value(TEXT)
    expect(form.get_by_label("回答原文")).not_to_be_editable()
    expect(form.locator(".handed")).to_be_visible()
    expect(form.get_by_label("决定编号", exact=True)).to_have_value(said["data-sluice-decision"])
    form.get_by_label("说明").fill("时间不对")
    form.get_by_role("button", name="提交").click()
    expect(form.locator("h1")).to_have_text("已收到您的举报")
    expect(form.locator(".sent")).to_contain_text("送达已核实")
    assert sent(whole, form) == TEXT
    page.get_by_role("button", name="关闭").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    assert "tkt_" not in page.url


def test_an_answer_that_comes_later_is_reported_by_keyboard_alone_and_escape_leads_back(
    whole: Whole, host: tuple[Host, str], page: Page
) -> None:
    host[0].tag = 'data-app="chat" data-lang="en"'
    page.goto(host[1])
    page.evaluate(
        """() => { const said = document.createElement("div"); said.append("An example answer, with nothing in it that is right.");
        document.getElementById("talk").append(said); said.id = "late"; }"""
    )
    button = page.get_by_role("button", name="Report this answer")
    expect(button).to_have_count(0)
    page.evaluate("document.getElementById('late').setAttribute('data-sluice-decision', 'slc_late')")
    expect(button).to_have_count(1)
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    form = form_of(page)
    expect(form.get_by_label("The answer", exact=True)).to_have_value(
        "An example answer, with nothing in it that is right."
    )
    expect(form.get_by_label("Category")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(form.get_by_label("Category")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("It is wrong.")
    for _ in range(20):
        page.keyboard.press("Tab")
        if form.get_by_role("button", name="Send").evaluate("e => e === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(form.locator("h1")).to_have_text("Your report was received")
    assert sent(whole, form).startswith("An example answer")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.evaluate("document.getElementById('late').remove()")
    expect(button).to_have_count(0)


def test_what_the_frame_shows_again_after_a_mistake_is_what_was_typed(
    whole: Whole, shared_model: Model, host: tuple[Host, str], page: Page
) -> None:
    said = answered(whole, shared_model, TEXT)
    host[0].answers = [("答复", said | {"data-sluice-text": "示例答复：页面上看到的与送达的不一样。"})]
    page.goto(host[1])
    page.get_by_role("button", name="举报此回答").click()
    form = form_of(page)
    form.get_by_label("说明").fill("两行\n说明")
    form.get_by_role("button", name="提交").click()
    expect(form.get_by_role("alert")).to_contain_text("凭证与上面的原文或决定编号不符")
    expect(form.get_by_label("说明")).to_have_value("两行\n说明")
    form.get_by_role("button", name="不带凭证提交").click()
    expect(form.locator(".sent")).to_contain_text("尚未核实")


def test_a_page_that_the_app_does_not_name_cannot_frame_the_form_and_is_told_the_way(
    whole: Whole, host: tuple[Host, str], page: Page, errors: list[str]
) -> None:
    host[0].tag = 'data-app="other"'
    host[0].answers = [("示例答复", {"data-sluice-decision": "slc_1"})]
    page.goto(host[1])
    page.get_by_role("button", name="举报此回答").click()
    way = page.get_by_role("link", name="在新窗口打开")
    expect(way).to_be_visible(timeout=8000)
    assert way.get_attribute("href") == f"{whole.url}/sluice/report?app=other&lang=zh"
    assert errors and all("frame-ancestors 'none'" in text for text in errors)
    errors.clear()


def test_a_frame_believes_only_its_parent_and_a_page_alone_believes_nobody(
    whole: Whole, host: tuple[Host, str], page: Page
) -> None:
    address = f"{whole.url}/sluice/report?app=chat&lang=en"
    forged = "({sluice: 'report', text: 'forged', decision: 'slc_1'})"
    page.goto(address)
    page.evaluate(f"postMessage({forged}, '*')")
    page.wait_for_timeout(200)
    expect(page.get_by_label("The answer", exact=True)).to_have_value("")
    page.goto(host[1])
    page.evaluate(
        """address => { const frame = document.createElement("iframe"); frame.name = "ours"; frame.src = address;
        document.body.append(frame); }""",
        address,
    )
    text = page.frame_locator("iframe[name=ours]").get_by_label("The answer", exact=True)
    expect(text).to_have_value("")
    inside = page.frame(name="ours")
    assert inside is not None
    inside.evaluate(f"postMessage({forged}, '*')")
    page.wait_for_timeout(200)
    expect(text).to_have_value("")
    page.evaluate("frames.ours.postMessage({sluice: 'report', text: 'from the parent'}, '*')")
    expect(text).to_have_value("from the parent")


def test_a_selected_part_is_the_part_that_is_wrong(whole: Whole, page: Page) -> None:
    page.goto(f"{whole.url}/sluice/report?app=chat&lang=en")
    text = page.get_by_label("The answer", exact=True)
    text.fill("前面的话。要举报的话。后面的话。")
    expect(page.get_by_role("button", name="Use the selected words")).to_be_hidden()
    text.evaluate("e => { e.focus(); e.setSelectionRange(5, 11); }")
    page.get_by_role("button", name="Use the selected words").click()
    expect(page.get_by_label("The part that is wrong")).to_have_value("要举报的话。")


def test_without_a_script_the_pages_do_all_that_they_must(browser: Browser, whole: Whole) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(f"{whole.url}/sluice/?app=chat&lang=en")
    page.get_by_role("main").get_by_role("link", name="Report an answer").click()
    page.get_by_label("The answer", exact=True).fill("An example answer that is wrong from its first word to its last.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("h1")).to_have_text("Your report was received")
    ticket, token = page.locator("#ticket").inner_text(), page.locator("#token").inner_text()
    page.get_by_role("link", name="Look up the status").click()
    page.get_by_label("Ticket").fill(ticket)
    page.get_by_label("Status token").fill(token)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator(".found")).to_contain_text("Received, not verified")
    assert ticket not in page.url and token not in page.url
    context.close()
