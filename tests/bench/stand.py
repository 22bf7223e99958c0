"""What the benches of a whole gateway stand on: texts, a lexicon, a store with live entries, and a Sluice that serves.

Law: what is measured is `sluice serve` as an operator runs it: embedded store, shipped policy and patterns, the shipped lexicon filled up
to a number of terms. No term and no entry stands in a text, so what is measured is what nearly every text costs.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.demo.story import free_port, running
from app.settings import packaged
from tests.bench import material

ROOT = Path(__file__).parents[2]
_TOKEN = "bench-bench-bench-bench-bench-00"
_WORKER = "sluice-worker"
_UNSCORED = str(Path(__file__).with_name("serve.py"))
_PHASES = {"plain": "ns16", "burst": "burst32"}
"""Of the benchmark's load generator; how many at once is said beside."""


@dataclass(frozen=True)
class Setup:
    """A Sluice: its settings, and whether it has its scorer. An empty SLUICE_MODELS would not do: it would be missed at every text."""

    env: dict[str, str]
    scored: bool = True

    @property
    def command(self) -> list[str]:
        # -P: what lies beside that file has names of the standard library.
        return [sys.executable, *(("-m", "app.cli", "serve") if self.scored else ("-P", _UNSCORED))]

    @property
    def folder(self) -> Path:
        return Path(self.env["SLUICE_DATA_DIR"])

    def base(self, listener: str) -> str:
        """Where it listens. `listener`: PORT, OPS_PORT, ADMIN_PORT."""
        return f"http://127.0.0.1:{self.env[f'SLUICE_{listener}']}"

    def but(self, **more: str) -> Setup:
        return replace(self, env=self.env | more)


