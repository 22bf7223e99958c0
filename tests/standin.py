"""What can stand at the other end of a guard's pipe: the real worker (app.guards.worker) around a model that does what a question says,
or (given a word) something that does not keep to the form. Run with -m; app.guards.local is what it is there to try."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.guards import frames, worker


class StandIn:
    """Answers with the text of the question, unless that is a thing to do."""

    kind = "scores"

    def answer(self, question: Mapping[str, Any], given_up: Callable[[], bool]) -> str:
        text: str = question["text"]
        match text.partition(":")[0]:
            case "die":
                os._exit(9)
            case "hang":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "slow":
                end = time.monotonic() + 20
                while time.monotonic() < end and not given_up():
                    time.sleep(0.01)
            case "wait":
                time.sleep(0.01)
            case "raise":
                raise ValueError(text)
            case "garbage":
                raise worker.Failed("garbage")
            case "print":
                print(text, flush=True)
                os.write(1, text.encode())
                os.write(2, text.encode())
            case "secrets":
                return ",".join(k for k in os.environ if k.startswith("SLUICE_"))
            case "pid":
                return str(os.getpid())
        return text


def load(path: Path, threads: int) -> StandIn:
    """As the folder's file `config.json` says: loads, fails, dies or hangs. Every start is a line in a file beside the folder."""
    with open(path.parent / "starts", "a") as f:
        f.write(f"{time.monotonic()}\n")
    match (path / "config.json").read_text().strip():
        case "fails":
            raise worker.Unfit("no such\nmodel")
        case "dies":
            os._exit(11)
        case "hangs":
            time.sleep(60)
    return StandIn()


def misbehave(how: str) -> None:
    """Load, then answer each question in a way that is none."""
    out = os.fdopen(os.dup(1), "wb", 0)
    asked = os.fdopen(0, "rb")
    frames.take(asked)
    out.write(frames.frame({"loaded": "scores"}))
    while True:
        question = frames.take(asked)
        good = frames.frame({"id": question["id"], "said": question["text"]})
        match how if question["text"].startswith("bad") else "":
            case "noise":
                out.write(b"\xff" * 100_000)
            case "half":
                out.write(good[:-3])
                os._exit(0)
            case "no JSON":
                out.write(good[:4] + b"x" * (len(good) - 4))
            case "no object":
                out.write(b"\0\0\0\x02[]")
            case "another's":
                out.write(frames.frame({"id": question["id"] - 1, "said": question["text"]}))
            case "twice":
                out.write(good + good)
            case "neither":
                out.write(frames.frame({"id": question["id"]}))
            case "":
                out.write(good)
                continue
        time.sleep(0 if how in ("twice", "neither") else 60)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        misbehave(sys.argv[1])
    else:
        worker.main(load)
