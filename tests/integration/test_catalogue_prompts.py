"""The failure catalogue from outside, continued: I5 to I12, what is asked in disguise, at length, with a false address or badly framed.

The numbers are those of the catalogue. What single parts do with the same things stands in their own tests; here a gateway is asked.
"""

from __future__ import annotations

import base64
import codecs
import json
import random
import re
import shutil
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from app import settings, views
from app.demo.speech import Answer
from app.detectors.lexicon import load
from app.taxonomy import taxonomy
from tests import reading, scorers
from tests.conftest import ROOT, WORD, Model, Running, Whole, served, wait_for, whole_gateway
from tests.contract.test_worst_text import fragments, text_of
from tests.integration.test_bad_input import ELSEWHERE
from tests.integration.test_catalogue import BOTH, SAYS, Make, ask, gateway, let, model, one, post
from tests.integration.test_egress import Trap
from tests.integration.test_guards import SAFE, UNSAFE, Place
from tests.reading import CHAT, MESSAGES, RESPONSES, ROUTES

__all__ = ["gateway", "model", "one"]
HANG = 2.0
"""Seconds that nobody else ever waits while a long prompt is screened."""
METADATA = "http://169.254.169.254/latest/meta-data"


# ---- I5: characters


def _latin(first: int) -> Callable[[str], str | None]:
    """The small letters from `first` on in place of a to z, in a term of Latin letters."""
    return lambda t: "".join(chr(first + ord(c) - 97) if "a" <= c <= "z" else c for c in t) if t.isascii() else None


def _between(mark: str) -> Callable[[str], str | None]:
    return mark.join


def _han(text: str) -> bool:
    return all("\u4e00" <= c <= "\u9fff" for c in text)


@cache
def _traditional() -> dict[int, str]:
    lines = (ROOT / "app" / "data" / "traditional.txt").read_text("utf-8").splitlines()
    pairs = [
        line for line in lines if line and line[0] != "#" and unicodedata.name(line[0], "").startswith("CJK UNIFIED")
    ]
    return {ord(pair[1]): pair[0] for pair in pairs if len(pair) == 2 and pair[0] < "\uffff"}


def _in_traditional(term: str) -> str | None:
    made = term.translate(_traditional())
    return made if _han(term) and made != term else None


def _in_parts(term: str) -> str | None:
    """One character of the term in two."""
    at = next((i for i, c in enumerate(term) if views.splits(c)), None)
    return None if at is None else term[:at] + views.splits(term[at])[0] + term[at + 1 :]


LOOKALIKES = str.maketrans("aceopxyis", "асеорхуіѕ")
ALONE: dict[str, Callable[[str], str | None]] = {
    "zero width": _between("\u200b"), "joiners": _between("\u200d"), "soft hyphens": _between("\u00ad"),
    "variation selectors": _between("\ufe0f"), "bidi": lambda t: "\u202e" + "\u2066".join(t) + "\u202c",
    "smuggled bytes": lambda t: t[0] + "".join(chr(0xE0100 + b) for b in b"harmless") + t[1:],
    "tags between": _between("\U000e0061"), "combining": _between("\u0301"), "spaces": _between(" "), "stars": _between("*"),
    "line breaks": _between("\n"), "traditional": _in_traditional,
    "full width": lambda t: None if _han(t) else "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
    "case": lambda t: "".join(c.upper() if i % 2 else c for i, c in enumerate(t)) if t.isascii() else None,
    "look-alikes": lambda t: t.translate(LOOKALIKES) if t.isascii() else None,
    "mathematical": _latin(0x1D5EE), "circled": _latin(0x24D0),
}  # fmt: skip
"""What another form of the same characters is, or draws nothing between them: the term acts as if it stood there plainly."""
WEAKER: dict[str, tuple[float, Callable[[str], str | None]]] = {
    "tag letters": (1.0, lambda t: "".join(chr(0xE0000 + ord(c)) for c in t) if t.isascii() else None),
    "pinyin": (0.98, lambda t: " ".join(views.sounds(c)[0] for c in t) if _han(t) else None),
    "split": (0.85, _in_parts), "reversed": (0.98, lambda t: t[::-1]),
}  # fmt: skip
"""What flags, and the share of terms that must be seen through it: of some too little is left that no ordinary text says."""


