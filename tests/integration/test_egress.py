"""Whom a gateway talks to: the configured model, and nobody else. Each of its processes tells every address that it connects to or looks
up."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Model, wait_for, whole_gateway

HOOK = """
import os, sys

def told(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        said = args[1]
        if said is None:
            return  # over what is connected already
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        said = args[:2]
    else:
        return
    fd = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{event} {said!r}\\n".encode())
    os.close(fd)

sys.addaudithook(told)
# A proxy of the environment is not the configured model.
os.environ.update(dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), os.environ["PROXY"]), no_proxy="")
"""
NO_UVLOOP = "raise ImportError('its connections are made where no hook sees them')\n"


class Trap:
    """A place that pictures are said to lie at; `calls`: who came for them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.calls = self._socket.getsockname()[1], 0
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.calls += 1

    def close(self) -> None:
        self._socket.close()


@pytest.mark.timeout(120)
def test_article_11_user_text_goes_to_the_configured_model_alone(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, told, trap = tmp_path / "hooks", tmp_path / "told", Trap()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    (hooks / "uvloop.py").write_text(NO_UVLOOP)
    monkeypatch.setenv("PYTHONPATH", f"{hooks}:{Path(__file__).parents[2]}")
    monkeypatch.setenv("TOLD", str(told))
    monkeypatch.setenv("PROXY", f"http://127.0.0.1:{trap.port}")
    picture = f"http://127.0.0.1:{trap.port}/picture.png"
    text = "这里说的是一段没有什么特别的话，足够长，可以被举报，也可以被申诉，除此之外没有别的用处，只是为了凑够四十个字而已。"
    model.script.chat(text + f" ![图]({picture}) https://example.com/{'a' * 9}")
    with whole_gateway(tmp_path / "gateway", model.url) as whole:

        def post(path: str, **body: Any) -> Any:
            answer = whole.http.post(path, json=body)
            # The scripted model speaks one dialect: what it says in the others is nonsense, and told as such.
            assert answer.status_code in (200, 202) or answer.json()["error"]["code"] == "upstream_protocol_error", (
                answer.text
            )
            return answer

        parts = [{"type": "text", "text": f"看图：{picture}"}, {"type": "image_url", "image_url": {"url": picture}}]
        turn = [{"role": "user", "content": parts}]
        answer = post("/v1/chat/completions", model="m", messages=turn, metadata={"a": picture}).json()
        post("/v1/chat/completions", model="m", messages=turn, stream=True)
        source = {"type": "url", "url": picture}
        claude = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "看图"}]}]
        post("/v1/messages", model="m", messages=claude, max_tokens=9)
        shown = [
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": picture}, {"type": "input_text", "text": "看图"}],
            }
        ]
        post("/v1/responses", model="m", input=shown)
        post("/v1/moderations", input=[text, picture])
        report = {"decision_id": answer["id"], "receipt": answer["sluice"]["receipt"], "comment": picture}
        post("/sluice/v1/reports", text=answer["choices"][0]["message"]["content"], **report)
        post("/sluice/v1/complaints", kind="pi_delete", comment=picture)
        assert whole.add({"term": "某个不存在的短语"}).status_code == 201
        assert whole.ready()["workers"][0]["ready"]
        # The model is told where the picture lies, and fetches it or not.
        assert picture in str(model.script.asked[0])
        wait_for(lambda: str(model.port) in told.read_text())
    lines = set(told.read_text().splitlines())
    store = {line for line in lines if line.startswith("socket.connect '/") and line.endswith("redis.sock'")}
    assert store, "the gateway's own store is heard of too: the hook is in every process"
    others = {line for line in lines - store if f"('127.0.0.1', {model.port})" not in line}
    assert not others, others
    trap.close()
    assert trap.calls == 0
