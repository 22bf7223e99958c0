"""`python -m tests.bench.gateways BENCH`: Sluice beside bare proxies and LiteLLM, interleaved in one run.

`BENCH` is the folder of a gateway benchmark (backend.py, load.py, compare.py, targets). Each gateway has one core, the model's stand-in and
the load the other; every reply is compared with what the model sent. Sluice runs as `sluice serve` does: one worker, the embedded store,
shipped policy, patterns and lexicon, filled up to `--terms` terms, and `--entries` live entries; then with the shipped scorer, and
with a guard that always answers `harmless`. Prompts and answers are different ones nearly every time (`--lines` of them), for a
gateway that remembers what it screened must not be measured by its memory; `--lines 0` takes the benchmark's own few.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from app.demo.story import free_port, running
from app.settings import packaged
from tests.bench import material

_TOKEN = "bench-bench-bench-bench-bench-00"
_UVICORN = "--loop uvloop --http httptools --no-access-log --log-level warning"
_PHASES = {
    "plain1": {"kind": "plain", "conc": 1}, "plain16": {"kind": "plain", "conc": 16}, "plain64": {"kind": "plain", "conc": 64},
    "burst1": {"kind": "stream", "conc": 1}, "burst16": {"kind": "stream", "conc": 16}, "burst64": {"kind": "stream", "conc": 64},
    "paced1": {"kind": "stream", "conc": 1, "delay": 10}, "paced16": {"kind": "stream", "conc": 16, "delay": 10},
    "paced64": {"kind": "stream", "conc": 64, "delay": 10},
}  # fmt: skip
"""burst: the model sends a delta at every turn of its loop; paced: one every 10 ms."""
_BARE = "bare ASGI + aiohttp"


def lines(bench: Path, count: int) -> list[str]:
    """Texts like the benchmark's own, one a line, made of their clauses and of drawn words: no two alike."""
    rng = random.Random(material.SEED)
    own = [line for line in (bench / "texts.txt").read_text("utf-8").splitlines() if line.strip()]
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
    own = folder / material.CATEGORY / "terms.tsv"
    columns = own.read_text("utf-8").split("\n", 1)[0].split("\t")
    cells = {"tier": "suspect", "owner": "bench", "reason": "synthetic", "added": "2026-01-01"}
    with own.open("a", encoding="utf-8") as file:
        file.writelines("\t".join(({"term": t} | cells).get(c, "") for c in columns) + "\n" for t in listed)
    return folder


def _environment(folder: Path, **more: str) -> dict[str, str]:
    ports = {f"SLUICE_{name}": str(free_port()) for name in ("PORT", "OPS_PORT", "ADMIN_PORT")}
    return ports | {
        "SLUICE_DATA_DIR": str(folder), "SLUICE_WORKERS": "1", "SLUICE_ADMIN_TOKEN": _TOKEN, "SLUICE_UPSTREAM_URL": "http://127.0.0.1:1/v1",
    } | more  # fmt: skip


def filled(folder: Path, texts: Sequence[str], count: int, **more: str) -> None:
    """Leave `count` live entries in the store of `folder`, one in fifty of them a passage."""
    env = _environment(folder, **more)
    # None of them is a term of the lexicon: they are drawn behind it.
    listed = material.terms("\n".join(texts), 2 * count + 1000)[-count:]
    rows: list[dict[str, Any]] = [
        {"term": t, "category": material.CATEGORY, "tier": "suspect", "reason": "bench"} for t in listed
    ]
    for at in range(0, len(rows), 50):
        del rows[at]["term"]
        rows[at] |= {"passage": material.prose(3_000 + at)[-60:] + str(at)}
    with running(
        [sys.executable, "-m", "app.cli", "serve"], f"http://127.0.0.1:{env['SLUICE_OPS_PORT']}/readyz", os.environ | env,
        folder.with_suffix(".log"), 300,
    ):  # fmt: skip
        base = f"http://127.0.0.1:{env['SLUICE_ADMIN_PORT']}/sluice/v1/admin/lists/bench/entries"
        for at in range(0, len(rows), 500):
            httpx.post(
                base, json={"entries": rows[at : at + 500]}, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=60
            ).raise_for_status()


async def harmless(scope: Any, receive: Any, send: Any) -> None:
    """A guard's server that finds nothing: OpenAI's moderations API."""
    from app.modelfile import guard_file  # noqa: F401


