"""The guard that the settings name: at a server, from a path, or one that cannot be read and is missed where it is asked until it can."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from app.demo.story import free_port
from app.errors import GuardError, ModelError
from app.guards.named import NamedGuard
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import Rules
from app.settings import read
from app.taxonomy import taxonomy
from app.types import Action, Candidate, Scan, Scope, Slot
from tests.conftest import WORD

SCOPE = Scope("default", "answer")
TOML = 'kind = "guard"\nformat = "sequence"\nlabels = {toxic = ["violence"]}\n'


class Suspecting:
    """A detector to which WORD is suspect."""

    name, version = "suspecting", "1"

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        at = text.find(WORD, since)
        found = [Candidate(at, at + len(WORD), "violence", self.name, "r", "suspect")] if at >= 0 else []
        return Scan(found if final else [], len(text) if final else since)


def made(tmp_path: Path, toml: str | None = TOML, **settings: Any) -> NamedGuard:
    """The guard `mine` of a folder of models."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    if toml is not None:
        (folder / "model.toml").write_text(toml)
    given = {"guard": "mine", "guard_path": tmp_path / "weights", "models": tmp_path / "models"} | settings
    return NamedGuard(read({}, **given), b"k" * 32)


def test_a_guard_from_a_path_is_there_though_its_model_is_not(tmp_path: Path) -> None:
    guard = made(tmp_path)
    assert guard.name == "mine" and guard.covers == {"violence"}

    async def ask() -> None:
        await guard.start()
        with pytest.raises(GuardError, match="missing"):
            await guard.judge("好", 0, SCOPE)
        await guard.close()

    asyncio.run(ask())


def test_a_guard_at_a_server_is_asked_there(tmp_path: Path) -> None:
    toml = 'kind = "guard"\nformat = "llama_guard"\nlabels = {S1 = ["violence"]}\n'
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    guard = made(tmp_path, toml, guard_path=None, guard_url=nobody, guard_key="k")

    async def ask() -> None:
        await guard.start()
        with pytest.raises(GuardError, match="unreachable"):
            await guard.judge("好", 0, SCOPE)
        await guard.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        (None, "cannot be read"), ("kind = ", "not valid TOML"), (TOML + "more = 1", "more"),
        (TOML.replace("violence", "nothing"), "no category"), (TOML.replace("sequence", "unheard of"), "is none of"),
        ('kind = "grams"\nversion = "1"\nfiles = {}\ncategories = {}', "kind must be 'guard'"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_read_stops_nothing_and_is_missed_where_it_is_asked(
    tmp_path: Path, toml: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = made(tmp_path, toml)
    assert guard.version == "none" and guard.covers == set(taxonomy())
    (told,) = [r.__dict__["reason"] for r in caplog.records if r.levelno == logging.ERROR]
    assert reason in told and "mine" in told
    rules = Policy(Rules(), "draft_2023_04", "test")
    moderator = Moderator([Suspecting()], Policies(rules, {}), guards=[guard])

    async def ask() -> None:
        await guard.start()
        with pytest.raises(GuardError, match="missing"):
            await guard.judge("好", 0, SCOPE)
        suspect = await moderator.judge([Slot(("content",), f"这里有{WORD}。", "assistant")], SCOPE, rules)
        assert suspect.verdict.action is Action.FLAG and suspect.verdict.degraded == ["mine"]
        harmless = await moderator.judge([Slot(("content",), "这里有河。", "assistant")], SCOPE, rules)
        assert harmless.verdict.action is Action.PASS and harmless.verdict.degraded == []
        await guard.close()

    asyncio.run(ask())


def test_a_guard_follows_its_file_and_keeps_what_it_was_where_that_cannot_be_read(tmp_path: Path) -> None:
    guard = made(tmp_path, None)

    async def change() -> None:
        await guard.start()
        with pytest.raises(ModelError, match="cannot be read"):
            await guard.reload()
        guard.source.write_text(TOML)
        await guard.reload()
        first = guard.version
        assert first != "none" and guard.covers == {"violence"}
        guard.source.write_text(TOML.replace("violence", "abuse_spam"))
        await guard.reload()
        assert guard.version != first and guard.covers == {"abuse_spam"}
        guard.source.write_text("kind = ")
        with pytest.raises(ModelError, match="TOML"):
            await guard.reload()
        assert guard.covers == {"abuse_spam"}
        await guard.close()

    asyncio.run(change())
