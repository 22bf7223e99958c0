"""The demo: a gateway with the embedded store before the stand-in model, and a short conversation by the real OpenAI client.

Law: it runs what users run (`sluice serve`), shows what it saw, and fails (exit status 1) where a promise is not kept.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.demo import model, samples
from app.errors import SettingsError


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(
    command: list[str], ready: str, env: dict[str, str] | None = None, log: Path | None = None, seconds: float = 30
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, from its first good answer at the URL `ready` until the block ends. Raises RuntimeError with its last words."""
    out = log.open("wb") if log else subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + seconds
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                last = log.read_text(errors="replace")[-2000:] if log else ""
                raise RuntimeError(f"{command[1:4]} did not become ready:\n{last}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@dataclass
class Place:
    """Where the demo's gateway listens."""

    port: int
    ops: int
    admin: int
    token: str

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def _start(stack: ExitStack, folder: Path, ports: tuple[int, int, int]) -> Place:
    backend = free_port()
    place = Place(*ports, secrets.token_urlsafe(24))
    stack.enter_context(
        running(
            [sys.executable, "-m", "app.demo.model", "--port", str(backend), "--delay", "0.01"],
            f"http://127.0.0.1:{backend}/v1/models",
            log=folder / "model.log",
        )
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {
        "SLUICE_UPSTREAM_URL": f"http://127.0.0.1:{backend}/v1",
        "SLUICE_DATA_DIR": str(folder / "data"),
        "SLUICE_ADMIN_TOKEN": place.token,
        "SLUICE_PORT": str(place.port),
        "SLUICE_OPS_PORT": str(place.ops),
        "SLUICE_ADMIN_PORT": str(place.admin),
    }
    stack.enter_context(
        running(
            [sys.executable, "-m", "app.cli", "serve"],
            f"http://127.0.0.1:{place.ops}/readyz",
            env,
            folder / "gateway.log",
        )
    )
    return place


class Broken(Exception):
    """A promise of the demo was not kept."""


def _expect(kept: bool, promise: str) -> None:
    if not kept:
        raise Broken(promise)


class Story:
    """The conversation, step by step."""

    def __init__(self, place: Place) -> None:
        from openai import OpenAI

        self._place = place
        self._client = OpenAI(base_url=place.base_url, api_key="demo", max_retries=0)
        self._history: list[Any] = []

    def _ask(self, said: str) -> tuple[str, str, dict[str, Any]]:
        """One streamed turn; the history grows as a chat page's would. Returns text, finish reason and sluice's own words."""
        self._history.append({"role": "user", "content": said})
        started = time.perf_counter()
        first: float | None = None
        text, finish = "", ""
        sluice: dict[str, Any] = {}
        for chunk in self._client.chat.completions.create(model="stand-in", messages=self._history, stream=True):
            for choice in chunk.choices:
                if choice.delta.content:
                    first = first or time.perf_counter()
                    text += choice.delta.content
                finish = choice.finish_reason or finish
            sluice = getattr(chunk, "sluice", None) or sluice
        self._history.append({"role": "assistant", "content": text})
        ended = time.perf_counter()
        print(f"   用户 user      │ {said}")
        print(f"   回答 answer    │ {text.strip()}")
        print(
            f"   结果 outcome   │ {sluice.get('action')} · finish_reason={finish} · {sluice.get('decision')} · "
            f"first text {((first or ended) - started) * 1000:.0f} ms, all {(ended - started) * 1000:.0f} ms"
        )
        return text, finish, sluice

    def tell(self) -> None:
        """Raises Broken."""
        _title("1. 正常对话，流式原样通过 · a clean stream goes through untouched")
        text, finish, _ = self._ask("你好")
        _expect(text == model.GREETING and finish == "stop", "a clean answer equals what the model sent")

        _title("2. 违规提问被拒，下一句照常 · a refused prompt, and the next harmless turn")
        _, finish, _ = self._ask("请告诉我哪里低价出售仿真枪支弹药")
        _expect(finish == "content_filter", "the prompt is refused")
        text, finish, _ = self._ask("那么“杀青”是什么意思？")
        _expect(text == model.HARMLESS and finish == "stop", "the next harmless turn is answered")

        _title("3. 流式回答在违规处截断，不漏一字 · an answer cut in mid-stream, not a character of the term delivered")
        text, finish, _ = self._ask("写一段广告")
        head = model.CUT.split("出售仿真枪支弹药")[0]
        _expect(text.startswith(head) and finish == "content_filter", "the text before the term is delivered")
        _expect(
            not any(ch in text[len(head) :].split("\n")[0] for ch in "出售仿真枪支弹药"),
            "no character of the term is delivered",
        )

        _title("4. 个人信息打码 · personal information masked")
        text, finish, _ = self._ask("登记表上写了什么？")
        _expect(
            "13800138000" not in text and "demo.user@example.com" not in text and "*" * 11 in text,
            "number and address are masked",
        )

        _title("5. 新增一条实时词条，下一个请求即生效 · an entry added live acts on the next request")
        text, _, _ = self._ask("念一下暗号")
        _expect(text == model.LIVE, "before the entry the answer passes")
        took = self._add_entry("蓝色纸飞机暗号")
        text, finish, _ = self._ask("再念一下暗号")
        _expect(finish == "content_filter" and "纸飞机" not in text, "after the entry the answer is cut")
        print(f"   生效 effective │ {took * 1000:.0f} ms at most after the admin call (词条生效用时上限)")

    def _add_entry(self, term: str) -> float:
        started = time.perf_counter()
        body = {"term": term, "category": "other_prohibited", "action": "block", "reason": "demo"}
        made = self._admin("POST", "/sluice/v1/admin/entries", body)
        print(f"   词条 entry     │ {made['id']} version {made['version']}")
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._place.ops}/readyz") as r:
                state = orjson.loads(r.read())
            if all(w["entries_version"] >= made["version"] for w in state["workers"]):
                return time.perf_counter() - started
            if time.perf_counter() - started > 5:
                raise Broken("the entry acts within a second")
            time.sleep(0.02)

    def _admin(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._place.admin}{path}", orjson.dumps(body), method=method,
            headers={"Authorization": f"Bearer {self._place.token}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as r:
            return orjson.loads(r.read())


def _title(text: str) -> None:
    print(f"\n── {text}")


def run(stay: bool) -> int:
    """Tell the story; `stay` keeps everything up afterwards, on the usual ports."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise SettingsError(
            "the demo speaks through the OpenAI client: pip install 'sluice-gateway[demo]' (请先安装)"
        ) from None
    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        ports = (8100, 8101, 8102) if stay else (free_port(), free_port(), free_port())
        place = _start(stack, folder, ports)
        print(f"Sluice {place.base_url} → 替身模型 stand-in model")
        try:
            Story(place).tell()
        except Broken as e:
            print(f"\n未达成 NOT KEPT: {e}", file=sys.stderr)
            return 1
        print("\n全部达成 · all as promised")
        if stay:
            admin = f"http://127.0.0.1:{place.admin}"
            name, password = samples.account(admin, folder / "gateway.log")
            cases = samples.fill(f"http://127.0.0.1:{place.port}")
            print(f"\n仍在运行 still up: base_url={place.base_url}")
            print(f"  控制台 console  {admin}/console  {name} / {password}  （{cases} 个示例举报 sample reports）")
            print(f"  用户页面 users' pages  http://127.0.0.1:{place.port}/sluice/")
            print(f"  管理接口 admin API  {admin}  Bearer {place.token}\n  Ctrl-C 结束 ends it", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                pass
    return 0
