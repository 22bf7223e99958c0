"""The transparency report of a half-year: what was reported, decided, undone, answered late, imposed, in numbers alone.

Law: every time and every outcome is read from a row of the audit chain, and the report says of which head, and whether the chain is whole.
Only what no row says is joined: the category of a case, whether our own detectors had found it, and by when a complaint was to be answered.
No pseudonym, no reviewer, no text. What rows of an older version do not say is counted as not told, never guessed. (Draft Measures,
Articles 13 and 15; Interim Measures, Articles 14 and 15; field names as of the DSA Transparency Database.)
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from csv import writer
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any, NamedTuple

from app import clock, csp
from app.complaints import APPEALS, KINDS, Complaints
from app.deadlines import SHANGHAI
from app.errors import RequestError
from app.figures import quantile
from app.remediation import DUTY, UNDECIDED
from app.reports import UNKNOWN
from app.store.cases import Cases, broken
from app.store.tables import Row
from app.subjects import LEVELS
from app.taxonomy import Category, taxonomy

FEW = 5
"""A figure of a category below this is not published."""
_DAY = 86400.0
_HALF = re.compile(r"(20[0-9]{2})H([12])")
_PAGE = 250
"""Rows that are read between two turns of the loop."""
_MACHINES = frozenset({"reporter", "time", "rule", "gateway"})
"""Who a row names where no person did it."""
_HOLDS = ("held_for_app", "held_for_reporter")
_OF_CATEGORY = ("reports", "cases", "held", "confirmed", "rejected")
_OUTCOMES = ("received", "upheld", "refused", "late")
_PERSON = tuple(f"person_{level}" for level in LEVELS)
_RULE = tuple(f"rule_{level}" for level in LEVELS if level != "terminate")
_BLOCKS = {"complaints": KINDS, "appeals": APPEALS}
COUNTS = (
    "reports", "verified", "unverified", "ours", "cases", *_HOLDS, "confirmed", "rejected", "undone", "widened", "lapsed",
    "first_automated", "first_person", "passed", "failed", "inconclusive", "closed", "excepted", "handed_over", "reopened",
    "became_overdue", *(f"{block}_{outcome}" for block in _BLOCKS for outcome in _OUTCOMES), *_RULE, *_PERSON, "lifted",
    "access", "erasure", "entries_added", "entries_removed", "changes", "restored",
)  # fmt: skip
"""What is counted month by month; the figure of the half-year is the sum."""
_DECIDED = {
    "confirm": "confirmed", "reject": "rejected", "undo": "undone", "lapse": "lapsed", "except": "excepted",
    "hand_over": "handed_over", "reopen": "reopened",
}  # fmt: skip
_PLAIN = {
    "privacy_export": "access",
    "privacy_erase": "erasure",
    "restore": "restored",
    "entry": "entries_added",
    "entry_remove": "entries_removed",
}


def half(text: str) -> tuple[float, float]:
    """When a half-year begins and when the next one does, seconds since the epoch: "2026H2" is from 1 July 2026, 00:00 in Shanghai, to
    1 January 2027, 00:00. Raises RequestError 422."""
    found = _HALF.fullmatch(text)
    if found is None:
        raise RequestError(
            "half: a year and H1 or H2, for example 2026H2 for July to December 2026 (应为如 2026H2 的半年)",
            code="invalid_value", param="half", status=422,
        )  # fmt: skip
    months = _months(int(found[1]), 1 if found[2] == "1" else 7)
    return months[0], months[-1]


def _months(year: int, first: int) -> list[float]:
    """When six months from `first` on begin, and the one after them."""
    days = ((year + (first + n - 1) // 12, (first + n - 1) % 12 + 1) for n in range(7))
    return [datetime(y, m, 1, tzinfo=SHANGHAI).timestamp() for y, m in days]


class Fact(NamedTuple):
    """One thing that a row tells. `case`, `matter`: what it is about; `kind`: of the matter; `n`: how many."""

    name: str
    at: float
    case: str = ""
    matter: str = ""
    kind: str = ""
    n: int = 1


@dataclass(slots=True)
class _Case:
    """A case as far as the rows have told. `ours`: nobody sent its first report; `left`: what it was before it was probed; `acted`:
    something was done about it; `untold`: a row does not say whether it was hidden from a reporter; `late`: it has been overdue."""

    opened: float | None
    ours: bool = False
    state: str = ""
    left: str = ""
    acted: bool = False
    untold: bool = False
    late: bool = False


@dataclass(slots=True)
class _Matter:
    kind: str
    at: float
    answered: bool = False


@dataclass(slots=True)
class _Reading:
    """The chain, read row by row up to `end`; what happened from `start` on is a fact. Pure."""

    start: float
    end: float
    broken: int | None = None
    facts: list[Fact] = field(default_factory=list)
    to_decide: list[float] = field(default_factory=list)
    to_answer: dict[str, list[float]] = field(default_factory=lambda: {block: [] for block in _BLOCKS})
    cases: dict[str, _Case] = field(default_factory=dict)
    matters: dict[str, _Matter] = field(default_factory=dict)
    not_told: Counter[str] = field(default_factory=Counter)
    by_machine: int = 0

    def whole(self, rows: list[str], head: str) -> _Reading:
        self.broken = broken(rows, head)
        for raw in rows:
            try:
                row = json.loads(raw)
                at = clock.seconds(row["at"])
                if at < self.end:
                    self._row(row, at)
            except (ValueError, KeyError, TypeError, AttributeError):
                self.not_told["rows"] += 1  # no row of ours: the chain is said to be broken there
        return self

    def _tell(self, name: str, at: float, **of: Any) -> None:
        if at >= self.start:
            self.facts.append(Fact(name, at, **of))

    def _row(self, row: Row, at: float) -> None:
        what = row["what"]
        if what == "report":
            self._report(row, at)
        elif "case" in row:
            if "to" in row:
                self._move(row, at)
        elif "matter" in row:
            self._matter(row, at)
        elif "standing" in row:
            if what == "lift":
                self._tell("lifted", at)
            elif what in LEVELS:
                self._tell(f"{'rule' if row['who'] == 'rule' else 'person'}_{what}", at)
        elif what in _PLAIN:
            self._tell(_PLAIN[what], at)
        elif what in ("list_load", "list_remove"):
            self._tell("entries_added" if what == "list_load" else "entries_removed", at, n=int(row["entries"]))
        elif what == "change" and not row["first"]:
            self._tell("changes", at)

    def _report(self, row: Row, at: float) -> None:
        id, case = row["case"], self.cases.get(row["case"])
        if case is None:
            case = self.cases[id] = _Case(at, bool(row.get("ours")))
            self._tell("cases", at, case=id)
        was, case.state = case.state, row["state"]
        self._tell("reports", at, case=id)
        self._tell("ours" if row.get("ours") else row["standing"], at)
        # Hidden from an app is a state of the case; from whoever reported it, is not, and older rows do not say.
        if case.state == "provisional" != was:
            self._held("held_for_app", case, id, at)
        elif row.get("held") == "reporter":
            self._held("held_for_reporter", case, id, at)
        elif "held" not in row and row["standing"] == "verified":
            case.untold = True
            if at >= self.start:
                self.not_told["holds"] += 1
        if was == "closed" and case.state == "reopened":
            self._tell("reopened", at)

    def _held(self, name: str, case: _Case, id: str, at: float) -> None:
        self._tell(name, at, case=id)
        if not case.acted:
            self._tell("first_automated", at)
        case.acted = True

    def _move(self, row: Row, at: float) -> None:
        id, what, was, to = row["case"], row["what"], row["from"], row["to"]
        case = self.cases.setdefault(id, _Case(None))
        case.state = to
        if what in ("confirm", "reject"):
            self._tell(_DECIDED[what], at, case=id)
            if at >= self.start:
                self.by_machine += row["who"] in _MACHINES
                if case.opened is not None:
                    self.to_decide.append((at - case.opened) / _DAY)
                if not case.acted and case.untold:
                    self.not_told["first_actions"] += 1
            if not (case.acted or case.untold):
                self._tell("first_person", at)
            case.acted = True
        elif what in _DECIDED:
            self._tell(_DECIDED[what], at, case=id)
        elif what == "widen":
            if row.get("in_force"):
                self._tell("widened", at)
            elif "in_force" not in row and at >= self.start:
                self.not_told["widenings"] += 1
        elif what == "probe":
            case.left = was if was != "probing" else case.left
        elif what in ("judge", "set_aside"):
            self._tell(row["outcome"] if what == "judge" else "inconclusive", at)
            if to == "closed" != case.left:
                self._tell("closed", at)
            elif to == "reopened" and case.left == "closed":
                self._tell("reopened", at)
        if to == "overdue" and not case.late:
            case.late = True
            self._tell("became_overdue", at)

    def _matter(self, row: Row, at: float) -> None:
        what, id = row["what"], row["matter"]
        if what in KINDS or what in APPEALS:
            self.matters[id] = _Matter(what, at)
            self._tell(f"{_block(what)}_received", at, matter=id, kind=what)
        elif what in ("uphold", "refuse") and row["to"] != "received":  # else the first of two has proposed it
            kind, matter = row["kind"], self.matters.get(id)
            self._tell(f"{_block(kind)}_{row['to']}", at, matter=id, kind=kind)
            if matter is not None:
                matter.answered = True
                if at >= self.start:
                    self.to_answer[_block(kind)].append((at - matter.at) / _DAY)


def _block(kind: str) -> str:
    return "appeals" if kind in APPEALS else "complaints"


class _Known(NamedTuple):
    """What no row says. `found`: of cases, whether our own detectors had found it; `due`: of complaints and appeals."""

    category: Mapping[str, str]
    found: Mapping[str, bool]
    due: Mapping[str, float]


async def collected(cases: Cases, complaints: Complaints, period: str, *, public: bool = False) -> Row:
    """The report of a half-year (`half`) as JSON values; of one that is not over, as far as it has come. Days are of 24 hours, decimals.

    `public`: the form for everybody. There a figure of fewer than 5 in a breakdown by category is "<5": who knows that somebody reported
    something, or was reported, would read from a count of one what became of it. Every category stands in it, so that "<5" may be none at
    all, and where one figure of a column alone would be hidden the next larger is "5+", so that no subtraction from the total brings it
    back. Operators see every figure.

    Raises RequestError 422, StoreError.
    """
    start, end = half(period)
    now = clock.now()
    rows, head = await cases.chain()
    read = await asyncio.to_thread(_Reading(start, end).whole, rows, head)
    known = await _joined(cases, complaints, read)
    return await asyncio.to_thread(_row, read, known, period, head, len(rows), now, public)


async def _joined(cases: Cases, complaints: Complaints, read: _Reading) -> _Known:
    category, found, due = dict[str, str](), dict[str, bool](), dict[str, float]()
    ids = list(dict.fromkeys(fact.case for fact in read.facts if fact.case))
    for at in range(0, len(ids), _PAGE):
        for case in await cases.several(ids[at : at + _PAGE]):
            category[case.id], found[case.id] = case.category, case.flagged
    waiting = [id for id, matter in read.matters.items() if not matter.answered]
    ids = list(dict.fromkeys([*(fact.matter for fact in read.facts if fact.matter), *waiting]))
    for at in range(0, len(ids), _PAGE):
        for matter in await complaints.several(ids[at : at + _PAGE]):
            due[matter.id] = matter.due
    return _Known(category, found, due)


def _row(read: _Reading, known: _Known, period: str, head: str, rows: int, now: float, public: bool) -> Row:
    year, first = int(period[:4]), 1 if period.endswith("1") else 7
    begins = _months(year, first)
    names = [f"{year}-{first + n:02}" for n in range(6)]
    months: dict[str, Counter[str]] = {name: Counter() for name in names}
    categories: dict[str, Counter[str]] = {}
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in (*KINDS, *APPEALS)}
    stated: Counter[tuple[str, str, bool]] = Counter()
    not_told = read.not_told
    for fact in read.facts:
        month = months[names[bisect_right(begins, fact.at) - 1]]
        month[fact.name] += fact.n
        if fact.case:
            column = "held" if fact.name in _HOLDS else fact.name
            category = known.category.get(fact.case, UNKNOWN)
            if column in _OF_CATEGORY:
                categories.setdefault(category, Counter())[column] += 1
            if column in ("held", "confirmed"):
                found = read.cases[fact.case].ours or known.found.get(fact.case, False)
                stated[column, category, found] += 1
            if column == "cases" and fact.case not in known.category:
                not_told["categories"] += 1
        if fact.matter:
            block, _, outcome = fact.name.rpartition("_")
            kinds[fact.kind][outcome] += 1
            if outcome != "received":
                if (due := known.due.get(fact.matter)) is None:
                    not_told["late"] += 1
                elif fact.at > due:
                    month[f"{block}_late"] += 1
                    kinds[fact.kind]["late"] += 1
    total = sum(months.values(), Counter[str]())
    by_category = {c: {name: categories[c][name] for name in _OF_CATEGORY} for c in _ordered(categories)}
    statements = [_statement(*key, n) for key, n in sorted(stated.items())]
    shown: Mapping[str, Mapping[str, Any]] = by_category
    if public:
        shown = _published(by_category)
        statements = list(_spoken(statements, shown))
    acted = total["first_automated"] + total["first_person"]
    decided = total["confirmed"] + total["rejected"]
    states = Counter(case.state for case in read.cases.values())
    return {
        "half": period,
        "from": _civil(read.start),
        "to": _civil(read.end),
        "complete": now >= read.end,
        "public": public,
        "at": clock.stamp(now),
        "chain": "whole" if read.broken is None else f"broken at row {read.broken}",
        "head": head,
        "rows": rows,
        "reports": _of(total, "reports", "verified", "unverified", "ours", "cases"),
        "decisions": _of(total, "confirmed", "rejected", "undone", "widened")
        | {"days_to_decide": _spread(read.to_decide), "undecided_at_end": sum(states[s] for s in UNDECIDED)},
        "automated": _of(total, *_HOLDS, "lapsed")
        | {
            "first_actions": {"of": acted} | _share(total["first_automated"], acted),
            "decisions": {"of": decided} | _share(read.by_machine, decided),
        },
        "remediation": _of(total, "passed", "failed", "inconclusive", "closed", "excepted", "handed_over", "reopened", "became_overdue")
        | {"overdue_at_end": sum(case.late and case.state in DUTY for case in read.cases.values())},
        **{block: _answered(block, read, known, total, kinds, now) for block in _BLOCKS},
        "conduct": _of(total, *_RULE, *_PERSON, "lifted"),
        "requests": _of(total, "access", "erasure"),
        "changes": _of(total, "entries_added", "entries_removed", "changes", "restored"),
        "by_month": {name: _of(months[name], *COUNTS) for name in names},
        "by_category": shown,
        "statements": statements,
        "not_told": {name: not_told[name] for name in _NOT_TOLD},
    }  # fmt: skip


def _of(counts: Mapping[str, int], *names: str) -> Row:
    return {name: counts.get(name, 0) for name in names}


def _civil(at: float) -> str:
    return datetime.fromtimestamp(at, SHANGHAI).isoformat()


def _share(hits: int, of: int) -> Row:
    return {"automated": hits, "share": round(hits / of, 4) if of else None}


def _spread(days: Sequence[float]) -> Row:
    if not days:
        return {"of": 0, "median": None, "p90": None}
    return {"of": len(days), "median": round(quantile(days, 0.5), 2), "p90": round(quantile(days, 0.9), 2)}


def _answered(
    block: str, read: _Reading, known: _Known, total: Mapping[str, int], kinds: Mapping[str, Mapping[str, int]], now: float
) -> Row:  # fmt: skip
    """Complaints, or appeals. Late: answered after the day that was promised; waiting late: not answered by then."""
    waiting = [id for id, m in read.matters.items() if _block(m.kind) == block and not m.answered]
    until = min(read.end, now)
    return {
        **{outcome: total[f"{block}_{outcome}"] for outcome in _OUTCOMES},
        "waiting_at_end": len(waiting),
        "waiting_late_at_end": sum(known.due.get(id, until) < until for id in waiting),
        "days_to_answer": _spread(read.to_answer[block]),
        "by_kind": {kind: _of(kinds[kind], *_OUTCOMES) for kind in _BLOCKS[block]},
    }


# ---- by category


def _ordered(names: Mapping[str, Any]) -> list[str]:
    """In the taxonomy's order; an id that it no longer has comes last."""
    return [*(c for c in taxonomy() if c in names), *sorted(set(names) - set(taxonomy()))]