def moderated(gateway: Running, texts: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at in range(0, len(texts), 1000):
        answer = gateway.http.post("/v1/moderations", json={"input": texts[at : at + 1000]}, timeout=60)
        found += [result["sluice"] for result in answer.json()["results"]]
    return found


def test_i5_every_shipped_term_in_every_disguise_does_what_it_does_undisguised(
    gateway: Running, subtests: pytest.Subtests
) -> None:
    terms = [term.term for term in load(settings.read({}).lexicons)]
    plain = dict(zip(terms, moderated(gateway, [f"说：{t}。" for t in terms]), strict=True))
    assert {p["action"] for p in plain.values()} <= {"flag", "mask", "replace", "block"}
    share = dict.fromkeys(ALONE, 1.0) | {name: least for name, (least, _) in WEAKER.items()}
    for name, disguise in (ALONE | {name: change for name, (_, change) in WEAKER.items()}).items():
        with subtests.test(name):
            made = {t: m for t in terms if (m := disguise(t)) is not None and m != t}
            got = dict(zip(made, moderated(gateway, [f"说：{m}。" for m in made.values()]), strict=True))
            if name in ALONE:
                seen = [t for t in made if all(got[t][k] == plain[t][k] for k in ("action", "categories"))]
            else:
                seen = [t for t in made if got[t]["action"] != "pass"]
            assert len(made) > 100 and len(seen) >= share[name] * len(made), sorted(made.keys() - seen)[:9]


@pytest.mark.parametrize("route", ROUTES)
def test_i5_a_disguised_word_does_not_reach_the_model_and_what_does_is_sent_as_it_was_written(
    gateway: Running, model: Model, route: str
) -> None:
    let(model, route, Answer("好。"))
    for name in ("zero width", "variation selectors", "smuggled bytes", "tags between", "bidi", "combining", "spaces"):
        words = ALONE[name](WORD)
        assert words is not None
        model.script.asked.clear()
        for stream in BOTH:
            assert ask(gateway, route, stream, f"{name}：{words}").stopped(), name
        assert not model.script.asked, name
    # The same marks in what says nothing wrong are none of ours to take away.
    for name, disguise in ALONE.items():
        words = disguise("今天的河面很静") or disguise("a quiet river") or ""
        got = ask(gateway, route, False, words)
        sent = model.script.asked.pop()
        assert got.sluice["action"] == "pass" and words in list(reading.strings(sent)), name


# ---- I6: encodings


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LATIN = "qvx sample banned phrase"
ENCODED: dict[str, tuple[str, Callable[[str], str]]] = {
    "percent": ("block", quote), "percent, twice": ("block", lambda t: quote(quote(t))),
    "entities": ("block", lambda t: "".join(f"&#{ord(c)};" for c in t)),
    "hexadecimal entities": ("block", lambda t: "".join(f"&#x{ord(c):x};" for c in t)),
    "escapes": ("block", lambda t: "".join(f"\\u{ord(c):04x}" for c in t)), "spaced": ("block", " ".join),
    "base64": ("flag", _in_base64), "hexadecimal": ("flag", lambda t: t.encode().hex()), "reversed": ("flag", lambda t: t[::-1]),
    "rot13": ("flag", lambda t: codecs.encode(t, "rot13")),
}  # fmt: skip
"""Encoding -> what a word that blocks does in it, as docs/lexicons.md has it."""


@pytest.mark.parametrize("route", ROUTES)
def test_i6_a_word_in_each_encoding_is_decoded_and_acts_as_the_docs_say(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    gateway.block(WORD, LATIN)
    let(model, route, Answer("好。"))
    for name, (action, encode) in ENCODED.items():
        for word in (LATIN,) if name == "rot13" else (WORD, LATIN):
            for said in (f"{route}：{encode(word)}", f"请看 {encode(word)} 这一句"):
                with subtests.test(name, word=word):
                    model.script.asked.clear()
                    got = post(gateway, route, False, said)
                    assert got.headers["x-sluice-action"] == action, said
                    assert bool(model.script.asked) is (action == "flag")
                    assert not model.script.asked or said in list(reading.strings(model.script.asked[-1]))


def test_i6_pictures_and_random_digits_cost_little_and_a_picture_is_passed_on_as_it_came(
    gateway: Running, model: Model
) -> None:
    let(model, CHAT, Answer("好。"))
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + random.Random(6).randbytes(2 << 20)).decode()
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "看图"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    ]  # fmt: skip
    for name, content in (("a picture", parts), ("the same as a text", picture[: 1 << 18])):
        began = time.perf_counter()
        got = gateway.chat({"role": "user", "content": content}).json()
        took = time.perf_counter() - began
        print(f"{name} of {len(json.dumps(content)) >> 10} KiB: {took * 1000:.0f} ms")
        assert got["sluice"]["action"] == "pass" and took < 30, name
        assert model.script.asked.pop()["messages"][0]["content"] == content
    journal = gateway.journal()[-2:]
    assert journal[0]["prompt"].get("screened", 0) < 100, "of the picture no character is screened"


