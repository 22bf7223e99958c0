"""Detectors that raise, hang or lie, lexicons that are corrupt, rules that backtrack (F15 to F19 of the fault matrix): each does what the
policy says, is counted, and never passes for a clean verdict."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.types import Scope
from tests.conftest import WORD, Model, Running, Whole, served, wait_for, whole_gateway
from tests.faults.matrix import told, within
from tests.faults.test_client_faults import log
from tests.faults.test_process_faults import refused
from tests.faults.test_store_faults import metric
from tests.integration.test_guards import Place
from tests.integration.test_privacy import CANARY

Make = Callable[..., Running]
HARMLESS = {"flagged": False}


class Broken:
    """A detector, or a scorer, that raises, with the text in the exception's words."""

    name, version = "broken", "1"
    covers = frozenset({"violence"})

    def scan(self, folded: Any, scope: Scope) -> Any:
        raise RuntimeError(folded)

    score = scan


@pytest.mark.parametrize("kind", ["detectors", "scorers"])
def test_f15_a_detector_raises(make_gateway: Make, model: Model, kind: str) -> None:
    """Terms, patterns, entries: an answer is blocked, a prompt flagged; a scorer: flagged. The others still act."""
    gateway = make_gateway()
    gateway.block(WORD)
    getattr(gateway.gateway.moderator, kind).append(Broken())
    model.script.chat("今天天气很好，适合出去走走，也适合读书写字。")
    actions = []
    for _ in range(20):
        answer = gateway.chat(f"今天怎么样，{CANARY}").json()
        actions.append(answer["sluice"]["action"])
    record = gateway.journal()[-1]
    assert set(actions) == {"block" if kind == "detectors" else "flag"}
    assert record["answer"]["degraded"] == record["prompt"]["degraded"] == ["broken"]
    assert gateway.chat(WORD).json()["sluice"]["action"] == "block", "the list still acts"
    assert CANARY not in gateway.http.get("/sluice/v1/disclosure").text
    done = "blocked" if kind == "detectors" else "flagged"
    told(
        "F15", f"one of the {kind} raises on every text: 20 of 20 answers {done}, named in the journal; lists still act"
    )


@contextmanager
def guarded(model: Model, folder: Path, policy: str) -> Iterator[tuple[Whole, Place]]:
    """A gateway that asks a guard about every text, and the guard."""
    place: Place

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await place(scope, receive, send)

    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(f"guard: {{when: always, {policy}}}\n")
    with served(app) as port:
        place = Place(f"http://127.0.0.1:{port}/")
        place.says(HARMLESS)
        guard = {"GUARD": "hook", "GUARD_URL": place.url, "POLICY": str(folder / "policy.yaml")}
        with whole_gateway(folder, model.url, **guard) as whole:
            yield whole, place
            place.gate.set()


def test_f16_a_guard_hangs_or_is_slow(model: Model, tmp_path: Path) -> None:
    model.script.chat("今天天气很好，适合出去走走，也适合读书写字。")
    with guarded(model, tmp_path / "gateway", "ms: 300") as (whole, place):
        assert whole.chat("好的吗").json()["sluice"]["action"] == "pass"
        place.gate.clear()

        def ask(n: int) -> float:
            started = time.perf_counter()
            answer = httpx.post(
                whole.url + "/v1/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": f"第{n}个，{CANARY}"}]},
                timeout=30,
            )
            assert answer.status_code == 200 and answer.json()["sluice"]["action"] == "flag", answer.text
            return time.perf_counter() - started

        with ThreadPoolExecutor(40) as pool:
            took = sorted(pool.map(ask, range(120)))
        named = {
            reason: metric(whole, f'sluice_guard_answers_total{{guard="hook",outcome="{reason}"}}')
            for reason in ("late", "busy", "open")
        }
        assert sum(named.values()) >= 120 and metric(whole, "sluice_degraded_total") >= 120
        assert took[-1] < within(3)
        place.gate.set()
        wait_for(lambda: whole.chat(f"又好了{time.time()}").json()["sluice"]["action"] == "pass", 30)
        told(
            "F16", f"a guard that hangs (limit 300 ms), 120 chats: all answered and flagged, median {statistics.median(took):.2f} s, "
            f"at most {took[-1]:.2f} s; {', '.join(f'{n:.0f} {r}' for r, n in named.items())}; asked again by itself when it is back",
        )  # fmt: skip


LIES: dict[str, Any] = {
    "NaN": b'{"labels": {"violence": NaN}}',
    "infinity": b'{"labels": {"violence": 1e999}}',
    "a score beyond 1": {"labels": {"violence": 7}},
    "a label nobody knows": {"flagged": True, "labels": ["nothing of ours"]},
    "an error within a 200": {"error": {"message": "out of memory"}},
    "another shape": {"result": "ok"},
    "a string": b'"ok"',
    "nothing": b"",
    "HTML": b"<html>busy</html>",
    "a 500": 500,
}