def cores() -> tuple[list[int], list[int]]:
    """The core of the gateway, and that of the model's stand-in and the load."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[:1], ours[-1:]


def machine() -> str:
    """When and where: what every figure stands beside."""
    when = datetime.now().strftime("%Y-%m-%d %H:%M")
    load = os.getloadavg()[0]
    return f"{when}; {os.cpu_count()} cores, Python {platform.python_version()}, kernel {platform.release()}, load {load:.1f} at the start"


def lines(bench: Path, count: int) -> list[str]:
    """Texts like the benchmark's own, one a line, made of their clauses and of drawn words: no two alike. 0: its own few."""
    own = [line for line in (bench / "texts.txt").read_text("utf-8").splitlines() if line.strip()]
    if not count:
        return own
    rng = random.Random(material.SEED)
    drawn = material.slices(material.prose(200_000).replace("\n", ""), 40, count)
    made = []
    for at, words in enumerate(drawn):
        text = own[at % len(own)]
        cut = rng.randrange(len(text) // 3, 2 * len(text) // 3)
        made.append(f"{text[:cut]} {words} {text[cut:]}"[:160])
    return made


def lexicon(folder: Path, texts: Sequence[str], count: int) -> Path:
    """The shipped lexicon with synthetic terms that stand in none of the texts, `count` terms in all."""
    shutil.copytree(packaged("lexicons"), folder)
    shipped = sum(max(0, len(file.read_text("utf-8").splitlines()) - 1) for file in folder.glob("*/terms.tsv"))
    listed = material.terms("\n".join(texts), max(0, count - shipped))
    rows = ["term\ttier\towner\treason\tadded", *(f"{t}\tsuspect\tbench\tsynthetic\t2026-01-01" for t in listed)]
    (folder / material.CATEGORY / "synthetic.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def setup(folder: Path, scored: bool = True, **settings: str) -> Setup:
    """A Sluice with its store in `folder`, on ports of its own."""
    ports = {f"SLUICE_{name}": str(free_port()) for name in ("PORT", "OPS_PORT", "ADMIN_PORT")}
    return Setup(ports | {
        "SLUICE_DATA_DIR": str(folder), "SLUICE_WORKERS": "1", "SLUICE_ADMIN_TOKEN": _TOKEN, "SLUICE_UPSTREAM_URL": "http://127.0.0.1:1/v1",
    } | settings, scored)  # fmt: skip


@contextmanager
def serving(of: Setup) -> Iterator[int]:
    """It, told nothing else of Sluice than its settings; its log lies beside its folder. Gives the parent's process id."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
    kept["PYTHONPATH"] = str(ROOT)
    ready = f"{of.base('OPS_PORT')}/readyz"
    with running(of.command, ready, kept | of.env, of.folder.with_suffix(".log"), 300) as process:
        yield process.pid


def filled(folder: Path, texts: Sequence[str], count: int, **settings: str) -> None:
    """Leave `count` live entries in the store of `folder`, one in fifty of them a passage."""
    listed = material.terms("\n".join(texts), count)
    rows: list[dict[str, Any]] = [
        {"term": t, "category": material.CATEGORY, "tier": "suspect", "reason": "bench"} for t in listed
    ]
    # Behind what `lines` draws from.
    passages = material.slices(material.prose(400_000)[200_000:], 60, len(rows[::50]))
    for row, passage in zip(rows[::50], passages, strict=True):
        del row["term"]
        row |= {"passage": passage}
    of = setup(folder, True, **settings)
    with serving(of):
        base = f"{of.base('ADMIN_PORT')}/sluice/v1/admin/lists/bench/entries"
        for at in range(0, len(rows), 500):
            httpx.post(
                base, json={"entries": rows[at : at + 500]}, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=60
            ).raise_for_status()


def roles(pid: int) -> dict[int, str]:
    """The processes of a gateway by what they are called: its parent, the nursery, workers, the store."""
    found = {pid: "parent"}
    for process in psutil.Process(pid).children(recursive=True):
        found[process.pid] = process.name().removeprefix("sluice-")
    return found


def workers(pid: int) -> list[int]:
    return [p.pid for p in psutil.Process(pid).children(recursive=True) if p.name() == _WORKER]


def cpu(pids: Sequence[int]) -> float:
    """Seconds that these processes have used, user and system."""
    return float(sum(t.user + t.system for t in (psutil.Process(pid).cpu_times() for pid in pids)))


@dataclass
class Stand:
    """A Sluice before the benchmark's model. `pid`: its parent's; `backend_pid`: the model's."""

    bench: Path
    texts: Path
    of: Setup
    pid: int
    backend_port: int
    backend_pid: int

    def load(self, kind: str, conc: int, seconds: float) -> subprocess.Popen[str]:
        """The benchmark's load generator, begun: its figures come on stdout, as JSON. `kind`: plain or burst."""
        backend = f"http://127.0.0.1:{self.backend_port}"
        command = [
            sys.executable, str(self.bench / "load.py"), "--url", self.of.base("PORT"), "--phase", _PHASES[kind], "--conc", str(conc),
            "--seconds", str(seconds), "--pid", str(self.pid), "--backend-pid", str(self.backend_pid), "--backend", backend,
        ]  # fmt: skip
        return subprocess.Popen(
            command, env=os.environ | {"MOCK_TEXTS": str(self.texts)}, stdout=subprocess.PIPE, text=True
        )

    def loaded(self, kind: str, conc: int, seconds: float) -> dict[str, Any]:
        """What it saw, when it has ended. Raises RuntimeError where a reply was not what the model sent."""
        said, _ = self.load(kind, conc, seconds).communicate()
        seen: dict[str, Any] = json.loads(said)
        if seen["errors"]:
            raise RuntimeError(f"{kind}{conc}: {seen['errors']} {seen['error_samples']}")
        return seen

    def asked(self) -> int:
        """Requests that the model has had."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.backend_port}/_stats") as reply:
            return int(json.load(reply)["requests"])


@contextmanager
def stand(bench: Path, texts: Path, of: Setup, pinned: bool = False) -> Iterator[Stand]:
    """The benchmark's model, and a Sluice before it. `pinned`: to one core each."""
    with ExitStack() as stack:
        port = free_port()
        model = stack.enter_context(running(
            [sys.executable, str(bench / "backend.py"), "--port", str(port)], f"http://127.0.0.1:{port}/health",
            os.environ | {"MOCK_TEXTS": str(texts)},
        ))  # fmt: skip
        of = of.but(SLUICE_UPSTREAM_URL=f"http://127.0.0.1:{port}/v1")
        pid = stack.enter_context(serving(of))
        if pinned:
            for each, core in zip((pid, model.pid), cores(), strict=True):
                for process in (psutil.Process(each), *psutil.Process(each).children(recursive=True)):
                    process.cpu_affinity(core)
        yield Stand(bench, texts, of, pid, port, model.pid)
