"""The journal writes each record once, whoever asks it to write, and finds it at once."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson

from app.journal import Journal
from app.keys import decision_id


def test_flushes_that_overlap_write_every_record_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "run")
    ids = [decision_id() for _ in range(3000)]
    threads = [threading.Thread(target=lambda: [journal.flush() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for id in ids:
        journal.record({"decision": id, "prompt": {"action": "pass"}, "answer": {"action": "pass"}})
        if id == ids[1500]:
            assert journal.find(id) is not None
    for thread in threads:
        thread.join()
    journal.flush()
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_bytes().splitlines()]
    assert sorted(orjson.loads(line)["decision"] for line in lines) == sorted(ids)
