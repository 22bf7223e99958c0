"""Tests in a browser are collected where they are asked for, or where what they need is installed: asked for without it, they fail."""

from __future__ import annotations

import importlib.util
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.demo.model import newest
from app.demo.speech import Answer
from tests.conftest import Model, RedisServer, Script, Whole, redis_binaries, wait_for, whole_gateway
from tests.people import Person, first, hire

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.chromium import Window

POLICY = """
reports: {deliveries: true, per_reporter: 1000, per_source: 100000, second: 1.0}
probes: {terms_allow: true, per_minute: 6000, max_tokens: 96}
"""
APPS = "apps: [{id: default, trusted_headers: {subject: x-user}}]"
_WORDS = (
    "码头 木箱 绳子 仓库 清晨 河岸 石桥 灯塔 风筝 邮局 书架 茶杯 窗台 车站 雨伞 集市 果园 田埂 屋顶 铃铛 竹篮 渡船 信件 地图 账本 "
    "早班 夜班 印章 泊位 红色 蓝色 双层 堆放 搬运 检查 记录 晾干 捆好 编号 登记 修补 打扫 等候 出发 返回 归还 清点 浇水"
).split()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = "not browser" not in config.option.markexpr
    there = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
    return None if wanted or there else collection_path.suffix == ".py"


def passage(n: int) -> str:
    """An ordinary text of some seventy characters; no two are alike."""
    words = random.Random(n).sample(_WORDS, 32)
    return "，".join("".join(words[at : at + 4]) for at in range(0, 32, 4)) + "。"


class House:
    """A gateway on a store before a model that says what it is told to: `says`, a piece of the prompt -> the answer."""

    def __init__(self, whole: Whole, script: Script) -> None:
        self.whole, self.says = whole, dict[str, str]()
        script.reply = lambda path, body: Answer(self._answer(newest(body)))
        self._operator: Person | None = None

    def _answer(self, prompt: str) -> str:
        return next((said for part, said in self.says.items() if part in prompt), "好的。")

    @property
    def console(self) -> str:
        return self.whole.admin + "/console"

    @property
    def link(self) -> str:
        """By which the first account is made."""
        found: list[str] = []
        log = self.whole.folder / "log"
        wait_for(lambda: bool(found.extend(re.findall(r"\S+/setup\?token=\S+", log.read_text("utf-8"))) or found))
        return found[0]

    @property
    def operator(self) -> Person:
        """Whoever made the first account: reviewer, lead and operator."""
        if self._operator is None:
            self._operator = first(self.whole.admin, self.link)
        return self._operator

    def hire(self, name: str, *roles: str, language: str = "en") -> Person:
        return hire(self.operator, name, *roles, language=language)

    def ask(self, prompt: str, user: str = "u0") -> dict[str, Any]:
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
        return dict(self.whole.http.post("/v1/chat/completions", json=body, headers={"x-user": user}).json())

    def said(self, prompt: str, user: str = "u0") -> str:
        return str(self.ask(prompt, user)["choices"][0]["message"]["content"])

    def report(self, prompt: str, *users: str, **more: Any) -> str:
        """Each of these users asks, gets the answer and reports it, with the prompt; the id of the case."""
        answers = {user: self.ask(prompt, user) for user in users}
        time.sleep(len(users) > 1)  # the traces of what was delivered are written
        for user, answer in answers.items():
            body = {
                "text": answer["choices"][0]["message"]["content"], "decision_id": answer["id"],
                "receipt": answer["sluice"]["receipt"], "prompt": prompt, **more,
            }  # fmt: skip
            taken = self.whole.http.post("/sluice/v1/reports", json=body, headers={"x-user": user})
            assert taken.status_code == 202, taken.text
        return str(self.whole.call("GET", f"/cases/{taken.json()['ticket']}").json()["id"])

    def case(self, id: str) -> dict[str, Any]:
        return dict(self.whole.call("GET", f"/cases/{id}").json())

    def decide(self, id: str, decision: str, **said: Any) -> None:
        """By the admin API's token."""
        body = {"decision": decision, "reason": "checked", **said}
        done = self.whole.call("POST", f"/cases/{id}/decision", json=body)
        assert done.status_code == 200, done.text


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    for name, said in (("policy", POLICY), ("apps", APPS)):
        (folder / f"{name}.yaml").write_text(said)
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    more = {"REDIS_URL": server.url, "POLICY": str(folder / "policy.yaml"), "APPS": str(folder / "apps.yaml")}
    try:
        with whole_gateway(folder, shared_model.url, **more) as whole:
            yield House(whole, shared_model.script)
    finally:
        server.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from tests.browser.chromium import chromium

    with chromium() as browser:
        yield browser


def settled(page: Page) -> Page:
    """The page, when htmx has its forms: it takes them a moment after the page was loaded, and until then they work as without scripts."""
    page.wait_for_function(
        "() => !document.querySelector('[hx-post]') || document.querySelector('[data-htmx-powered]')"
    )
    return page


def let_in(window: Window, person: Person) -> None:
    """The window has the session of a person who logged in without a browser."""
    host = person.http.base_url.host
    kept = next(c for c in person.http.cookies.jar if c.name == "sluice_console")
    window.context.add_cookies(
        [{"name": kept.name, "value": kept.value or "", "domain": host, "path": "/console", "httpOnly": True, "sameSite": "Strict"}]
    )  # fmt: skip


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Callable[..., Window]]:
    """open_window(person, width, language, scripts) -> a window; nothing may have been wrong in any when the test is over."""
    from tests.browser.chromium import Window

    opened: list[Window] = []

    def open(person: Person | None = None, width: int = 1440, language: str = "en", scripts: bool = True) -> Window:
        window = Window(browser, width, {"zh": "zh-CN", "en": "en-GB"}[language], scripts)
        opened.append(window)
        if person is not None:
            let_in(window, person)
        return window

    yield open
    try:
        for window in opened:
            window.clean()
    finally:
        for window in opened:
            window.close()
