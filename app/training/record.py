"""RECORD.json: what an adapter was made from, how, and what came of it. Law: enough to make it again, and no text of a case: ids, hashes,
numbers. It names the base model by its folder's last name, never by a path."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.clock import stamp
from app.errors import TrainingError

NAME = "RECORD.json"
PACKAGES = ("torch", "transformers", "peft", "trl", "datasets")
_READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a model's folder that decide what it says."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to tune. `method`: dpo, unlearn or sft; `rate`: of learning; `rank`: of the adapter; `threads`: of the CPU."""

    method: str
    epochs: int
    rate: float
    rank: int
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it. `asked`: answers looked at, before and after; `said_before`, `said_after`: how many of them said the passage;
    `kept`: prompts whose answers were held; `changed`: the share of those with another answer now; `losses`: one per step."""

    asked: int
    said_before: int
    said_after: int
    kept: int
    changed: float
    losses: list[float]


def require() -> None:
    """Raises TrainingError that says how to get what is not installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise TrainingError(
            f"tuning needs {', '.join(missing)} (微调需要 {'、'.join(missing)}): "
            "pip install torch 'sluice-gateway[train]'; docs/models.md says where torch for a CPU comes from"
        )


def base(path: Path) -> dict[str, str]:
    """File -> SHA-256 of a model's folder. Raises TrainingError unless it is one that can be tuned."""
    if not path.is_dir():
        raise TrainingError(
            f"{path}: no such folder; --model takes a local path, nothing is fetched from a hub (只接受本地目录，不联网下载)"
        )
    if (path / "adapter_config.json").exists():
        raise TrainingError(
            f"{path}: is an adapter; tune the base model with all cases again, or merge it first (这是适配器，请用基础模型)"
        )
    if not (path / "config.json").exists():
        raise TrainingError(f"{path}: holds no config.json; name a model's folder (目录中没有 config.json)")
    if not list(path.glob("*.safetensors")):
        raise TrainingError(f"{path}: holds no safetensors weights; convert them first (只接受 safetensors 权重)")
    return {p.name: digest(p) for p in sorted({p for form in _READ for p in path.glob(form)})}


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises TrainingError."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise TrainingError(f"{path}: cannot be read ({e.strerror})") from None


def installed(name: str) -> str:
    """The version of a package, or "none"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def write(
    out: Path, model: Path, files: dict[str, str], ids: Sequence[str], sources: dict[str, str], plan: Plan, tuned: Tuned
) -> None:
    """Write the record beside the adapter in `out`. `files`: of the base model; `ids`: of the cases; `sources`: option -> SHA-256 of the
    file that it named."""
    told: dict[str, Any] = {
        "made": {"by": "sluice", "version": installed("sluice-gateway"), "at": stamp()},
        "base": {"name": model.resolve().name, "files": files},
        "cases": sorted(set(ids)),
        "sources": sources,
        "plan": asdict(plan),
        "packages": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
        "result": asdict(tuned),
        "files": {p.name: digest(p) for p in sorted(out.iterdir()) if p.is_file()},
    }
    (out / NAME).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
