"""`scripts/bench gateways BENCH`: Sluice beside bare proxies and LiteLLM, interleaved in one run.

`BENCH` is the folder of a gateway benchmark (backend.py, load.py, compare.py, targets). Each gateway has one core, the model's stand-in and
the load the other; every reply is compared with what the model sent. Sluice runs as `sluice serve` does: one worker, the embedded store,
shipped policy, patterns and lexicon, filled up to `--terms` terms, and `--entries` live entries; then with the shipped scorer, and with it
and a guard that always answers `harmless`, asked as the shipped policy says: about what is suspected. LiteLLM has its own content filter
of 20 and of 1,000 words, or none. Prompts and answers are different ones nearly every time (`--lines` of them), for a gateway that
remembers what it screened must not be measured by its memory; `--lines 0` takes the benchmark's own few.

CPU and memory are those of a gateway's whole process tree. In --out: gateways.json (every figure), summary.md (the tables that are printed
last), gateways.log, logs/ of every process, flame/ with --flame. `python -m tests.bench.summary OUT/gateways.json` prints the tables again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from app.demo.story import free_port, running
from tests.bench import flame, harmless, litellm, material, stand, summary

_UVICORN = "--loop uvloop --http httptools --no-access-log --log-level warning"
PHASES = {
    "plain1": {"kind": "plain", "conc": 1}, "plain16": {"kind": "plain", "conc": 16}, "plain64": {"kind": "plain", "conc": 64},
    "burst1": {"kind": "stream", "conc": 1}, "burst16": {"kind": "stream", "conc": 16}, "burst64": {"kind": "stream", "conc": 64},
    "paced1": {"kind": "stream", "conc": 1, "delay": 10}, "paced16": {"kind": "stream", "conc": 16, "delay": 10},
    "paced64": {"kind": "stream", "conc": 64, "delay": 10},
}  # fmt: skip
"""burst: the model sends a delta at every turn of its loop; paced: one every 10 ms."""
_TIMEOUT = 60.0
"""Seconds that a reply may take: with 64 streams at once a slow gateway needs a third of it on a quiet machine."""

Target = dict[str, Any]
"""As compare.py's TOML has it."""


