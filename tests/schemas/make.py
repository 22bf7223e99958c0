"""Make the dump of the schema that this Sluice writes: `python -m tests.schemas.make`, once, when a schema is released. It stands here from
then on as it is, and tests/integration/test_upgrade.py has every later Sluice read it.

A backup of a gateway with everything open (tests/backing.py), unpacked: `<schema>/manifest.json` and `<schema>/store.jsonl`, a JSON line
each. The key was made for this, and opens nothing else. The name of the machine is taken out, and the chain is made anew over that.
"""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

from app.backup import sealed
from app.keys import Keys
from app.store.client import SCHEMA
from tests.backing import desk_at, done, fill, members, seen
from tests.conftest import RedisServer, _model, redis_binaries

HERE = Path(__file__).parent
KEY = "dump:a-key-made-for-the-dumps-of-the-tests-0123456789"


def main() -> None:
    with tempfile.TemporaryDirectory() as name, _model() as model:
        folder = Path(name)
        (folder / "redis").mkdir()
        server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
        with desk_at(server.url, folder / "gateway", model, SECRET_KEY=KEY) as desk:
            tickets = fill(desk, model)
            done("backup", folder / "b.tar.gz", REDIS_URL=server.url, SECRET_KEY=KEY, DATA_DIR=str(folder / "data"))
            facts = {"tickets": tickets, "seen": seen(desk, tickets)}
        server.kill()
        body = members(folder / "b.tar.gz")
    lines = [
        json.loads(line) for line in body["store.jsonl"].decode().replace(socket.gethostname(), "replica").splitlines()
    ]
    manifest = json.loads(body["manifest.json"])
    manifest["audit_head"] = _chained(lines)
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()
    manifest["members"] = {"store.jsonl": {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}}
    manifest["seal"] = sealed(Keys(KEY), manifest, "dump")
    out = HERE / SCHEMA
    out.mkdir(exist_ok=True)
    (out / "store.jsonl").write_bytes(text)
    (out / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), "utf-8")
    (out / "facts.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _chained(lines: list[dict[str, Any]]) -> str:
    """Chain the rows of the audit chain anew; the head."""
    prev, seq = "", 0
    for line in lines:
        if line["name"] == "audit":
            for at, raw in enumerate(line["value"]):
                seq += 1
                row = json.loads(raw) | {"prev": prev}
                line["value"][at] = json.dumps(row, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
                prev = hashlib.sha256(line["value"][at].encode()).hexdigest()
        if line["name"] == "audit:head":
            line["value"] = f"{seq} {prev}"
    return f"{seq} {prev}"


if __name__ == "__main__":
    main()