# ---- I7: length


@pytest.fixture
def screening(tmp_path: Path, shared_model: Model) -> Iterator[Whole]:
    """A whole gateway with one worker and the most to do: everything is flagged and nothing stops a text."""
    policy = tmp_path / "policy.yaml"
    every = {"answer": "flag", "prompt": "flag"}
    policy.write_text(json.dumps({"categories": dict.fromkeys(taxonomy(), every)}))
    with whole_gateway(tmp_path / "gateway", shared_model.url, POLICY=str(policy), WORKERS="1") as whole:
        yield whole


class Heart(threading.Thread):
    """Asks the health route and a short question, one after the other, until it is stopped; how long the longest took, seconds."""

    def __init__(self, whole: Whole) -> None:
        super().__init__(daemon=True)
        self._whole, self.stopped = whole, threading.Event()
        self.health: list[float] = []
        self.chats: list[float] = []
        self.failed = 0

    def run(self) -> None:
        with httpx.Client(timeout=60) as http:
            while not self.stopped.is_set():
                began = time.perf_counter()
                health = http.get(self._whole.ops + "/healthz").status_code
                between = time.perf_counter()
                chat = http.post(self._whole.url + CHAT, json=SAYS[CHAT].ask("你好")).status_code
                self.health.append(between - began)
                self.chats.append(time.perf_counter() - between)
                self.failed += (health, chat) != (200, 200)
                self.stopped.wait(0.1)


WORST = ("base64 digits", "long syllables")
MORE = (
    "one ampersand",
    "bytes",
    "syllables",
    "terms and cues",
    "split characters",
    "homophones",
    "open tags",
    "noise",
    "digits",
)


def keeps_no_other_client_waiting(screening: Whole, model: Model, text: str, name: str) -> None:
    let(model, CHAT, Answer("好。"))
    heart = Heart(screening)
    heart.start()
    wait_for(lambda: len(heart.chats) > 2)
    began = time.perf_counter()
    with httpx.Client(base_url=screening.url, timeout=300) as http:
        answer = http.post(CHAT, json=SAYS[CHAT].ask(text))
    took = time.perf_counter() - began
    heart.stopped.set()
    heart.join(60)
    print(
        f"{name}: {took:.1f} s; meanwhile {len(heart.chats)} short questions, longest {max(heart.chats) * 1000:.0f} ms, "
        f"health {max(heart.health) * 1000:.0f} ms"
    )
    assert answer.status_code == 200 and not heart.failed
    assert max(heart.chats + heart.health) < HANG


def megabyte(made: str) -> str:
    """As much of it as a body of a megabyte holds."""
    return made.encode()[:1_000_000].decode("utf-8", "ignore")


@pytest.mark.timeout(300)
def test_i7_a_megabyte_of_the_worst_text_keeps_no_other_client_waiting(
    screening: Whole, model: Model, subtests: pytest.Subtests
) -> None:
    worst = {name: text_of(fragments(0)[name], 1_000_000) for name in WORST}
    for name, text in ({"sensitive": "敏感" * 500_000} | worst).items():
        with subtests.test(name):
            keeps_no_other_client_waiting(screening, model, megabyte(text), name)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_i7_a_megabyte_of_other_nasty_texts_keeps_no_other_client_waiting(
    screening: Whole, model: Model, subtests: pytest.Subtests
) -> None:
    for name in MORE:
        with subtests.test(name):
            text = text_of(fragments(0)[name], 1_000_000)
            keeps_no_other_client_waiting(screening, model, megabyte(text), name)