def test_f17_a_guard_lies(model: Model, tmp_path: Path, subtests: pytest.Subtests) -> None:
    model.script.chat("今天天气很好，适合出去走走，也适合读书写字。")
    with guarded(model, tmp_path / "gateway", "ms: 2000") as (whole, place):
        flagged = 0
        for n, (name, says) in enumerate(LIES.items()):
            with subtests.test(name):
                place.says(says)
                assert whole.chat(f"第{n}个问题，{CANARY}").json()["sluice"]["action"] == "flag"
                flagged += 1
                place.says(HARMLESS)
                # After failures in a row it is not asked for a while: let it recover.
                wait_for(lambda n=n: whole.chat(f"第{n}次好了{time.time()}").json()["sluice"]["action"] == "pass", 30)  # type: ignore[misc]
        assert CANARY not in log(whole)
    told("F17", f"{flagged} of {len(LIES)} kinds of wrong answers taken for a failure and flagged, none for a pass")


# ---- F18 and F19


def damage(file: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    whole = file.read_bytes()

    def write(raw: bytes) -> Callable[[], None]:
        def done() -> None:
            file.unlink(missing_ok=True)
            file.write_bytes(raw)

        return done

    def folder() -> None:
        file.unlink()
        file.mkdir()

    yield "cut in a character", write(whole[: len(whole) - 2])
    yield "not UTF-8", write(whole + b"\xff\xfe\n")
    yield "UTF-16", write(whole.decode().encode("utf-16"))
    yield "no bytes", write(b"")
    yield "no header", write("第一个蓝色词条\n".encode())
    yield "a column too many", write(whole + "又一个词条\tx\ty\tz\n".encode())
    yield "a NUL", write(whole + b"a\x00b\n")
    yield "a folder in its place", folder


def test_f18_the_lexicon_is_corrupt_at_reload(model: Model, tmp_path: Path, subtests: pytest.Subtests) -> None:
    folder = tmp_path / "lexicons"
    (folder / "violence").mkdir(parents=True)
    file = folder / "violence" / "terms.tsv"
    good = "term\n第一个蓝色词条\n".encode()
    file.write_bytes(good)
    policy = tmp_path / "policy.yaml"
    policy.write_text("categories: {violence: {prompt: block}}\n")
    settings = {"LEXICONS": str(folder), "POLICY": str(policy)}
    with whole_gateway(tmp_path / "gateway", model.url, **settings) as whole:
        version = whole.ready()["workers"][0]["lexicon"]
        kinds = 0
        for name, harm in damage(file):
            with subtests.test(name):
                failed = metric(whole, 'sluice_reloads_total{file="lexicon",outcome="failed"}')
                harm()
                wait_for(
                    lambda f=failed: metric(whole, 'sluice_reloads_total{file="lexicon",outcome="failed"}') > f, 10
                )  # type: ignore[misc]
                assert whole.ready()["workers"][0]["lexicon"] == version
                assert whole.chat("第一个蓝色词条").json()["sluice"]["action"] == "block"
                kinds += 1
            if file.is_dir():
                file.rmdir()
            file.write_bytes(good)
        # Written again and again while it is read, it is one or the other.
        over = threading.Event()

        def rewrite() -> None:
            while not over.is_set():
                for raw in (good, good + "第二个红色词条\n".encode()):
                    fresh = file.with_suffix(".new")
                    fresh.write_bytes(raw)
                    os.replace(fresh, file)

        writer = threading.Thread(target=rewrite)
        writer.start()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert whole.chat("第一个蓝色词条").json()["sluice"]["action"] == "block"
        over.set()
        writer.join()
        (folder / "violence" / "terms.tsv.link").symlink_to("/dev/zero")
        assert whole.chat("第一个蓝色词条").json()["sluice"]["action"] == "block"
        (folder / "violence" / "terms.tsv.link").unlink()
    file.write_bytes(good + b"\xff\n")
    complaint = refused(SLUICE_LEXICONS=str(folder), SLUICE_DATA_DIR=str(tmp_path / "other"))
    assert "terms.tsv" in complaint and "Traceback" not in complaint
    told(
        "F18",
        f"{kinds} kinds of damage: the version in force stays, counted each time; at a start it refuses and names file and line",
    )


def test_f19_a_rule_that_backtracks_or_hits_everything(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "lexicons"
    (folder / "violence").mkdir(parents=True)
    (folder / "violence" / "terms.tsv").write_text("term\n第一个蓝色词条\n", "utf-8")
    (folder / "violence" / "rules.tsv").write_text("name\tanchor\trest\nslow\t敏感\t.*感.*感.*词.*表\n", "utf-8")
    model.script.chat("好的。")
    with whole_gateway(tmp_path / "gateway", model.url, LEXICONS=str(folder)) as whole:
        assert whole.chat("好").status_code == 200
        started = time.perf_counter()
        assert whole.chat("敏感" * 10_000).status_code == 200
        took = time.perf_counter() - started
        assert took < within(5)
        refusals = 0
        for term in ("的", "", "\u200b", " ", "。", "a", "。。。。"):
            answer = whole.add({"term": term})
            assert answer.status_code == 422 and answer.json()["error"]["param"] == "term", (term, answer.text)
            refusals += 1
        assert whole.chat("今天的天气").json()["sluice"]["action"] == "pass"
        told(
            "F19", f"敏感.*感.*感.*词.*表 over 20,000 characters that almost match: {took:.2f} s for the whole request; {refusals} entries "
            "that would hit everything refused by name",
        )  # fmt: skip