def _statement(column: str, category: str, found: bool, count: int) -> Row:
    """How often for the same reasons. A hold is put up by rule and ends by itself or with a decision; a confirmation is a person's."""
    known = taxonomy().get(category)
    return {
        "decision": "hold" if column == "held" else "confirm",
        "decision_ground": f"DECISION_GROUND_{'ILLEGAL' if _lawful(known) else 'INCOMPATIBLE'}_CONTENT",
        "illegal_content_legal_ground": known.clause if known is not None and _lawful(known) else None,
        "category": category,
        "automated_detection": "Yes" if found else "No",
        "automated_decision": f"AUTOMATED_DECISION_{'FULLY' if column == 'held' else 'NOT_AUTOMATED'}",
        "count": count,
    }


def _lawful(category: Category | None) -> bool:
    """A text of the law names it."""
    return category is not None and bool(category.cite or category.law)


def _published(by_category: Mapping[str, Mapping[str, int]]) -> Row:
    """See `collected`."""
    names = [*taxonomy(), *(c for c in by_category if c not in taxonomy())]
    table: dict[str, Row] = {name: {} for name in names}
    for column in _OF_CATEGORY:
        figures = {name: by_category.get(name, {}).get(column, 0) for name in names}
        hidden = [name for name in names if figures[name] < FEW]
        cover = (
            min((n for n in names if n not in hidden), key=figures.__getitem__, default="") if len(hidden) == 1 else ""
        )
        for name in names:
            table[name][column] = f"<{FEW}" if name in hidden else f"{FEW}+" if name == cover else figures[name]
    return table