def main() -> int:
    p = argparse.ArgumentParser(
        prog="scripts/bench gateways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("bench", type=Path, help="the benchmark's folder")
    p.add_argument("--terms", type=int, default=100_000)
    p.add_argument("--entries", type=int, default=1_000)
    p.add_argument("--lines", type=int, default=9_000)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2.0, help="that a target is measured in a phase and round")
    p.add_argument("--phases", default=",".join(PHASES), help=f"comma-separated, of {', '.join(PHASES)}")
    p.add_argument("--only", help="targets, comma-separated")
    p.add_argument(
        "--hasty", action="store_true", help="neither wait for a quiet machine nor measure a disturbed cell again"
    )
    p.add_argument(
        "--litellm",
        type=Path,
        metavar="VENV",
        help="an environment with litellm[proxy]; without it LiteLLM is left out",
    )
    p.add_argument(
        "--beside", action="append", default=[], metavar="NAME=CLONE", help="another clone of Sluice, under this name"
    )
    p.add_argument(
        "--flame", type=float, nargs="?", const=10.0, metavar="SECONDS", help="flame graphs as well, of so long (10)"
    )
    p.add_argument("--out", type=Path, default=Path("out/bench"))
    args = p.parse_args()
    if unknown := set(args.phases.split(",")) - PHASES.keys():
        p.error(f"--phases: {', '.join(sorted(unknown))}: no such phase; there are {', '.join(PHASES)}")
    if not (args.bench / "compare.py").exists():
        p.error(f"{args.bench}: not a benchmark's folder: it has no compare.py")
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Exit status 1 where a reply was not what the model sent, or a target could not be measured."""
    bench, out = args.bench.resolve(), args.out.resolve()
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary, ExitStack() as stack:
        place = Path(temporary)
        texts = stand.lines(bench, args.lines)
        (place / "texts.txt").write_text("\n".join(texts) + "\n", "utf-8")
        terms = str(stand.lexicon(place / "lexicon", texts, args.terms))
        if args.entries:
            stand.filled(place / "data", texts, args.entries, SLUICE_LEXICONS=terms)
        guard = _guard(stack)
        backend_port = free_port()
        setups = _setups(place, terms, guard)
        sluices = _sluices(setups, args.beside)
        targets = [*_bare(), *_litellm(args.litellm, place, backend_port, texts), *sluices]
        wanted = args.only.split(",") if args.only else [target["name"] for target in targets]
        if unknown := set(wanted) - {target["name"] for target in targets}:
            print(f"--only: no such target: {', '.join(sorted(unknown))}", file=sys.stderr)
            return 2
        config = place / "bench.toml"
        config.write_text(_toml(args, backend_port, [t for t in targets if t["name"] in wanted]), "utf-8")
        file = out / "gateways.json"
        command = [
            sys.executable,
            "-u",
            str(bench / "compare.py"),
            str(config),
            "--vs",
            summary.BARE,
            "--out",
            str(file),
        ]
        file.unlink(missing_ok=True)
        # compare.py makes a folder for logs there.
        env = os.environ | {"MOCK_TEXTS": str(place / "texts.txt"), "TMPDIR": str(logs)}
        status = _told(command, env, out / "gateways.log")
        if not file.exists():
            return status or 1
        figures = json.loads(file.read_text("utf-8"))
        figures["setting"] = {
            "terms": args.terms,
            "entries": args.entries,
            "lines": len(texts),
            "guard asked": _asked(guard),
        } | ({"LiteLLM": litellm.version(args.litellm)} if args.litellm else {})
        ours = [target["name"] for target in sluices if target["name"] in figures["targets"]]
        figures["complaints"] = {name: n for name in ours if (n := _complaints(logs, name))}
        file.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", "utf-8")
        tables = summary.tables(figures)
        (out / "summary.md").write_text(tables, "utf-8")
        print(f"\n{tables}")
        if args.flame:
            for name, of in setups.items():
                if name in wanted:
                    flame.graphs(name, bench, place / "texts.txt", of, args.flame, out / "flame")
        return status or bool(figures["failed"] or figures["complaints"])


def _told(command: Sequence[str], env: dict[str, str], log: Path) -> int:
    """Run it; what it prints is shown, and kept in `log`."""
    with log.open("w", encoding="utf-8") as kept:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            print(line, end="", flush=True)
        return process.wait()


def _complaints(logs: Path, name: str) -> int:
    """Errors that a Sluice logged in the last run before it was stopped: one that is not whole must not be measured for one that is."""
    folder = max(logs.iterdir(), key=lambda made: made.stat().st_mtime)
    served, _, _ = (
        (folder / f"{name.replace(' ', '_')}.log").read_text("utf-8", "replace").rpartition('"message": "stopping"')
    )
    return served.count('"level": "error"')


def _guard(stack: ExitStack) -> str:
    """The base URL of a guard's server, on the core of model and load."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "tests.bench.harmless:app",
        "--port",
        url.rpartition(":")[2],
        *_UVICORN.split(),
    ]
    process = stack.enter_context(running(command, f"{url}/health", dict(os.environ)))
    psutil.Process(process.pid).cpu_affinity(stand.cores()[1])
    return url


def _asked(guard: str) -> int:
    with urllib.request.urlopen(f"{guard}/asked") as reply:
        return int(json.load(reply)["asked"])


def _target(name: str, cmd: str, port: int, ready: str, env: dict[str, str], **more: Any) -> Target:
    # That of compare.py is a folder of logs.
    env = {"TMPDIR": tempfile.gettempdir(), **env}
    return {
        "name": name, "cmd": cmd, "port": port, "base_url": f"http://127.0.0.1:{port}", "ready_url": ready, "ready_timeout": 300,
        "env": env, **more,
    }  # fmt: skip


