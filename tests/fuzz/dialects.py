"""Wire formats, fuzzed through the screen: `python -m tests.fuzz.dialects SECONDS`, or a file that was found."""

from __future__ import annotations

import json
from typing import Any

import atheris

# What searches texts is loaded first and goes uninstrumented: the fuzzer is to follow the wire formats.
import app.detectors.blocklist
import app.detectors.patterns
import app.moderation  # noqa: F401

with atheris.instrument_imports(include=["app"]):
    from tests.contract import test_dialect_fuzz as driven

from app import strictjson
from app.errors import RequestError, UpstreamError
from tests.fuzz.guided import ROOT, Dice, fuzz

_CHECKS = list(driven.CHECKS.values())


def check(data: bytes) -> None:
    """The first byte says which dialect, the second what of it: dice for one of the contract's checks, or an exchange as
    tests/transcripts has it behind 16 bytes that say how its stream is cut."""
    which, way, rest = data[:1], data[1:2], data[2:]
    dialect, api = driven.APIS[ord(which or b"\0") % len(driven.APIS)]
    at = ord(way or b"\0") % (len(_CHECKS) + 1)
    if at < len(_CHECKS):
        _CHECKS[at](dialect, api, Dice(rest))
        return
    try:
        exchange = strictjson.loads(rest[16:])
    except RequestError:
        return
    if isinstance(exchange, dict) and isinstance(exchange.get("request"), dict):
        _exchange(dialect, exchange, Dice(rest[:16]))


def _exchange(dialect: Any, exchange: dict[str, Any], dice: Dice) -> None:
    asked = exchange["request"]
    if not driven.check_prompt(dialect, json.loads(json.dumps(asked))):
        return
    if any(driven.holds_term(text) for _, text in driven.leaves(asked)):
        return  # It is refused, and nobody answers it. What a server only says again of a request is not screened twice.
    prompt = dialect.prompt(asked)
    answer = exchange.get("answer")
    if isinstance(answer, dict) and not answer.get("error"):
        try:
            driven.run(driven._judged(dialect, prompt, answer))
        except UpstreamError:
            pass
    events = exchange.get("stream")
    if isinstance(events, list) and events:
        got = driven.drive(dialect, prompt, events, dice)
        for place, text in driven.joined(got.events).items():
            assert not driven.holds_term(text), (place, text)


def _events(lines: list[str]) -> list[Any]:
    data = [line.partition("data: ")[2] for line in lines if "data: " in line]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


if __name__ == "__main__":
    seeds = []
    for file in sorted((ROOT / "tests" / "transcripts").glob("*.json")):
        stored = json.loads(file.read_bytes())
        which = next(i for i, (d, _) in enumerate(driven.APIS) if file.name.startswith(d.name + "-"))
        stored["stream"] = _events(stored["stream"] or [])
        asked = json.dumps(stored.pop("request"), ensure_ascii=False)
        said = json.dumps(stored, ensure_ascii=False)[1:]
        for answered in (said, said.replace("天气", driven.WORD), said.replace("天", driven.MASKED)):
            seeds.append(bytes((which, len(_CHECKS))) + bytes(16) + f'{{"request":{asked},{answered}'.encode())
    for which in range(len(driven.APIS)):
        seeds += [bytes((which, at, *range(96))) for at in range(len(_CHECKS))]
    words = (*driven._FIELDS, *driven._WORDS, *driven.TERMS)
    quoted = (json.dumps(word, ensure_ascii=False).encode("utf-8", "replace") for word in words)
    fuzz("dialects", check, seeds, quoted)