def test_i7_a_rule_that_would_take_minutes_by_backtracking_is_tried_in_proportion(
    make_gateway: Make, model: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "lexicons" / "violence"
    folder.mkdir(parents=True)
    rules = ("nested\t敏感\t(?:.*感)*.*词\t200", "alternating\t敏感\t(?:感|感感|.)*词\t200")
    (folder / "rules.tsv").write_text("name\tanchor\trest\twithin\n" + "\n".join(rules) + "\n", "utf-8")
    gateway = make_gateway(lexicons=folder.parent)
    # As docs/rules.md has it, a long run of an anchor is slow, and it is linear.
    for text, action in (("敏感" * 10_000, "pass"), ("敏感" * 10_000 + "词", "flag")):
        began = time.perf_counter()
        assert gateway.chat(text).headers["x-sluice-action"] == action
        print(f"{len(text)} characters: {(time.perf_counter() - began) * 1000:.0f} ms")
        assert time.perf_counter() - began < 10


# ---- I8: seams


SEAMS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)


@pytest.mark.parametrize("word", [WORD, "\u200b".join(WORD), " ".join(WORD)], ids=["plain", "zero width", "spaced"])
def test_i8_a_phrase_over_a_seam_of_a_long_text_is_found_wherever_it_begins(
    gateway: Running, model: Model, word: str
) -> None:
    filler = "今天的河面很静，也没有什么大风。" * 5000
    dice = random.Random(8)
    for seam in SEAMS:
        for back in range(len(WORD) + 1):
            at = seam - back
            text = filler[:at] + word + filler[at : at + 40]
            model.script.asked.clear()
            assert ask(gateway, CHAT, False, text).stopped(), (seam, back)
            assert not model.script.asked
            if back % 3 == 0:
                let(model, CHAT, Answer(text), cut=lambda t: [t[i : i + 777] for i in range(0, len(t), 777)])
                stream = dice.random() < 0.5
                got = ask(gateway, CHAT, stream, "说吧")
                assert got.stopped() and got.shows(WORD) == "", (seam, back, stream)


# ---- I9: a guard that fails


@pytest.fixture
def place() -> Iterator[Place]:
    """Where a guard model runs."""
    place = Place("")
    with served(place) as port:
        place.url = f"http://127.0.0.1:{port}/v1"
        yield place


FAILS: dict[str, Any] = {
    "an exception by type": {"__type": "ThrottlingException", "message": "Too many requests"},
    "an exception beside a verdict": {"__type": "InternalServerException", "choices": []},
    "an error object": {"error": {"message": "out of memory", "code": 500}},
    "an error beside a verdict": orjson.dumps({"error": "x", "choices": [{"message": {"content": "safe"}}]}),
    "an action": {"action": "NONE", "outputs": []}, "nothing at all": {}, "a list": b"[]", "null": b"null", "a page": b"<html>ok</html>",
    "an empty body": b"", "a word": b'"safe"', "a status": {"status": "ok", "flagged": False},
}  # fmt: skip


