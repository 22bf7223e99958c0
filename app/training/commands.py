"""`sluice train`. Law: says what it did and the figures it got; writes a model whole or not at all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import TrainingError

if TYPE_CHECKING:
    from app.training.sources import Example


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser("train", help="train the shipped scorer · 训练随附的打分模型")
    c.add_argument(
        "--data", type=Path, required=True, help="the folder of data sets (docs/models.md says which) · 数据集目录"
    )
    c.add_argument("--pairs", type=Path, help="a folder of matched pairs instead of the shipped ones · 成对样本目录")
    c.add_argument("--out", type=Path, default=Path("models/grams"), help="the model's folder · 模型输出目录")
    c.add_argument("--seed", type=int, default=0, help="of the split that thresholds and figures come from")
    c.add_argument(
        "--leave-out",
        action="store_true",
        help="print how well each source is told by a model that never saw it; write nothing",
    )
    c.set_defaults(run=train_command)


def train_command(args: argparse.Namespace) -> int:
    # Before NumPy is imported: sums must not depend on how many threads added them up, and each fold has a core of its own.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise TrainingError("training needs SciPy (训练需要 SciPy): pip install 'sluice-gateway[train]'") from None
    from app.settings import packaged
    from app.training import sources

    own = packaged("models") / "grams"
    pairs = sources.pairs(args.pairs or own / "pairs")
    examples = [
        *sources.read(args.data),
        *(e for pair in pairs for e in pair.examples()),
        *sources.everyday(own / "everyday.tsv"),
    ]
    _say(f"{len(examples):,} texts, {len(pairs):,} of them pairs")
    if args.leave_out:
        return _leave_out(examples, args.seed)
    return _train(args, examples, pairs)


def _train(args: argparse.Namespace, examples: list[Example], pairs: list[sources.Pair]) -> int:  # type: ignore[name-defined]  # noqa: F821
    from app.training import model, train
    from app.training.card import card
    from app.training.fit import CATEGORIES

    began = time.monotonic()
    unseen, whole = train.both(examples, args.seed)
    _say(f"fitted, {time.monotonic() - began:.0f} s")
    shape = train.calibrated(unseen)
    thresholds = train.chosen(unseen, shape)
    raw, words = model.packed(CATEGORIES, whole.vocabulary, whole.columns, shape)
    version = model.version(raw)
    text, figures = card(version, examples, pairs, unseen, shape, thresholds, args.data, words)
    model.write(args.out, version, raw, thresholds)
    (args.out / "CARD.md").write_text(text, "utf-8")
    _say(f"{args.out}: version {version}, {len(raw) / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")
    print(json.dumps({"version": version, "figures": figures}, ensure_ascii=False))
    return 0


def _leave_out(examples: list[Example], seed: int) -> int:
    from app.training.leaving import left_out

    for row in left_out(examples, seed):
        print(json.dumps(row, ensure_ascii=False), flush=True)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