def main() -> int:
    p = argparse.ArgumentParser(
        prog="scripts/bench gateways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("bench", type=Path, help="the benchmark's folder")
    p.add_argument("--terms", type=int, default=100_000)
    p.add_argument("--entries", type=int, default=1_000)
    p.add_argument("--lines", type=int, default=9_000)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument("--phases", default=",".join(_PHASES))
    p.add_argument("--only", help="targets, comma-separated")
    p.add_argument(
        "--litellm", type=Path, help="a virtual environment with litellm[proxy]; without it LiteLLM is left out"
    )
    p.add_argument(
        "--beside", action="append", default=[], metavar="NAME=CLONE", help="another clone of Sluice, under this name"
    )
    p.add_argument("--out", type=Path, default=Path("out/bench"))
    args = p.parse_args()
    return run(args)


def run(args: argparse.Namespace) -> int:
    bench = args.bench.resolve()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary:
        place = Path(temporary)
        texts = lines(bench, args.lines) if args.lines else (bench / "texts.txt").read_text("utf-8").splitlines()
        (place / "texts.txt").write_text("\n".join(texts) + "\n", "utf-8")
        terms = lexicon(place / "lexicon", texts, args.terms)
        listed = {"SLUICE_LEXICONS": str(terms)}
        if args.entries:
            filled(place / "data", texts, args.entries, **listed)
        targets = [*_rivals(bench, args.litellm, place), *_sluices(place, listed, args.beside)]
        config = place / "bench.toml"
        config.write_text(_toml(args, targets), "utf-8")
        env = os.environ | {
            "MOCK_TEXTS": str(place / "texts.txt"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        command = [
            sys.executable,
            str(bench / "compare.py"),
            str(config),
            "--vs",
            _BARE,
            "--out",
            str(out / "gateways.json"),
            "--markdown",
        ]
        return subprocess.run(command + (["--only", args.only] if args.only else []), env=env, check=False).returncode


def _target(name: str, cmd: str, port: int, ready: str, env: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "cmd": cmd, "port": port, "base_url": f"http://127.0.0.1:{port}", "ready_url": ready, "ready_timeout": 300,
        "env": env, **more,
    }  # fmt: skip


def _rivals(bench: Path, litellm: Path | None, place: Path) -> list[dict[str, Any]]:
    def served(name: str, app: str, **env: str) -> dict[str, Any]:
        port = free_port()
        return _target(
            name, f"{sys.executable} -m uvicorn {app}:app --port {port} {_UVICORN}", port, f"http://127.0.0.1:{port}/health",
            {"BACKEND": "{backend}", **env}, cwd="{here}/targets",
        )  # fmt: skip

    found = [served("FastAPI + httpx", "pass_fastapi"), served(_BARE, "pass_asgi", PARSE="1")]
    if nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx"):
        port = free_port()
        found.insert(0, _target(
            "nginx", f"{{here}}/targets/nginx.sh {port} {{backend_port}}", port, f"http://127.0.0.1:{port}/health", {"NGINX": nginx}
        ))  # fmt: skip
    return found


def _sluices(place: Path, listed: dict[str, str], beside: Sequence[str]) -> list[dict[str, Any]]:
    made = []
    clones = {"Sluice": Path.cwd()} | {name: Path(clone) for name, _, clone in (b.partition("=") for b in beside)}
    for name, clone in clones.items():
        for what, module in (("", "tests.bench.serve"), (" + scorer", "app.cli serve")):
            folder = place / f"{name}{what}".replace(" ", "")
            if (place / "data").exists():
                shutil.copytree(place / "data", folder)
            env = _environment(folder, **listed) | {"SLUICE_UPSTREAM_URL": "{backend}/v1", "PYTHONPATH": str(clone)}
            made.append(_target(
                name + what, f"{sys.executable} -m {module}", int(env["SLUICE_PORT"]),
                f"http://127.0.0.1:{env['SLUICE_OPS_PORT']}/readyz", env, cwd=str(clone),
            ))  # fmt: skip
    return made


def _toml(args: argparse.Namespace, targets: list[dict[str, Any]]) -> str:
    """JSON strings, numbers and lists are TOML as well."""
    rows = [
        "[bench]", f"backend_port = {free_port()}", f"rounds = {args.rounds}", f"phases = {json.dumps(args.phases.split(','))}",
        "gateway_cpus = [0]", "tool_cpus = [1]", "foreign_limit = 0.25", "round_limit = 1000",
    ]  # fmt: skip
    for name, phase in _PHASES.items():
        rows += [f"[phase.{name}]", *(f"{k} = {json.dumps(v)}" for k, v in {**phase, "seconds": args.seconds}.items())]
    for target in targets:
        rows.append("[[target]]")
        rows += [f"{k} = {json.dumps(v)}" for k, v in target.items() if k != "env"]
        rows.append("env = { " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in target["env"].items()) + " }")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
