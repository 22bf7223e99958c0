"""A model as files: what was fitted, made small, with its thresholds. Law: the same weights give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.modelfile import NAME, Source, Thresholds
from app.training.sources import digest

_STEPS = 127
_NOTHING = 2
"""Steps that a weight must exceed in some category: half of all n-grams do not, and together they move a logit by 0.07 (root mean square,
where a logit spreads by 2.3). Without them the table is half as large and stays in the processor's cache."""


def packed(
    categories: Sequence[str], vocabulary: NDArray[np.uint32], columns: NDArray[np.float64], shape: NDArray[np.float64]
) -> tuple[bytes, int]:
    """The bytes of a weights file, and the n-grams in it. `columns` [v + 1, k]: weights, bias last; `shape` [2, k]: slope and shift
    of the calibration."""
    weights, bias = columns[:-1] * shape[0], columns[-1] * shape[0] + shape[1]
    scale = np.maximum(np.abs(weights).max(0), 1e-6) / _STEPS
    small = np.rint(weights / scale).astype(np.int8)
    kept = np.abs(small).max(1) > _NOTHING
    out = io.BytesIO()
    np.savez_compressed(
        out,
        categories=np.array(categories),
        vocabulary=vocabulary[kept],
        weights=small[kept],
        scale=scale.astype(np.float32),
        bias=bias.astype(np.float32),
    )
    return out.getvalue(), int(kept.sum())


def version(raw: bytes) -> str:
    """The same weights have the same name."""
    return hashlib.sha256(raw).hexdigest()[:12]


def write(
    folder: Path, version: str, raw: bytes, thresholds: Mapping[str, Thresholds], sources: Sequence[Source] = ()
) -> None:
    """weights.npz and model.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    _whole(folder / "weights.npz", raw)
    lines = [
        "# Written by `sluice train`. flag: from which probability on the category is flagged; ask: a guard is asked.",
        'kind = "grams"',
        f'version = "{version}"',
        "",
        "[files]",
        f'"weights.npz" = "{digest(folder / "weights.npz")}"',
        "",
        "[categories]",
        *(f"{c} = {{flag = {t.flag}, ask = {t.ask}}}" for c, t in thresholds.items()),
        "",
        *(line for source in sources for line in listed(source)),
    ]
    _whole(folder / NAME, "\n".join(lines).encode())


def listed(source: Source) -> list[str]:
    """A source as lines of model.toml."""
    # A JSON string is one of TOML too.
    values = {k: json.dumps(v, ensure_ascii=False) for k, v in source.model_dump(exclude_none=True).items()}
    return ["[[sources]]", *(f"{k} = {v}" for k, v in values.items()), ""]


def _whole(path: Path, raw: bytes) -> None:
    """Write a file in one step: who reads it meanwhile has the old one. (Between two files a gateway keeps the model it has.)"""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(raw)
    fresh.replace(path)
