"""A tiny model behind OpenAI's chat API, in a process of its own (needs torch): what a gateway has behind it, and a probe asks.

`serve(folder)` gives the URL; `python -m tests.tiny_server FOLDER [ADAPTER]` is what it starts. One question at a time: it is tiny.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def serve(folder: Path, adapter: Path | None = None) -> Iterator[str]:
    """The base URL (`…/v1`) of a server that says what the model in `folder` says, with the adapter if one is named."""
    command = [sys.executable, "-m", "tests.tiny_server", str(folder), *([str(adapter)] if adapter else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the tiny server did not start"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


class _Model:
    def __init__(self, folder: str, adapter: str | None) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        self.name = Path(folder).name
        self._torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if adapter:
            import peft

            self._model = peft.PeftModel.from_pretrained(self._model, adapter).merge_and_unload().eval()
        self._lock = threading.Lock()

    def asked(self, messages: list[dict[str, str]]) -> list[int]:
        ids: list[int] = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        return ids

    def tokens(self, ids: list[int], most: int, temperature: float, seed: int | None) -> Iterator[int]:
        """One after the other, without the end; the likeliest at temperature 0."""
        torch = self._torch
        chance = torch.Generator()
        if seed is None:
            chance.seed()
        else:
            chance.manual_seed(seed)
        told, past = torch.tensor([ids]), None
        for _ in range(most):
            with self._lock, torch.inference_mode():
                out = self._model(input_ids=told, past_key_values=past, use_cache=True)
            past, logits = out.past_key_values, out.logits[0, -1].float()
            if temperature > 0:
                token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance))
            else:
                token = int(logits.argmax())
            if token == self.tokenizer.eos_token_id:
                return
            yield token
            told = torch.tensor([[token]])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: _Model

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._error(404, "no such path")
        return self._json(
            200, {"object": "list", "data": [{"id": self.model.name, "object": "model", "owned_by": "tests"}]}
        )

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/chat/completions":
            return self._error(404, "no such path")
        try:
            body = json.loads(raw)
            ids = self.model.asked(body["messages"])
            most = int(body.get("max_completion_tokens") or body.get("max_tokens") or 96)
            temperature = float(1 if body.get("temperature") is None else body["temperature"])
        except (ValueError, KeyError, TypeError) as e:
            return self._error(400, f"not a request: {type(e).__name__}")
        tokens = self.model.tokens(ids, most, temperature, body.get("seed"))
        whole = {
            "id": f"chatcmpl-{time.monotonic_ns():x}",
            "created": int(time.time()),
            "model": body.get("model") or self.model.name,
        }
        if body.get("stream"):
            usage = (body.get("stream_options") or {}).get("include_usage")
            return self._stream(whole | {"object": "chat.completion.chunk"}, tokens, len(ids), most, usage)
        said = list(tokens)
        choice = {
            "index": 0, "finish_reason": "length" if len(said) == most else "stop", "logprobs": None,
            "message": {"role": "assistant", "content": self.model.tokenizer.decode(said), "refusal": None},
        }  # fmt: skip
        answer = whole | {"object": "chat.completion", "choices": [choice], "usage": _usage(len(ids), len(said))}
        return self._json(200, answer)

    def _stream(self, whole: dict[str, Any], tokens: Iterator[int], asked: int, most: int, usage: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

        def event(delta: dict[str, Any], end: str | None = None) -> None:
            self._event(whole | {"choices": [{"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}]})

        event({"role": "assistant", "content": ""})
        said: list[int] = []
        sent = ""
        for token in tokens:
            said.append(token)
            text = self.model.tokenizer.decode(said)
            # A character may be several tokens: it goes out whole.
            if not text.endswith("\ufffd") and len(text) > len(sent):
                event({"content": text[len(sent) :]})
                sent = text
        if rest := self.model.tokenizer.decode(said)[len(sent) :]:
            event({"content": rest})
        event({}, "length" if len(said) == most else "stop")
        if usage:
            self._event(whole | {"choices": [], "usage": _usage(asked, len(said))})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, status: int, value: dict[str, Any]) -> None:
        raw = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _error(self, status: int, message: str) -> None:
        self._json(
            status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        )


def _usage(asked: int, said: int) -> dict[str, int]:
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def main(folder: str, adapter: str | None = None) -> None:
    """Serve on a free port of this machine, told on stdout, until killed."""
    handler = type("Handler", (_Handler,), {"model": _Model(folder, adapter)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
