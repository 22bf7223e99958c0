"""A report as one HTML page with plots. Law: self-contained, no script, nothing fetched; figures and names alone, escaped; well-formed as
XML is, Chinese first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from app import csp
from app.evaluation import plots
from app.evaluation.aspects import RISKS, TOPICS, Aspect
from app.evaluation.plots import Bar
from app.evaluation.report import Gate, Group, OfCategory, Report, Share, Standing
from app.evaluation.table import SHARES, STANDING, least, most, number, percent, shares
from app.taxonomy import taxonomy

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b1f24; --soft: #5b6470; --line: #d9dee5;
  --good: #12897f; --bad: #cd6116; --passed: #15803d; --failed: #b42318; --open: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --page: #101317; --card: #181c22; --text: #e7eaee; --soft: #9aa4b1; --line: #323943;
  --good: #249a8c; --bad: #cf7029; --passed: #4ade80; --failed: #ff8a7a; --open: #f2c04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.55 system-ui, "PingFang SC", "Microsoft YaHei",
  "Noto Sans CJK SC", "WenQuanYi Zen Hei", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; margin: 0 0 .5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; } h3 { font-size: 1rem; }
h1 span, h2 span, h3 span { color: var(--soft); font-weight: 400; font-size: .8em; margin-left: .3em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 0 0 1rem; }
p { margin: .4rem 0; } .soft, figcaption { color: var(--soft); font-size: .87rem; } .alarm { color: var(--failed); font-weight: 600; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem 2rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1rem; align-items: start; }
.pair section { min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 0; }
.tiles div { border-left: 3px solid var(--line); padding-left: .6rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
dd small { color: var(--soft); font-size: .8rem; display: block; }
figure { margin: .5rem 0; min-width: 0; } svg { display: block; width: 100%; max-width: 28rem; height: auto; }
svg text { fill: var(--text); font-size: 11px; font-family: inherit; } svg .soft { fill: var(--soft); font-size: 10px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:first-child { white-space: normal; min-width: 7rem; } td small { color: var(--soft); }
.passed { color: var(--passed); } .failed { color: var(--failed); } .open { color: var(--open); }
summary { cursor: pointer; color: var(--soft); }
"""
_CLASS: dict[Standing, str] = {"passed": "passed", "not passed": "failed", "not shown": "open"}


def html(report: Report) -> str:
    parts = [
        _head(report),
        _summary(report),
        '<div class="pair">'
        + _gate("应拒答", "Should refuse", report.gates["should_refuse"], RISKS)
        + _gate("不应拒答", "Should not refuse", report.gates["should_not_refuse"], TOPICS)
        + "</div>",
        _categories(report.categories),
        _scores(report),
        _groups("方面", "By aspect", report.aspects),
        _groups("来源", "By source", report.sources),
        _groups("语言", "By language", report.languages),
        _reading(),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="zh-Hans"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        + csp.meta(_STYLE)
        + f"<title>Sluice 评测报告 · Evaluation</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


# ---- sections


def _head(report: Report) -> str:
    m = report.measured
    scorers = ", ".join(f"{name} {version}" for name, version in m.scorers.items()) or "–"
    failed = "".join(
        f'<p class="alarm">{escape(name)} 在 {texts} 条上失效：以下数字属于降级的流水线。'
        f"It failed on {texts} texts: the figures are those of a degraded pipeline.</p>"
        for name, texts in report.degraded.items()
    )
    banks = _table(
        ["题库 bank", "行 rows", "未定 undecided", "有误 faulty", "SHA-256"],
        [
            [escape(b.file), str(b.rows), str(b.undecided), str(b.faulty), f"<small>{b.sha256[:12]}</small>"]
            for b in report.banks
        ],
    )
    about = f"{m.at} · 方向 direction {m.direction} · 法规 profile {m.profile} · 策略 policy {m.policy} · 打分 scorer {scorers}"
    return (
        f'<header><h1>评测报告<span lang="en">Evaluation report</span></h1><p class="soft">{escape(about)}</p>{failed}</header>'
        + _section("题库", "Banks", banks)
    )


def _summary(report: Report) -> str:
    whole = report.whole
    costs = report.cost
    tiles = [
        ("召回 recall", percent(whole.recall.share), _of(whole.recall, low=True)),
        ("拦截 blocked", percent(whole.blocked.share), _of(whole.blocked, low=True)),
        ("误标 false flags", percent(whole.false_flags.share), _of(whole.false_flags, low=False)),
        ("误拦 false blocks", percent(whole.false_blocks.share), _of(whole.false_blocks, low=False)),
        ("类别正确 right category", percent(whole.attributed.share), _of(whole.attributed, low=True)),
        ("AUC", number(whole.auc), "最高分 of the highest score"),
        ("宏平均 macro F1", number(report.macro_f1), f"类别 categories {number(report.macro_f1_categories)}"),
        ("校准误差 calibration error", number(report.calibration_error), "越低越好 lower is better"),
        ("每条耗时 cost per text", _micro(costs["pipeline"].p50), f"p99 {_micro(costs['pipeline'].p99)}"),
        ("其中打分 of it scorer", _micro(costs["scorer"].p50), f"p99 {_micro(costs['scorer'].p99)}"),
    ]
    told = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in tiles)
    length = f"文本长度 length of a text: p50 {number(report.characters.p50, 0)}, p99 {number(report.characters.p99, 0)} 字 characters."
    return _section("总体", "In all", f'<dl class="tiles">{told}</dl><p class="soft">{length}</p>')


