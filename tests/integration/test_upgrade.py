"""A store that an older Sluice wrote is read by this one, and one that a newer Sluice wrote is left alone. The dumps of every schema that
was ever released lie in tests/schemas, made by tests/schemas/make.py when it was released."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.store.client import SCHEMA
from tests.backing import desk_at, done, keyed, packed, seen
from tests.conftest import Model, RedisServer, redis_binaries, wait_for
from tests.schemas.make import HERE, KEY

DUMPS = sorted(folder.name for folder in HERE.iterdir() if (folder / "manifest.json").exists())


@pytest.fixture(params=sorted(redis_binaries()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(redis_binaries()[request.param], tmp_path / "redis")
    yield server
    server.kill()


def test_the_schema_of_today_has_its_dump() -> None:
    assert SCHEMA in DUMPS, "python -m tests.schemas.make"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("schema", DUMPS)
def test_a_store_of_every_released_schema_is_read_as_it_was(
    schema: str, server: RedisServer, tmp_path: Path, model: Model
) -> None:
    body = {name: (HERE / schema / name).read_bytes() for name in ("manifest.json", "store.jsonl")}
    facts = json.loads((HERE / schema / "facts.json").read_text("utf-8"))
    file = packed(tmp_path / "dump.tar.gz", body)
    done("restore", file, REDIS_URL=server.url, SECRET_KEY=KEY, DATA_DIR=str(tmp_path / "data"))
    with desk_at(server.url, tmp_path / "gateway", model, SECRET_KEY=KEY) as desk:
        found, was = seen(desk, facts["tickets"]), facts["seen"]
        # What time brings about since is no fault of the reading: cases fall due, what was for a while is over.
        for part in ("agreements", "statements", "asked", "page", "open"):
            assert found[part] == was[part], part
        lasting = ("id", "app", "category", "due", "received", "reports", "rule")
        assert [[c[k] for k in lasting] for c in found["cases"]] == [[c[k] for k in lasting] for c in was["cases"]]
        states = {c["id"]: c["state"] for c in found["cases"]}
        for case in was["cases"]:
            now = states[case["id"]]
            assert now == case["state"] or (case["state"], now) in {
                ("confirmed", "overdue"),
                ("provisional", "verified"),
            }
        kept = [e for e in was["entries"] if not e.get("expires_at") or e["expires_at"] > "2089"]
        assert [e for e in found["entries"] if not e.get("expires_at") or e["expires_at"] > "2089"] == kept and kept
        assert found["evidence"] == was["evidence"] and found["evidence"]["prompt"], "sealed then, opened now"
        wait_for(lambda: desk.whole.chat("示例违禁短语").headers["x-sluice-action"] == "block", 5)
        model.script.chat("好的。")
        assert [row["what"] for row in desk.chain()].count("restore") == 1, "and the chain is whole"


NEWER = str(int(SCHEMA) + 1)
PASSING = ("restored", "done", "limit", "held", "strikes", "struck", "refusals", "deliveries", "meter")
"""What may expire while a test looks."""


@pytest.fixture
def newer(server: RedisServer, tmp_path: Path) -> Any:
    """A store that a Sluice of the next schema has written."""
    body = {name: (HERE / SCHEMA / name).read_bytes() for name in ("manifest.json", "store.jsonl")}
    file = packed(tmp_path / "dump.tar.gz", body)
    done("restore", file, REDIS_URL=server.url, SECRET_KEY=KEY, DATA_DIR=str(tmp_path / "data"))
    store = redis.Redis(port=server.port, decode_responses=True)
    store.set("{sluice:default}:schema", NEWER)
    return server


@pytest.mark.timeout(240)
def test_a_store_of_a_newer_schema_is_not_used_and_readyz_says_why(
    newer: RedisServer, tmp_path: Path, model: Model
) -> None:
    with desk_at(newer.url, tmp_path / "gateway", model, SECRET_KEY=KEY) as desk:
        entry = {"term": "x短语", "category": "violence", "action": "block", "reason": "r"}
        assert desk.admin("POST", "/entries", json=entry).status_code == 503
        assert desk.report(text="这是一段随便写的话，只为了看看会不会被记下来。").status_code == 503
        told: dict[str, Any] = desk.whole.ready()["store"]
        assert told["foreign"] is True
        assert f"schema {NEWER}" in str(told["problem"]), f"/readyz does not say why: {told}"


@pytest.mark.timeout(240)
def test_a_store_of_a_newer_schema_is_left_as_it_is(newer: RedisServer, tmp_path: Path, model: Model) -> None:
    before = keyed(newer, *PASSING)
    with desk_at(newer.url, tmp_path / "gateway", model, SECRET_KEY=KEY) as desk:
        desk.ask("reader-1")
        time.sleep(8)
    after = keyed(newer, *PASSING)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert not changed, "what a Sluice of this schema wrote there"
