"""`sluice train`: of the shipped scorer, and of an operator's own model from cases. Law: says what it did and the figures it got; writes a
model whole or not at all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import TrainingError

if TYPE_CHECKING:
    from app.training.sources import Example


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser(
        "train", help="train the shipped scorer, or tune a model from cases · 训练随附的打分模型，或按案件微调模型"
    )
    c.add_argument("--data", type=Path, help="the folder of data sets (docs/models.md says which) · 数据集目录")
    c.add_argument("--pairs", type=Path, help="a folder of matched pairs instead of the shipped ones · 成对样本目录")
    c.add_argument(
        "--confirmed",
        type=Path,
        help="samples written by `sluice case export`: their passages are learned from · 已确认案件样本",
    )
    c.add_argument("--out", type=Path, default=Path("models/grams"), help="the model's folder · 模型输出目录")
    c.add_argument("--seed", type=int, default=0, help="of the split that thresholds and figures come from")
    c.add_argument(
        "--leave-out",
        action="store_true",
        help="print how well each source is told by a model that never saw it; write nothing",
    )
    c.set_defaults(run=train_command)
    kinds = c.add_subparsers(dest="kind", required=False, metavar="KIND")
    _add_generator(kinds)
    _add_sets(kinds)


def _add_cases(c: argparse.ArgumentParser) -> None:
    c.add_argument("--cases", type=Path, required=True, help="samples written by `sluice case export` · 案件样本文件")
    c.add_argument("--out", type=Path, required=True, help="a new folder · 新的输出目录")
    c.add_argument(
        "--retain",
        type=Path,
        help='JSON lines {"prompt", "answer"} that must stay as they are · 须保持不变的提示与回答',
    )


def _add_generator(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = kinds.add_parser(
        "generator",
        help="tune a causal language model until it no longer says the passages of cases · 微调生成模型，使其不再生成案件段落",
    )
    c.add_argument("--model", type=Path, required=True, help="the model's folder, Hugging Face format · 模型目录")
    _add_cases(c)
    c.add_argument(
        "--method",
        choices=["dpo", "unlearn", "sft"],
        default="dpo",
        help="default dpo (docs/models.md) · 方法，默认 dpo",
    )
    c.add_argument("--epochs", type=_positive(int), default=40, help="default 40 · 轮数")
    c.add_argument("--lr", type=_positive(float), default=2e-4, help="learning rate, default 2e-4 · 学习率")
    c.add_argument("--rank", type=_positive(int), default=16, help="of the adapter, default 16 · 适配器的秩")
    c.add_argument("--seed", type=int, default=0, help="default 0 · 随机种子")
    c.add_argument("--threads", type=_positive(int), default=1, help="of the CPU, default 1 · CPU 线程数")
    c.set_defaults(run=generator_command)


def _add_sets(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = kinds.add_parser(
        "sets", help="write data sets of cases for TRL and LLaMA-Factory · 将案件写成 TRL 与 LLaMA-Factory 数据集"
    )
    _add_cases(c)
    c.set_defaults(run=sets_command)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        if (value := kind(text)) > 0:
            return value
        raise argparse.ArgumentTypeError("must be greater than 0")

    return number


def sets_command(args: argparse.Namespace) -> int:
    """`sluice train sets`: cases as data sets, for whoever tunes with tools of their own."""
    from app import clock
    from app.training import cases
    from app.training.record import digest

    samples = cases.read(args.cases)
    kept = cases.retained(args.retain) if args.retain else []
    cases.write(args.out, samples, kept, digest(args.cases), clock.now())
    _say(f"{args.out}: {len(cases.rows(samples))} prompts of {len(samples)} samples")
    return 0


def generator_command(args: argparse.Namespace) -> int:
    """`sluice train generator`. Exit status 1 if the tuned model was seen to say a passage."""
    # Before torch is imported: nothing is fetched, nothing is told, and threads that wait do not spin.
    os.environ |= {
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }  # fmt: skip
    from app.training import cases, record

    samples = cases.read(args.cases)
    kept = cases.retained(args.retain) if args.retain else []
    files = record.base(args.model)
    sources = {name: record.digest(path) for name, path in (("cases", args.cases), ("retain", args.retain)) if path}
    record.require()
    cases.fresh(args.out)
    from app.training import generator

    began = time.monotonic()
    plan = record.Plan(args.method, args.epochs, args.lr, args.rank, args.seed, args.threads)
    tuned = generator.tune(args.model, samples, kept, args.out, plan)
    record.write(args.out, args.model, files, [s.case for s in samples], sources, plan, tuned)
    _say(
        f"{args.out}: a passage stood in {tuned.said_before} of {tuned.asked} answers, now in {tuned.said_after}; of {tuned.kept} answers "
        f"to other prompts {tuned.changed:.1%} are others now; {time.monotonic() - began:.0f} s"
    )
    if tuned.said_after:
        _say(
            "the passage is still said: more epochs, a higher rate, more variants (仍会生成该段落：请增加轮数、学习率或变体)"
        )
    return 1 if tuned.said_after else 0


def train_command(args: argparse.Namespace) -> int:
    if args.data is None:
        raise TrainingError("sluice train: --data names the folder of data sets (请用 --data 指定数据集目录)")
    # Before NumPy is imported: sums must not depend on how many threads added them up, and each fold has a core of its own.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise TrainingError("training needs SciPy (训练需要 SciPy): pip install scipy") from None
    from app.settings import packaged
    from app.training import sources

    own = packaged("models") / "grams"
    pairs = sources.pairs(args.pairs or own / "pairs")
    examples = [
        *sources.read(args.data),
        *(e for pair in pairs for e in pair.examples()),
        *sources.everyday(own / "everyday.tsv"),
        *(sources.confirmed(args.confirmed) if args.confirmed else ()),
    ]
    _say(f"{len(examples):,} texts, {len(pairs):,} of them pairs")
    if args.leave_out:
        return _leave_out(examples, args.seed)
    return _train(args, examples, pairs)


def _train(args: argparse.Namespace, examples: list[Example], pairs: list[sources.Pair]) -> int:  # type: ignore[name-defined]  # noqa: F821
    from app.training import model, train
    from app.training.card import card, used
    from app.training.fit import CATEGORIES

    began = time.monotonic()
    unseen, whole = train.both(examples, args.seed)
    _say(f"fitted, {time.monotonic() - began:.0f} s")
    shape = train.calibrated(unseen)
    thresholds = train.chosen(unseen, shape)
    raw, words = model.packed(CATEGORIES, whole.vocabulary, whole.columns, shape)
    version = model.version(raw)
    text, figures = card(version, examples, pairs, unseen, shape, thresholds, args.data, words)
    made_from = [source for _, _, source in used(examples, args.data)]
    model.write(args.out, version, raw, thresholds, made_from)
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