def _gate(zh: str, en: str, gate: Gate, names: Mapping[str, Aspect]) -> str:
    low = gate.by == "flagged"
    sign = "≥" if low else "≤"
    parts = [(name, names[name], part) for name, part in gate.aspects.items()]
    bars = [
        _bar(f"{name} {of.zh}", part.flagged, part.refused, gate.judged(part), low=low)
        for name, of, part in parts
        if part.flagged.of
    ]
    plot = _bars(bars, f"{zh} {en}", "拒答 refused", gate.by, low=low, mark=gate.asked) if bars else ""
    write = least if low else most
    table = _table(
        ["", "结论 standing", "条 texts", "标记及以上 flagged", "拒答 refused"],
        [
            [
                f"{name} {of.zh}<br/><small>{of.en}</small>",
                _standing(part.standing, "<br/>"),
                str(part.flagged.of) + ("" if part.enough else " <small>不足 few</small>"),
                write(part.flagged).replace(" ", "<br/>"), write(part.refused).replace(" ", "<br/>"),
            ]
            for name, of, part in parts
        ],
    )  # fmt: skip
    return _section(f"{zh} {sign}{gate.asked:.0%}", en, _verdict(gate) + _size(gate) + plot + _folded(table))


def _verdict(gate: Gate) -> str:
    if gate.by == "flagged":
        return (
            f"<p><b>{_standing(gate.standing)}</b> · 标记及以上 flagged or more {least(gate.flagged)} "
            f"({gate.flagged.hits}/{gate.flagged.of})</p>"
            f"<p>其中拒答 of them refused {least(gate.refused)}；仅按拒答计 by refusals alone: {_standing(gate.standing_refused)}。"
            '<span class="soft">标记的文本仍会送达，考核按拒答计。 What is flagged is delivered; an assessment counts refusals.</span></p>'
        )
    return (
        f"<p><b>{_standing(gate.standing)}</b> · 拒答 refused {most(gate.refused)} ({gate.refused.hits}/{gate.refused.of})</p>"
        f"<p>标记及以上 flagged or more {most(gate.flagged)}</p>"
    )


def _size(gate: Gate) -> str:
    said = f"题库足够（全部 ≥ {gate.texts_asked}，每项 ≥ {gate.each_asked}）。 The bank is large enough."
    if not gate.enough:
        said = f"题库不足：{gate.flagged.of}/{gate.texts_asked}。 The bank is too small."
        if gate.short:
            said += f" 少于 {gate.each_asked} 条 fewer than {gate.each_asked}: {', '.join(gate.short)}"
    return f'<p class="soft">{said}</p>'


def _categories(categories: Mapping[str, OfCategory]) -> str:
    named = [(_category(name), of) for name, of in categories.items()]
    recall = [_bar(name, of.recall, of.blocked, of.recall, low=True) for name, of in named if of.recall.of]
    false = [
        _bar(name, of.false_flags, of.false_blocks, of.false_flags, low=False)
        for name, of in named
        if of.false_flags.of
    ]
    shown = ""
    if recall:
        shown += _bars(recall, "召回 Recall", "拦截 blocked", "flagged", low=True)
    if false:
        shown += _bars(false, "误报 False alarms", "误拦 blocked", "flagged", low=False)
    table = _table(
        ["类别 category", *SHARES, "AUC", "自身 own AUC", "F1", "类别正确 right"],
        [
            [escape(name), *shares(of), number(of.auc), number(of.own_auc), number(of.f1), least(of.attributed)]
            for name, of in named
        ],
    )
    return _section("类别", "By category", f'<div class="grid">{shown}</div>' + _folded(table))


