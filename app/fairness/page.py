"""The report of a run as one page. Law: self-contained, no script, nothing fetched; figures and names alone, escaped; Chinese first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from app import csp
from app.pairs import material
from app.taxonomy import taxonomy

_STYLE = """body{font:15px/1.5 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;max-width:70rem;margin:1rem auto;
padding:0 1rem;color:#1b1f24;background:#fff}table{border-collapse:collapse;font-size:.87rem;width:100%}th,td{text-align:left;
padding:.25rem .6rem;border-bottom:1px solid #d9dee5;vertical-align:top}th{color:#5b6470;font-weight:500}.alarm{color:#b42318;
font-weight:600}h2{font-size:1.15rem;margin-top:1.6rem}div{overflow-x:auto}small{color:#5b6470}summary{cursor:pointer}"""
_ALARM = ' class="alarm"'
_MEASURES = {
    "refused": "拒答 refused", "unanswered": "无回答 unanswered", "finding": "检出 finding", "length": "长度 length",
    "wording": "用词 wording",
}  # fmt: skip
_ABOUT = {"user": "用户本人 the user", "person": "被谈及者 one spoken of"}
_COLUMNS = (
    "条款 article", "问题 question", "比较 measure", "各取值（回答数）values (answers)", "效应 effect", "解释 explained",
    "p", "q",
)  # fmt: skip
_READING = (
    "效应：比例之差；长度为最大与最小之比；用词为取值之间比取值之内多出的距离（0 到 1）。解释：随取值变化的部分（ε²）。q：经 "
    "Benjamini–Hochberg 校正，不大于 {level} 为显著。",
    "Effect: the difference of shares; of length the ratio of longest to shortest; of wording how much farther answers for different "
    "values lie apart than answers for the same one (0 to 1). Explained: the part that goes with the value (ε²). q: after Benjamini and "
    "Hochberg, significant where not above {level}.",
)


def html(report: Mapping[str, Any]) -> str:
    counts, rows = report["counts"], report["comparisons"]
    found = [c for c in rows if c["significant"]]
    parts = [
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">',
        csp.meta(_STYLE),
        "<title>成对提问报告 Paired prompts</title>",
        f"<style>{_STYLE}</style><h1>成对提问报告 <small>Paired prompts, Articles 4(2) and 12</small></h1>",
        f"<p>{escape(report['at'])} – {escape(report['ended'])} · 模型 model {escape(report['model'])} "
        f"<small>{escape(report['named'])} {escape(report['version'])}</small> · {escape(report['profile'])} · "
        f"每问 {report['answers']} 次 answers each · 种子 seed {report['seed']} · {escape(_flat(report['settings']))}</p>",
        f"<p>提问 asked {counts['asked']}，回答 answered {counts['answered']}，拒答 refused {counts['refused']}，"
        f"无回答 unanswered {counts['unanswered']}</p>",
        f"<p{_ALARM if found else ''}>{counts['significant']} 项差异显著，共 {counts['comparisons']} 项比较 "
        f"of {counts['comparisons']} comparisons {counts['significant']} significant</p>",
    ]
    parts += [f"<p><small>{escape(line.format(level=report['level']))}</small></p>" for line in _READING]
    if found:
        parts.append("<h2>显著的差异 <small>Significant differences</small></h2>" + _table(found, named=True))
    for id, values in report["values"].items():
        of = [c for c in rows if c["attribute"] == id]
        parts += [
            f"<h2>{escape(_attribute(id))}</h2>",
            _outcomes(id, values),
            "<h3>全部问题 <small>All questions together</small></h3>",
            _table([c for c in of if not c["question"]]),
            f"<details><summary>逐个问题 each question ({sum(bool(c['question']) for c in of)})</summary>",
            _table([c for c in of if c["question"]]),
            "</details>",
        ]
    parts.append("<h2>不能证明的 <small>What this does not show</small></h2><ul>")
    parts += [f"<li>{escape(line['zh'])}<br><small>{escape(line['en'])}</small></li>" for line in report["not_shown"]]
    parts.append(f"</ul><p><small>版本 versions: {escape(_flat(report['versions']))}</small></p></html>\n")
    return "".join(parts)


def _outcomes(attribute: str, values: Mapping[str, Mapping[str, int]]) -> str:
    head = ("取值 value", "回答 answered", "拒答 refused", "无回答 unanswered", "有检出 with findings")
    rows = [[_value(attribute, id), *map(str, of.values())] for id, of in values.items()]
    return _grid(head, rows)


def _table(comparisons: Sequence[Mapping[str, Any]], *, named: bool = False) -> str:
    if not comparisons:
        return "<p>没有可比较的变化 <small>nothing varied</small></p>"
    head = ("属性 attribute", *_COLUMNS) if named else _COLUMNS
    return _grid(head, [_cells(c, named) for c in comparisons], [c["significant"] and not named for c in comparisons])


def _cells(c: Mapping[str, Any], named: bool) -> list[str]:
    question = f"{c['question']} · {c['language']}" if c["question"] else "全部 all"
    measure = _MEASURES[c["measure"]]
    if c["category"]:
        category = taxonomy()[c["category"]]
        measure += f": {category.zh} {category.en}"
    levels = "; ".join(
        f"{_value(c['attribute'], id)} {_level(c['measure'], of['level'])} ({of['answers']})" for id, of in c["values"].items()
    )  # fmt: skip
    return [
        *([_attribute(c["attribute"])] if named else []),
        f"{c['article']} {_ABOUT[c['about']]}", question, measure, levels, _effect(c["measure"], c["effect"]),
        f"{c['explained']:.2f}", _chance(c["p"]), _chance(c["q"]),
    ]  # fmt: skip


def _attribute(id: str) -> str:
    attribute = material().attributes[id]
    return f"{attribute.zh} {attribute.en}"


def _value(attribute: str, id: str) -> str:
    return next(v.zh for v in material().attributes[attribute].values if v.id == id) + f" {id}"


def _level(measure: str, level: float) -> str:
    return f"{level:.0f}" if measure == "length" else f"{level:.2f}" if measure == "wording" else f"{level:.0%}"


def _effect(measure: str, effect: float) -> str:
    return f"×{effect:.2f}" if measure == "length" else f"{effect:+.2f}" if measure == "wording" else f"{effect:.0%}"


def _chance(p: float) -> str:
    return f"{p:.2g}"


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())


def _grid(head: Iterable[str], rows: Iterable[Sequence[str]], alarms: Iterable[bool] | None = None) -> str:
    kept = list(rows)
    marks = list(alarms) if alarms is not None else [False] * len(kept)
    return (
        "<div><table><tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"
        + "".join(
            f"<tr{_ALARM if mark else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row, mark in zip(kept, marks, strict=True)
        )
        + "</table></div>"
    )  # fmt: skip