def test_i9_a_guard_that_reports_its_failure_with_status_200_has_not_said_that_a_text_is_harmless(
    make_gateway: Make, model: Model, place: Place, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = scorers.small(tmp_path / "models")
    shutil.copytree(ROOT / "models" / "llama-guard-3", models / "llama-guard-3")
    gateway = make_gateway(models=models, guard="llama-guard-3", guard_url=place.url)
    let(model, CHAT, Answer("好。"))
    numbers = iter(range(1000))

    def asked(says: Any) -> tuple[str, list[str]]:
        """Action, and who failed; each text is new, or the guard's last word on it would be remembered."""
        place.says(says)
        decision = gateway.chat(f"{next(numbers)}：{scorers.BAD}").headers["x-sluice-decision"]
        journal = gateway.gateway.journal
        wait_for(lambda: journal.find(decision) is not None)
        record = (journal.find(decision) or {})["prompt"]
        return record["action"], record["degraded"]

    suspected = asked(500)
    assert suspected[0] == "flag" and suspected[1] == ["llama-guard-3"], suspected
    assert asked(SAFE) == ("pass", []), "only a verdict drops a suspicion"
    assert asked(UNSAFE)[0] in ("flag", "mask", "block") and asked(UNSAFE)[1] == []
    for name, says in FAILS.items():
        with subtests.test(name):
            assert asked(says) == suspected
            assert asked(SAFE) == ("pass", []), "and the next question is asked as ever"


# ---- I10: another address


@pytest.mark.parametrize("route", [RESPONSES, MESSAGES])
def test_i10_a_field_that_names_another_place_or_key_is_refused_in_the_other_apis_too(
    gateway: Running, model: Model, route: str
) -> None:
    for name in (*ELSEWHERE, "extra_body", "custom_llm_provider", "organization", "proxy", "API_KEY"):
        for value in (METADATA, None, {"a": "b"}, [METADATA]):
            answer = gateway.http.post(route, json=SAYS[route].ask("说吧") | {name: value})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "unsupported_parameter") and name in error["message"]
            assert METADATA not in answer.text
    assert not model.script.asked


@pytest.mark.parametrize("route", ROUTES)
def test_i10_a_model_that_sends_elsewhere_is_not_followed(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    trap = Trap()
    for status in (301, 302, 303, 307, 308):
        for place in (f"http://127.0.0.1:{trap.port}/v1/stolen", f"//127.0.0.1:{trap.port}/x", METADATA):
            with subtests.test(status=status):
                model.script.plain, model.script.stream = (
                    (status, {"location": place, "refresh": f"0;url={place}"}, b"{}"),
                    None,
                )
                for stream in BOTH:
                    answer = post(gateway, route, stream)
                    assert answer.status_code >= 500 and place not in answer.text, answer.text
                    assert not {"location", "refresh"} & set(answer.headers)
    assert len(model.script.asked) == 5 * 3 * 2, "each was sent to the model, and nowhere else"
    trap.close()
    assert trap.calls == 0


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]", "0.0.0.0", "224.0.0.1"]
)
def test_i10_an_address_that_nobody_means_is_never_connected_to(make_gateway: Make, host: str) -> None:
    gateway = make_gateway(upstream_url=f"http://{host}:{9}/v1")
    answer = gateway.chat("你好")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert "forbidden" in answer.json()["error"]["message"] and host.strip("[]") not in answer.text


# ---- I11 and I12: heads and frames, byte by byte


BODY = orjson.dumps(SAYS[CHAT].ask("你好"))
SECOND = orjson.dumps(SAYS[CHAT].ask("第二个请求"))
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: sluice\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
NEXT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(SECOND)
    + SECOND
)
"""A request behind the first, that ends the connection."""


def sent(gateway: Running, *pieces: bytes, pause: float = 0.3, patience: float = 5.0) -> list[int]:
    """The statuses that come back for these bytes, to the end of the connection; a pause between the pieces."""
    got = b""
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=patience) as connection:
        try:
            for n, piece in enumerate(pieces):
                time.sleep(pause if n else 0)
                connection.sendall(piece)
            while part := connection.recv(1 << 16):
                got += part
        except TimeoutError:
            got += b" still open"
        except ConnectionError:
            pass
    assert not got.endswith(b" still open"), "the connection is neither answered nor closed"
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got) if status != b"100"]