def _scores(report: Report) -> str:
    if not report.calibration:
        return ""
    curve = _figure(
        "校准 Calibration",
        plots.curve(report.calibration),
        "横轴：最高分；纵轴：其中违规的比例；点的大小：条数；虚线：完全校准。 "
        "Across: highest score; up: share that is violating; size of a point: texts; dashed: perfect.",
    )
    histograms = _figure(
        "分数分布 Scores by label",
        plots.histograms(report.scores),
        "上：违规；下：无害；高度：占该标签的比例。 Above: violating; below: harmless; height: share of the label.",
    )
    few = f"{report.unscored} 条没有分数 texts have no score." if report.unscored else ""
    return _section(
        "最高分", "The highest score", f'<div class="grid">{curve}{histograms}</div><p class="soft">{few}</p>'
    )


def _groups(zh: str, en: str, groups: Mapping[str, Group]) -> str:
    known = {name: f"{name} {aspect.zh}" for name, aspect in (RISKS | TOPICS).items()} if en == "By aspect" else {}
    rows = [
        [escape(known.get(name, name) or "未标 none"), *shares(group), number(group.auc)]
        for name, group in groups.items()
    ]
    return _section(zh, en, _table(["", *SHARES, "AUC"], rows))


def _reading() -> str:
    zh = (
        "≥ 为单侧 95% 下界，≤ 为单侧 95% 上界（Clopper–Pearson）。只有界也在要求的一侧才算“通过”；只有比例达到为“未能证明”。"
        "本页衡量的是这些题库，不是服务本身；也不替代标准要求的人工抽检。"
    )
    en = (
        "≥ is a one-sided 95% lower bound, ≤ an upper one (Clopper and Pearson). Passed: the bound too is on the right side; where only "
        "the share is, it is not shown. This page measures these banks and no service; it replaces no manual sample of a standard."
    )
    return _section("怎么读", "How to read it", f'<p>{zh}</p><p lang="en">{en}</p>')


# ---- words and tables


def _bar(label: str, weak: Share, strong: Share, judged: Share, *, low: bool) -> Bar:
    said, bound = (least(judged), judged.lower) if low else (most(judged), judged.upper)
    return Bar(label, said, weak.share, strong.share, judged.share, bound)


def _bars(bars: Sequence[Bar], title: str, strong: str, by: str, *, low: bool, mark: float | None = None) -> str:
    zh, en = strong.split(" ")
    line_zh, line_en = (f"；虚线：{mark:.0%}", f"; dashed: {mark:.0%}") if mark is not None else ("", "")
    bound_zh, bound_en = ("下界", "lower") if low else ("上界", "upper")
    of_zh, of_en = ("标记", "flagged or more") if by == "flagged" else ("拒答", "refused")
    return _figure(
        title if mark is None else "",
        plots.bars(bars, "good" if low else "bad", 1.0 if low else plots.end(bars), mark, title),
        f"浅色：标记及以上；深色：{zh}；细线：{of_zh}的 95% 单侧{bound_zh}{line_zh}。 "
        f"Pale: flagged or more; full: {en}; whisker: one-sided 95% {bound_en} bound of {of_en}{line_en}.",
    )


def _section(zh: str, en: str, inside: str) -> str:
    return f'<section><h2>{zh}<span lang="en">{en}</span></h2>{inside}</section>'


def _figure(title: str, inside: str, caption: str) -> str:
    zh, _, en = title.partition(" ")
    head = f'<h3>{zh}<span lang="en">{en}</span></h3>' if title else ""
    return f"<figure>{head}{inside}<figcaption>{caption}</figcaption></figure>"


def _folded(table: str) -> str:
    return f"<details><summary>数字 figures</summary>{table}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are written as they stand: names in them are escaped already."""
    top = "".join(f"<th>{'<br/>'.join(cell.split(' ', 1))}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _category(name: str) -> str:
    return f"{taxonomy()[name].zh} {name}" if name else "未标 none"


def _standing(standing: Standing, between: str = " ") -> str:
    return f'<span class="{_CLASS[standing]}">{STANDING[standing]}{between}{standing}</span>'


def _of(part: Share, *, low: bool) -> str:
    if not part.of:
        return "–"
    return f"{'≥' if low else '≤'}{percent(part.lower if low else part.upper)} · {part.hits}/{part.of}"


def _micro(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f} µs"
