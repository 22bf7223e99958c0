"""A report as lines for a terminal. Law: figures and names alone; a share that is too low at worst is told with its lower bound, one that
is too high at worst with its upper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from unicodedata import east_asian_width

from app.evaluation.aspects import RISKS, TOPICS
from app.evaluation.report import Gate, Group, Report, Share

STANDING = {"passed": "通过", "not passed": "未通过", "not shown": "未能证明"}
UNNAMED = "(未标 none)"
_GATES = {"should_refuse": "应拒答 should refuse", "should_not_refuse": "不应拒答 should not refuse"}
SHARES = ["违规 violating", "召回 recall", "拦截 blocked", "无害 harmless", "误标 false flags", "误拦 false blocks"]


def lines(report: Report) -> Iterator[str]:
    yield from _material(report)
    whole = report.whole
    yield ""
    yield from _columns(["总体 in all", *SHARES, "AUC"], [["", *shares(whole), number(whole.auc)]])
    yield (
        f"宏平均 macro F1: 有害/无害 harmful/harmless {number(report.macro_f1)}, 类别 categories {number(report.macro_f1_categories)}; "
        f"类别正确 right category {least(whole.attributed)}; 校准误差 calibration error {number(report.calibration_error)}"
    )
    for name, cost in report.cost.items():
        told = {"pipeline": "每条耗时 cost per text", "scorer": "其中打分 of it scorer"}[name]
        yield f"{told}: p50 {number(cost.p50, 0)} µs, p99 {number(cost.p99, 0)} µs"
    for name, gate in report.gates.items():
        yield from _gate(_GATES[name], gate, RISKS if name == "should_refuse" else TOPICS)
    yield ""
    yield from _columns(
        ["类别 category", *SHARES, "AUC", "自身 own AUC", "F1", "类别正确 right"],
        [
            [name or UNNAMED, *shares(c), number(c.auc), number(c.own_auc), number(c.f1), least(c.attributed)]
            for name, c in report.categories.items()
        ],
    )
    for title, groups in (
        ("方面 aspect", report.aspects),
        ("来源 source", report.sources),
        ("语言 language", report.languages),
    ):
        yield ""
        yield from _groups(title, groups)


# ---- how figures are written


def percent(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.1%}"


def least(part: Share) -> str:
    """A share that should be high."""
    return f"{percent(part.share)} ≥{percent(part.lower)}" if part.of else "-"


def most(part: Share) -> str:
    """A share that should be low."""
    return f"{percent(part.share)} ≤{percent(part.upper)}" if part.of else "-"


def number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def shares(group: Group) -> list[str]:
    """The cells under SHARES."""
    return [
        str(group.recall.of), least(group.recall), least(group.blocked),
        str(group.false_flags.of), most(group.false_flags), most(group.false_blocks),
    ]  # fmt: skip


# ---- parts


def _material(report: Report) -> Iterator[str]:
    for bank in report.banks:
        aside = f", 未定 undecided {bank.undecided} (不计入 not counted)" if bank.undecided else ""
        wrong = f", 有误 faulty {bank.faulty}" if bank.faulty else ""
        yield f"{bank.file}: {bank.rows} 行 rows{aside}{wrong}"
    m = report.measured
    scorers = ", ".join(f"{name} {version}" for name, version in m.scorers.items())
    yield f"方向 direction {m.direction}; 法规 profile {m.profile}; 策略 policy {m.policy}; 打分 scorer {scorers or '-'}"
    for name, texts in report.degraded.items():
        yield f"注意 ATTENTION: {name} 失效 failed in {texts} 条 texts; 数字属于降级的流水线 the figures are of a degraded pipeline"


def _gate(title: str, gate: Gate, names: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    whole = gate.judged(gate)
    told, sign, word = (
        (least, "≥", "标记及以上 flagged or more") if gate.by == "flagged" else (most, "≤", "拒答 refused")
    )
    yield ""
    yield (
        f"{title} {sign}{gate.asked:.0%}: {STANDING[gate.standing]} {gate.standing} · {word} {told(whole)} ({whole.hits}/{whole.of})"
    )
    if gate.by == "flagged":
        yield (
            f"  其中拒答 of them refused {least(gate.refused)}; 仅按拒答计 by refusals alone: "
            f"{STANDING[gate.standing_refused]} {gate.standing_refused}"
        )
    else:
        yield f"  标记及以上 flagged or more {most(gate.flagged)}"
    size = "题库规模 size of the bank"
    if gate.enough:
        yield f"  {size}: 足够 enough (≥{gate.texts_asked}, 每项 each ≥{gate.each_asked})"
    else:
        yield (
            f"  {size}: 不足 too small: {whole.of}/{gate.texts_asked}"
            + (
                f"; 不足 {gate.each_asked} 条 fewer than {gate.each_asked}: {', '.join(gate.short)}"
                if gate.short
                else ""
            )
        )
    yield from _columns(
        ["  ", "条 texts", word, "标记及以上 flagged" if gate.by == "refused" else "拒答 refused", "结论 standing"],
        [
            [
                f"  {name} {names[name][0]}", str(part.flagged.of), told(gate.judged(part)),
                told(part.refused if gate.by == "flagged" else part.flagged), f"{STANDING[part.standing]} {part.standing}",
            ]
            for name, part in gate.aspects.items()
        ],
    )  # fmt: skip


def _groups(title: str, groups: Mapping[str, Group]) -> Iterator[str]:
    rows = [[name or UNNAMED, *shares(group), number(group.auc)] for name, group in groups.items()]
    yield from _columns([title, *SHARES, "AUC"], rows)


def _columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    table = [head, *rows]
    widths = [max(_width(row[at]) for row in table) for at in range(len(head))]
    for row in table:
        first, *others = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        yield (row[0] + first + "".join(f"  {pad}{cell}" for pad, cell in zip(others, row[1:], strict=True))).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