def test_i11_of_a_clients_headers_only_the_listed_ones_reach_the_model(gateway: Running, model: Model) -> None:
    good = {"authorization": "Bearer of-the-client", "openai-organization": "org", "anthropic-version": "2023-06-01"}
    bad = {
        "cookie": "session=1", "proxy-authorization": "Basic x", "x-forwarded-for": "10.0.0.1", "x-forwarded-host": "other.example",
        "x-forwarded-proto": "https", "x-real-ip": "10.0.0.1", "forwarded": "for=10.0.0.1;host=other.example", "via": "1.1 other",
        "te": "trailers", "trailer": "authorization", "keep-alive": "timeout=5", "upgrade-insecure-requests": "1",
        "x-tenant": "other", "x-sluice-app": "other", "openai_organization": "other", "x_api_key": "other", "x-original-url": "/v1/files",
        "x-rewrite-url": "/v1/files", "x-http-method-override": "DELETE", "x-api-base": METADATA, "range": "bytes=0-1",
        "expect-ct": "x", "accept-encoding": "gzip, br", "origin": "https://other.example", "user-agent": "somebody/1.0",
    }  # fmt: skip
    lines = "".join(f"{k}: {v}\r\n" for k, v in (good | bad).items()).encode()
    assert sent(gateway, POST + lines + LENGTH + b"Connection: close\r\n\r\n" + BODY) == [200]
    there = model.script.headers[-1]
    assert {k: there.get(k) for k in good} == good
    ours = {"host", "content-type", "content-length", "accept", "accept-encoding", "connection"}
    assert set(there) <= ours | set(good), set(there)
    assert there["host"] == f"127.0.0.1:{model.port}" and there["accept-encoding"] == "identity"


HOPS = (
    b"Connection: close, authorization\r\n", b"connection: AUTHORIZATION,close\r\n", b"Connection: close,,  authorization , x\r\n",
    b"Connection: authorization\r\nConnection: close\r\n", b"Connection: close\r\nConnection: authorization\r\n",
)  # fmt: skip