def _spoken(statements: Sequence[Row], published: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The statements that may be published: none of what is hidden by category, and where either way of detection is few, both as one."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in statements:
        groups.setdefault((row["decision"], row["category"]), []).append(row)
    for (decision, category), rows in groups.items():
        count = published[category]["held" if decision == "hold" else "confirmed"]
        if not isinstance(count, int):
            continue
        if all(row["count"] >= FEW for row in rows):
            yield from rows
        else:
            yield rows[0] | {"automated_detection": None, "count": count}


# ---- as a page, and as a table

NAMES = {
    "reports": "举报 reports", "verified": "凭证已核实 verified by receipt", "unverified": "未核实 unverified",
    "ours": "自动发现 found by our own detectors", "cases": "立案 cases opened", "held": "临时屏蔽 held",
    "held_for_app": "临时屏蔽（全应用）held for an app", "held_for_reporter": "临时屏蔽（仅举报人）held for the reporter",
    "confirmed": "确认 confirmed", "rejected": "驳回 rejected", "undone": "撤销 undone", "widened": "扩大范围 widened",
    "days_to_decide": "审定用时（天）days to decide", "undecided_at_end": "期末待审 undecided at the end",
    "lapsed": "临时屏蔽到期 holds lapsed", "first_actions": "首次处置 first actions", "decisions": "审定 decisions",
    "automated": "自动化 automated", "first_automated": "首次处置为自动 first action automated",
    "first_person": "首次处置为人工 first action by a person", "remediation": "整改 remediation",
    "passed": "复测通过 probes passed", "failed": "复测未通过 probes failed", "inconclusive": "复测无结论 probes inconclusive",
    "closed": "办结 closed", "excepted": "书面例外 excepted", "handed_over": "移交 handed over", "reopened": "重新打开 reopened",
    "became_overdue": "期内新超期 became overdue", "overdue_at_end": "期末超期 overdue at the end",
    "complaints": "投诉 complaints", "appeals": "申诉 appeals", "received": "受理 received", "upheld": "支持 upheld",
    "refused": "不予支持 refused", "late": "逾期答复 answered late", "waiting_at_end": "期末待答复 waiting at the end",
    "waiting_late_at_end": "期末逾期未答复 waiting, late at the end", "days_to_answer": "答复用时（天）days to answer",
    "conduct": "用户处置 conduct of users", "lifted": "解除 lifted", "requests": "个人信息请求 requests about personal information",
    "access": "查阅 access", "erasure": "删除 erasure", "changes": "变更 changes", "entries_added": "新增词条 entries added",
    "entries_removed": "清单移除条目 entries of lists removed", "restored": "存储恢复 store restored from a backup",
    "of": "总数 of", "share": "占比 share", "median": "中位数 median", "p90": "90% 分位 p90", "count": "数量 count",
    "decision": "处置 decision", "category": "类别 category", "by_category": "按类别 by category", "by_month": "按月 by month",
    "by_kind": "按类型 by kind", "not_told": "审计链未载明的 what the chain does not tell",
    **{f"complaints_{o}": f"投诉：{zh} complaints {o}" for o, zh in zip(_OUTCOMES, ("受理", "支持", "不予支持", "逾期"), strict=True)},
    **{f"appeals_{o}": f"申诉：{zh} appeals {o}" for o, zh in zip(_OUTCOMES, ("受理", "支持", "不予支持", "逾期"), strict=True)},
    **{f"rule_{o}": f"规则{zh} by rule: {o}" for o, zh in zip(LEVELS, ("提醒", "限制", "暂停", "终止"), strict=True)},
    **{f"person_{o}": f"人工{zh} by a person: {o}" for o, zh in zip(LEVELS, ("提醒", "限制", "暂停", "终止"), strict=True)},
    "pi_correct": "更正个人信息 correct personal information", "pi_delete": "删除个人信息 delete personal information",
    "pi_block": "屏蔽个人信息 block personal information", "infringement": "侵权 infringement",
    "unlawful_content": "违法内容 unlawful content", "wrong_block": "误拦 wrongly blocked",
    "blocked_prompt": "提问被拒 a refused prompt", "blocked_answer": "回答被拦 a blocked answer", "standing": "用户处置 what was imposed",
}  # fmt: skip
"""What each figure is called."""
_NOT_TOLD = {
    "rows": "不可读的行 rows that cannot be read",
    "holds": "未载明是否对举报人屏蔽的举报 reports that do not say whether they were held for the reporter",
    "first_actions": "因此无法判断的首次处置 first actions that cannot be told for that",
    "widenings": "未载明是否生效的扩大 widenings that do not say whether they took effect",
    "categories": "类别未保存的案件 cases whose category is not kept",
    "late": "期限未保存的答复 answers whose date is not kept",
}
_SECTIONS = (
    "reports",
    "decisions",
    "automated",
    "remediation",
    "complaints",
    "appeals",
    "conduct",
    "requests",
    "changes",
)
_STATED = (
    "decision",
    "decision_ground",
    "illegal_content_legal_ground",
    "category",
    "automated_detection",
    "automated_decision",
    "count",
)
_STYLE = """body{font:15px/1.5 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;max-width:70rem;margin:1rem auto;
padding:0 1rem;color:#1b1f24;background:#fff}table{border-collapse:collapse;font-size:.87rem;width:100%}th,td{text-align:left;
padding:.25rem .6rem;border-bottom:1px solid #d9dee5;vertical-align:top}th{color:#5b6470;font-weight:500}.alarm{color:#b42318;
font-weight:600}h2{font-size:1.15rem;margin-top:1.6rem}div{overflow-x:auto}p{overflow-wrap:anywhere}"""


def html(row: Mapping[str, Any]) -> str:
    """The report as one page: self-contained, no script, Chinese first."""
    alarm = "" if row["chain"] == "whole" else ' class="alarm"'
    so_far = "" if row["complete"] else f" · 截至 as far as {escape(row['at'])}"
    parts = [
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">',
        csp.meta(_STYLE),
        f"<title>透明度报告 Transparency {escape(row['half'])}</title>",
        f"<style>{_STYLE}</style><h1>透明度报告 <small>Transparency report</small> {escape(row['half'])}</h1>",
        f"<p>{escape(row['from'])} – {escape(row['to'])}{so_far}</p>",
        f"<p{alarm}>审计链 audit chain: {escape(row['chain'])}, {row['rows']} 行 rows · {escape(row['head'])}</p>",
    ]
    lines: Iterable[tuple[str, ...]]
    for section in _SECTIONS:
        lines = ((NAMES[name], _cell(value)) for name, value in row[section].items() if name != "by_kind")
        parts.append(_table(NAMES[section], (), lines))
    for block in _BLOCKS:
        kinds = row[block]["by_kind"]
        lines = ((NAMES[kind], *map(_cell, kinds[kind].values())) for kind in kinds)
        parts.append(_table(f"{NAMES[block]}：按类型 by kind", ("", *(NAMES[o] for o in _OUTCOMES)), lines))
    months = row["by_month"]
    lines = ((NAMES[name], *(_cell(months[month][name]) for month in months)) for name in COUNTS)
    parts.append(_table("按月 By month", ("", *months), lines))
    lines = ((_category(c), *map(_cell, figures.values())) for c, figures in row["by_category"].items())
    parts.append(_table("按类别 By category", ("", *(NAMES[name] for name in _OF_CATEGORY)), lines))
    lines = (tuple(_cell(line[name]) for name in _STATED) for line in row["statements"])
    parts.append(_table("处置理由汇总 Statements of reasons", _STATED, lines))
    lines = ((_NOT_TOLD[name], _cell(n)) for name, n in row["not_told"].items())
    parts.append(_table("审计链未载明的 What the chain does not tell", (), lines))
    return "".join(parts) + "</html>\n"


def _table(title: str, head: Sequence[str], lines: Iterable[tuple[str, ...]]) -> str:
    columns = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>" if head else ""
    body = "".join(
        f"<tr><th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in lines
    )
    return f'<h2>{escape(title)}</h2><div tabindex="0"><table>{columns}{body}</table></div>'


def _category(id: str) -> str:
    known = taxonomy().get(id)
    return id if known is None else f"{known.zh} {known.en} ({id})"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{NAMES[k]}: {_cell(v)}" for k, v in value.items())
    return "-" if value is None else str(value)


def csv(row: Mapping[str, Any]) -> str:
    """The report as lines of section, item, figure and value (RFC 4180). A cell that a spreadsheet would take for a formula has an
    apostrophe before it (CWE-1236)."""
    out = io.StringIO()
    lines = writer(out)
    lines.writerow(("section", "item", "figure", "value"))
    for name, value in row.items():
        if name == "statements":
            for line in value:
                figure = " ".join(str(line[k]) for k in _STATED[:-1] if k != "category" and line[k] is not None)
                lines.writerow(map(_guarded, (name, line["category"], figure, line["count"])))
        else:
            for *path, figure, leaf in _leaves(value):
                lines.writerow(map(_guarded, (name, ".".join(path), figure, leaf)))
    return out.getvalue()


def _leaves(value: Any) -> Iterator[tuple[Any, ...]]:
    """What stands in it, each with the way there; of a plain value, that alone."""
    if not isinstance(value, Mapping):
        yield "", value
        return
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from ((name, *found) for found in _leaves(inner))
        else:
            yield name, inner


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