def _bare() -> list[Target]:
    """The benchmark's pass-throughs; nginx where it is installed."""

    def served(name: str, app: str, **env: str) -> Target:
        port = free_port()
        return _target(
            name, f"{sys.executable} -m uvicorn {app}:app --port {port} {_UVICORN}", port, f"http://127.0.0.1:{port}/health",
            {"BACKEND": "{backend}", **env}, cwd="{here}/targets",
        )  # fmt: skip

    found = [served("FastAPI + httpx", "pass_fastapi"), served(summary.BARE, "pass_asgi", PARSE="1")]
    if nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx"):
        port = free_port()
        found.insert(0, _target(
            "nginx", f"{{here}}/targets/nginx.sh {port} {{backend_port}}", port, f"http://127.0.0.1:{port}/health", {"NGINX": nginx}
        ))  # fmt: skip
    return found


def _litellm(environment: Path | None, place: Path, backend_port: int, texts: Sequence[str]) -> list[Target]:
    if environment is None:
        return []
    words = material.terms("\n".join(texts), max(litellm.WORDS.values()))
    made = []
    for name, count in litellm.WORDS.items():
        port, folder = free_port(), place / name.replace(" ", "")
        command, env = litellm.command(environment.absolute(), folder, port, backend_port, words[:count])
        some = {"phases": litellm.PHASES[name]} if name in litellm.PHASES else {}
        made.append(
            _target(name, command, port, f"http://127.0.0.1:{port}/health/liveliness", env, cwd=str(folder), **some)
        )
    return made


def _setups(place: Path, terms: str, guard: str) -> dict[str, stand.Setup]:
    asked = {"SLUICE_GUARD": harmless.NAME, "SLUICE_GUARD_URL": guard, "SLUICE_GUARD_KEY": "none"}
    return {
        "Sluice": _stored(place, "Sluice", False, SLUICE_LEXICONS=terms),
        "Sluice + scorer": _stored(place, "Sluice + scorer", True, SLUICE_LEXICONS=terms),
        "Sluice + scorer + guard": _stored(place, "Sluice + scorer + guard", True, SLUICE_LEXICONS=terms, **asked),
    }


def _stored(place: Path, name: str, scored: bool, **settings: str) -> stand.Setup:
    """A Sluice of these settings, with a copy of the filled store."""
    folder = place / name.replace(" ", "")
    if (place / "data").exists():
        shutil.copytree(place / "data", folder)
    return stand.setup(folder, scored, **settings)


def _sluices(setups: dict[str, stand.Setup], beside: Sequence[str]) -> list[Target]:
    clones = {name: Path(clone).absolute() for name, _, clone in (b.partition("=") for b in beside)}
    all_ = [(name, of, stand.ROOT) for name, of in setups.items()]
    for called, clone in clones.items():
        for setup, of in setups.items():
            name = setup.replace("Sluice", called, 1)
            settings = {k: v for k, v in of.env.items() if not k.endswith(("PORT", "DATA_DIR"))}
            all_.append((name, _stored(of.folder.parent, name, of.scored, **settings), clone))
    made = []
    for name, of, clone in all_:
        env = of.env | {"SLUICE_UPSTREAM_URL": "{backend}/v1", "PYTHONPATH": str(clone)}
        port = int(of.env["SLUICE_PORT"])
        made.append(_target(name, shlex.join(of.command), port, f"{of.base('OPS_PORT')}/readyz", env, cwd=str(clone)))
    return made


def _toml(args: argparse.Namespace, backend_port: int, targets: list[Target]) -> str:
    """JSON strings, numbers and lists are TOML as well."""
    gateway, tools = stand.cores()
    rows = [
        "[bench]", f"backend_port = {backend_port}", f"rounds = {args.rounds}", f"phases = {json.dumps(args.phases.split(','))}",
        f"gateway_cpus = {gateway}", f"tool_cpus = {tools}", "foreign_limit = 0.25", "round_limit = 1000",
        *(["quiet_wait = 0", "retries = 0"] if args.hasty else []),
    ]  # fmt: skip
    for name, phase in PHASES.items():
        rows += [
            f"[phase.{name}]",
            *(f"{k} = {json.dumps(v)}" for k, v in {**phase, "seconds": args.seconds, "timeout": _TIMEOUT}.items()),
        ]
    for target in targets:
        rows.append("[[target]]")
        rows += [f"{k} = {json.dumps(v)}" for k, v in target.items() if k != "env"]
        rows.append("env = { " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in target["env"].items()) + " }")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