def test_i11_what_connection_names_stays_on_its_hop_however_often_the_header_stands(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    # RFC 9110: 7.6.1 has an intermediary remove what Connection names; 5.2 reads several lines of a list as one.
    for lines in HOPS:
        with subtests.test(lines=lines):
            head = b"Authorization: Bearer mine\r\nOpenAI-Organization: org\r\n" + lines
            assert sent(gateway, POST + head + LENGTH + b"\r\n" + BODY) == [200]
            there = model.script.headers[-1]
            assert "authorization" not in there and there["openai-organization"] == "org"


def test_i11_of_credentials_given_twice_the_same_one_counts_for_the_app_and_no_header_makes_another_app(
    make_gateway: Make, model: Model, gateway: Running
) -> None:
    import hashlib

    digests = {name: hashlib.sha256(f"key-{name}".encode()).hexdigest() for name in ("web", "kids")}
    apps = "apps:" + "".join(f"\n  - {{id: {name}, keys: ['sha256:{digest}']}}" for name, digest in digests.items())
    keyed = make_gateway("apps: {kids: {shadow: []}}\n", apps)

    def app_of(lines: bytes) -> tuple[list[int], str]:
        before = len(keyed.journal())
        statuses = sent(keyed, POST + lines + LENGTH + b"Connection: close\r\n\r\n" + BODY)
        wait_for(lambda: statuses != [200] or len(keyed.journal()) > before)
        return statuses, keyed.journal()[-1]["app"] if statuses == [200] else ""

    web, kids = (f"Authorization: Bearer key-{name}\r\n".encode() for name in digests)
    assert app_of(web) == ([200], "web") and app_of(kids) == ([200], "kids")
    assert app_of(web + kids) == ([200], "web"), "the first, wherever one is read"
    for claim in (
        b"X-Tenant: kids\r\n",
        b"X-Sluice-App: kids\r\n",
        b"X-Forwarded-For: 127.0.0.1\r\n",
        b"App: kids\r\n",
        b"X_Api_Key: key-kids\r\n",
    ):
        assert app_of(web + claim) == ([200], "web")
        assert app_of(claim) == ([401], "")
    assert app_of(b"Authorization: Bearer wrong\r\n" + web) == ([401], "")
    assert app_of(web.replace(b"Authorization", b"Proxy-Authorization")) == ([401], "")
    assert "authorization" not in model.script.headers[-1], "an app's key is ours, not the model's"
    # Where credentials pass through, the model gets one, and the one that was read here.
    sent(gateway, POST + web + kids + LENGTH + b"Connection: close\r\n\r\n" + BODY)
    assert model.script.headers[-1]["authorization"] == "Bearer key-web"


def chunked(*lines: bytes) -> bytes:
    """A request whose body comes in these lines."""
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"


CHUNK = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
SIZE = b"%x" % len(BODY)
BAD_FRAMES: dict[str, bytes] = {
    # RFC 9112, 6.3: two lengths that may differ are no length.
    "length and chunks": POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNK,
    "chunks and no length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + CHUNK,
    "two lengths": POST + LENGTH + b"Content-Length: 0\r\n\r\n" + BODY, "a length twice": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: %d, 0\r\n\r\n" % len(BODY) + BODY,
    "a signed length": POST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY, "an empty length": POST + b"Content-Length: \r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "a length beyond all numbers": POST + b"Content-Length: 18446744073709551617\r\n\r\n" + BODY,
    # 6.1: what is not chunked in the end has no end.
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK,
    "not chunked in the end": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNK,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK,
    "chunked in two lines": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNK,
    "a tab within chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNK,
    "a coding that nobody decodes": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK,
    # 2.2, 5: lines and fields.
    "line feeds alone": (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "a carriage return alone": POST + b"X-A: a\rX-B: b\r\n" + LENGTH + b"\r\n" + BODY,
    "space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "space in a name": POST + b"X A: b\r\n" + LENGTH + b"\r\n" + BODY,
    "NUL in a value": POST + b"X-A: a\0b\r\n" + LENGTH + b"\r\n" + BODY, "NUL in a name": POST + b"X\0A: b\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded field": POST + b"X-A: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded length": POST + b"Content-Length:\r\n %d\r\n\r\n" % len(BODY) + BODY,
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNK,
    "space before the first field": POST.replace(b"Host", b" Host") + LENGTH + b"\r\n" + BODY,
    "no colon": POST + b"X-A\r\n" + LENGTH + b"\r\n" + BODY,
    # 7.1: chunks.
    "a size that is none": chunked(b"zz", BODY, b"0", b""), "a negative size": chunked(b"-1", BODY, b"0", b""),
    "a size with a prefix": chunked(b"0x" + SIZE, BODY, b"0", b""), "a size with a space": chunked(SIZE + b" ", BODY, b"0", b""),
    "a size beyond all numbers": chunked(b"f" * 17, BODY, b"0", b""),
    "a chunk that is longer than it says": chunked(b"%x" % (len(BODY) - 3), BODY, b"0", b""),
    "a line feed behind a size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK.replace(b"\r\n", b"\n"),
    "a line feed in an extension": chunked(SIZE + b";a\nb", BODY, b"0", b""),
    # 3, 2.3: the request's line.
    "a method in small letters": POST.replace(b"POST", b"post") + LENGTH + b"\r\n" + BODY,
    "a method that is none": POST.replace(b"POST", b"PO ST") + LENGTH + b"\r\n" + BODY,
    "a version in small letters": POST.replace(b"HTTP/1.1", b"http/1.1") + LENGTH + b"\r\n" + BODY,
    "a version that is none": POST.replace(b"HTTP/1.1", b"HTTP/1.2") + LENGTH + b"\r\n" + BODY,
    "a version of two digits": POST.replace(b"HTTP/1.1", b"HTTP/11.1") + LENGTH + b"\r\n" + BODY,
    "HTTP/2.0 in words": POST.replace(b"HTTP/1.1", b"HTTP/2.0") + LENGTH + b"\r\n" + BODY,
    "HTTP/0.9 in words": POST.replace(b"HTTP/1.1", b"HTTP/0.9") + LENGTH + b"\r\n" + BODY,
    "no version": b"GET /v1/models\r\n\r\n", "another protocol": bytes.fromhex("16030100a5010000a10303"),
    "an authority for a target": POST.replace(b"/v1/chat/completions", b"other.example:80") + LENGTH + b"\r\n" + BODY,
    "a tunnel": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n",
    "bytes in the target": POST.replace(b"completions", b"\xff\xfe") + LENGTH + b"\r\n" + BODY,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "no length at all": POST + b"\r\n" + BODY,
    # 3.2: exactly one Host.
    "no host": POST.replace(b"Host: sluice\r\n", b"") + LENGTH + b"\r\n" + BODY,
    "two hosts": POST + b"Host: other.example\r\n" + LENGTH + b"\r\n" + BODY,
}  # fmt: skip
WELL_FRAMED: dict[str, tuple[bytes, list[int]]] = {
    # 9.3.2: a request behind another is a request, screened and answered in turn.
    "two in a row": (POST + LENGTH + b"\r\n" + BODY + NEXT, [200, 200]),
    "in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + NEXT, [200, 200]),
    # 7.1.1: what an extension or a trailer says is not heard.
    "an extension": (chunked(SIZE + b';a="b"', BODY, b"0", b"") + NEXT, [200, 200]),
    "a trailer": (chunked(SIZE, BODY, b"0", b"Authorization: Bearer x", b"") + NEXT, [200, 200]),
    # 3.2.2: another host in the target is no other host.
    "a target with a host": (POST.replace(b"/v1/chat", b"http://other.example/v1/chat") + LENGTH + b"\r\n" + BODY + NEXT, [200, 200]),
    "a target for all": (b"OPTIONS * HTTP/1.1\r\nHost: sluice\r\n\r\n" + NEXT, [404, 200]),
    "a length in a GET": (b"GET /v1/models HTTP/1.1\r\nHost: sluice\r\nContent-Length: %d\r\n\r\n" % len(NEXT) + NEXT + NEXT, [200, 200]),
    # 9.3: who speaks 1.0, or says close, has one request.
    "HTTP/1.0": (POST.replace(b"1.1", b"1.0") + LENGTH + b"\r\n" + BODY + NEXT, [200]),
    "close": (POST + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY + NEXT, [200]),
    # 6.1: chunks of one who speaks 1.0 end the connection at the latest behind them.
    "chunks in HTTP/1.0": (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + NEXT, [200]),
    "100-continue": (POST + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY + NEXT, [200, 200]),
}  # fmt: skip


def said_to(model: Model) -> list[str]:
    return [body["messages"][-1]["content"] for body in model.script.asked]


def test_i12_a_request_that_is_badly_framed_is_refused_and_nothing_behind_it_is_read(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for name, raw in BAD_FRAMES.items():
        with subtests.test(name):
            model.script.asked.clear()
            statuses = sent(gateway, raw + NEXT)
            assert said_to(model) == [] and len(statuses) == 1, statuses
            assert statuses[0] in ((501, 400) if "coding" in name else (505, 400) if "HTTP" in name else (400,))


def test_i12_a_request_that_is_well_framed_is_answered_and_the_one_behind_it_in_its_turn(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for name, (raw, statuses) in WELL_FRAMED.items():
        with subtests.test(name):
            model.script.asked.clear()
            assert sent(gateway, raw) == statuses
            first = ["你好"] if raw.startswith(b"POST") else []
            assert said_to(model) == first + ["第二个请求"] * (len(statuses) - 1)


UPGRADES = ("h2c", "websocket", "TLS/1.0", "foo")


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_i12_a_body_behind_an_offer_of_another_protocol_is_never_read_as_a_request(
    gateway: Running, model: Model, upgrade: str
) -> None:
    # A proxy that passes the offer on counts one request here: two answers would give somebody another's.
    head = (
        POST
        + f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".encode()
    )
    whole = head + b"Content-Length: %d\r\n\r\n" % len(NEXT)
    for pieces in ((whole + NEXT,), (whole, NEXT), (whole, NEXT[:9], NEXT[9:])):
        model.script.asked.clear()
        try:
            statuses = sent(gateway, *pieces, patience=2)
        except AssertionError:
            statuses = []
        assert said_to(model) == [] and len(statuses) <= 1, (statuses, len(pieces))


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_i12_an_offer_of_another_protocol_is_passed_over_and_the_request_answered(
    gateway: Running, model: Model, upgrade: str
) -> None:
    # RFC 9110, 7.8: a server may ignore it. Java's own client offers h2c with every request over plain HTTP.
    head = (
        POST
        + f"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".encode()
    )
    for pieces in ((head + LENGTH + b"\r\n" + BODY,), (head + LENGTH + b"\r\n", BODY)):
        model.script.asked.clear()
        assert sent(gateway, *pieces, patience=2) == [200] and said_to(model) == ["你好"], len(pieces)
