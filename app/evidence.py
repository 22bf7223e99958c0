"""What an auditor is given: article by article, counts, times, cases, probes, versions, and whether the audit chain is whole.

Law: no text of a user and no pseudonym; every figure is read from the store at the moment of the export, and the export says which moment
that was and which versions were in force. The head of the chain is sealed with our key, so that a later export shows whether what an
earlier one saw is still there. What software cannot show is said, not left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from app import changes, clock, csp, deadlines, looks, modelfile, retention, statements, uptime
from app.complaints import APPEALS, KINDS, Complaints, Matter
from app.errors import ModelError
from app.keys import Keys
from app.policy import Policies
from app.remediation import DUTY, ENDED, UNDECIDED, Case
from app.settings import packaged
from app.statements import Archive
from app.store import sweeps
from app.store.cases import Cases, broken
from app.store.tables import Row, Table
from app.taxonomy import taxonomy

_DAY = 86400.0
_DAYS = 30
"""Of counters that an export sums."""


async def collected(
    cases: Cases,
    complaints: Complaints,
    entries: Table,
    policies: Policies,
    keys: Keys,
    replicas: Sequence[Row],
    archive: Archive,
    models: Path | None = None,
) -> Row:
    """The export as JSON values. `replicas`: what the workers enforce. `archive`: the operator's statements. `models`: the folder of
    SLUICE_MODELS. Raises StoreError."""
    now = clock.now()
    rows, head = await cases.chain()
    found = await cases.several(await cases.members("cases:all"))
    matters = await complaints.all()
    at = broken(rows, head)
    live, lists = Counter[str](), Counter[str]()
    for row in entries.rows():
        live[row["category"]] += 1
        lists[row.get("list") or "-"] += 1
    steps = [json.loads(raw) for raw in rows]
    log = changes.listed(steps)
    runs = await sweeps.last(cases.store)
    hours = await uptime.read(cases.store, now)
    assessed = _assessed(archive)
    return {
        "at": clock.stamp(now),
        "versions": {
            "profile": policies.common.profile,
            "policy": policies.common.version,
            "workers": list(replicas),
            "entries": entries.version,
        },
        "audit": {
            "rows": len(rows),
            "head": head,
            "chain": "whole" if at is None else f"broken at row {at}",
            "seal": f"{keys.kid}.{keys.mac('evidence', 'head', head, clock.stamp(now)).hex()}",
            "steps": dict(Counter(step["what"] for step in steps)),
        },
        "articles": {
            "4": {
                "categories": len(taxonomy()),
                "live_entries": dict(sorted(live.items())),
                "lists": dict(sorted(lists.items())),
            },
            "6": {"changes": log, "reassess": None if assessed is None else changes.since(log, assessed)},
            "7": await asyncio.to_thread(_sources, models),
            "8": looks.figures(keys, found, lambda app: policies.of(app).rules.reports.second) | _guide(),
            "9": {"assertions": uptime.counted(hours, now, _DAYS, "identity")},
            "10": _disclosures(archive) | {"notices": uptime.counted(hours, now, _DAYS, "notice")},
            "11": _kept(steps, runs),
            "13": _complaints(matters, now),
            "14": {
                "fail_modes": policies.fail_modes(),
                "fail_mode_changes": changes.fail_modes(log),
                **(await asyncio.to_thread(uptime.figures, hours, now)),
            },
            "15": _remediation(found, now),
            "16": {
                "labels": uptime.counted(hours, now, _DAYS, "label"),
                "agreements": sum(step["what"] == "agreement" for step in steps),
            },
            "17": _statements(archive),
            "18": _guidance(policies, archive),
            "19": _conduct(steps),
        },
        "cases": [_case(case, now) for case in found],
        "not_shown": [
            "whether the training data of the provider's own model is lawful (Article 7): only that of the shipped classifier is listed",
            "who a user is (Article 9)",
            "what a person wrote: no text is in this export, and most of it was never kept",
        ],
    }  # fmt: skip


def _version(row: Row) -> Row:
    line = statements.shown(row, inside=True)
    return {k: line[k] for k in ("version", "at", "sha256", "public")} | {"intact": statements.intact(row)}


def _disclosures(archive: Archive) -> Row:
    current = archive.current("disclosure")
    return {
        "current": None if current is None else current["number"],
        "history": [_version(row) for row in archive.all("disclosure")],
    }


def _conduct(steps: Sequence[Row]) -> Row:
    """What was imposed on subjects, or lifted, step by step: by the rule or by a person, for what category, on what count. What a person
    wrote, and who it was, stands in the audit chain alone."""
    mine = [step for step in steps if "standing" in step and step["what"] not in ("erase", "report")]
    return {
        "actions": dict(Counter(f"{step['what']} ({_by(step)})" for step in mine)),
        "ledger": [
            {"at": step["at"], "by": _by(step), "what": step["what"], "standing": step["standing"]}
            | ({"category": step["reason"], "counts": step["counts"]} if _by(step) == "rule" else {})
            for step in mine
        ],
    }


def _by(step: Row) -> str:
    return "rule" if step["who"] == "rule" else "person"


def _assessed(archive: Archive) -> str | None:
    """The date of the last security assessment, as the operator's disclosure says."""
    current = archive.current("disclosure")
    filing = ((current or {}).get("fields") or {}).get("filing") or {}
    return filing.get("assessment_date")


def _statements(archive: Archive) -> Row:
    """All but the disclosure and the guidance, which have articles of their own."""
    kinds = [kind for kind in statements.KINDS if kind not in ("disclosure", "guidance")]
    return {"documents": {kind: [_version(row) for row in archive.all(kind)] for kind in kinds}}


def _guidance(policies: Policies, archive: Archive) -> Row:
    """What goes with every refusal, by app, and the documents."""
    rules = {"*": policies.common, **policies.apps}
    return {
        "guidance": {
            app: {"version": p.rules.guidance.version, "report": p.rules.guidance.report, "authority": p.rules.guidance.authority}
            for app, p in rules.items()
        },
        "history": [_version(row) for row in archive.all("guidance")],
    }  # fmt: skip


def _kept(steps: Sequence[Row], runs: Mapping[str, Row]) -> Row:
    """What is kept and how long, when it was last swept, how much that erased, and how often persons asked for what is theirs."""
    erased = Counter(step.get("part") for step in steps if step["what"] == "erase")
    what = Counter(step["what"] for step in steps)
    return {
        "requests": {"export": what["privacy_export"], "erase": what["privacy_erase"]},
        "retention": {
            row.name: {
                "where": row.where, "kept": row.kept, "basis": row.basis, "erased_by": row.eraser, "personal": row.personal,
                "last_run": runs.get(row.name, {}).get("at"), "last_erased": runs.get(row.name, {}).get("erased"),
                "erased_rows": erased.get(row.name, 0),
            }
            for row in retention.TABLE
        },
    }  # fmt: skip


def _sources(models: Path | None) -> Row:
    """What the shipped classifier was made from, as far as its model.toml says."""
    try:
        file = None if models is None else modelfile.read(models / "grams")
    except ModelError:
        file = None
    if not isinstance(file, modelfile.GramsFile):
        return {"classifier": None, "sources": [], "texts": 0}
    return {
        "classifier": file.version,
        "texts": sum(source.texts for source in file.sources),
        "sources": [
            source.model_dump(exclude_none=True)
            | {"harmless": source.texts - source.violating, "used_for": _purpose(source)}
            for source in file.sources
        ],
    }


def _purpose(source: modelfile.Source) -> str:
    if not source.violating:
        return "what is not to be flagged"
    return "what is to be flagged" if source.violating == source.texts else "what is to be flagged, and what is not"


def _guide() -> Row:
    """What reviewers decide by, and which edition of it."""
    try:
        raw = (packaged("docs") / "categories.md").read_bytes()
    except OSError:
        return {"guide": None}
    return {"guide": {"file": "docs/categories.md", "sha256": hashlib.sha256(raw).hexdigest()}}


def _complaints(matters: Sequence[Matter], now: float) -> Row:
    late = [m for m in matters if m.state == "received" and now > m.due]
    return {
        "received": len(matters),
        "by_kind": {kind: sum(m.kind == kind for m in matters) for kind in (*KINDS, *APPEALS)},
        "by_outcome": dict(Counter(m.state for m in matters)),
        "late": len(late),
        "subject_blocks": sum(bool(m.entries) for m in matters),
    }


def _remediation(cases: Sequence[Case], now: float) -> Row:
    decided = [(c.decided - c.received) / _DAY for c in cases if c.decided is not None]
    ended = [(c.ended - c.received) / _DAY for c in cases if c.ended is not None and c.state in ENDED]
    open_ = [c for c in cases if c.state in DUTY]
    return {
        "reports": sum(c.reports for c in cases),
        "cases": len(cases),
        "by_state": dict(sorted(Counter(c.state for c in cases).items())),
        "by_category": dict(sorted(Counter(c.category for c in cases).items())),
        "undecided": sum(c.state in UNDECIDED for c in cases),
        "days_to_decide": _spread(decided),
        "days_to_end": _spread(ended),
        "due": len(open_),
        "overdue": sum(now > c.due for c in open_),
        "least_days_left": min((deadlines.days_left(c.due, now) for c in open_), default=None),
        "probes": dict(Counter(p["outcome"] for c in cases for p in c.probes)),
        "exceptions": sum(c.exception is not None for c in cases),
    }


def _spread(days: Sequence[float]) -> Row:
    if not days:
        return {"cases": 0, "median": None, "p90": None}
    ordered = sorted(days)
    return {
        "cases": len(days),
        "median": round(median(ordered), 2),
        "p90": round(ordered[int(0.9 * (len(ordered) - 1))], 2),
    }


def _case(case: Case, now: float) -> Row:
    """One case, as far as an auditor needs it."""
    return {
        "case": case.id, "app": case.app, "category": case.category, "clause": taxonomy()[case.category].clause,
        "state": case.state, "reports": case.reports, "received": clock.stamp(case.received), "due": clock.stamp(case.due),
        "rule": case.rule, "days_left": deadlines.days_left(case.due, now) if case.state in DUTY else None,
        "decided": None if case.decided is None else clock.stamp(case.decided),
        "ended": None if case.ended is None else clock.stamp(case.ended),
        "handed_over": case.handed, "exception": case.exception, "entries": len(case.entries),
        "probes": [
            {
                "at": clock.stamp(p["at"]), "outcome": p["outcome"], "model": p.get("model"), "version": p.get("version"),
                "temperature": p.get("temperature"), "reason": p.get("reason"),
                "sets": {
                    name: {k: s[k] for k in ("judged", "again", "rate", "lower", "upper")} for name, s in p["sets"].items()
                },
            }
            for p in case.probes
        ],
    }  # fmt: skip


_STYLE = """body{font:15px/1.5 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;max-width:70rem;margin:1rem auto;
padding:0 1rem;color:#1b1f24;background:#fff}table{border-collapse:collapse;font-size:.87rem;width:100%}th,td{text-align:left;
padding:.25rem .6rem;border-bottom:1px solid #d9dee5;vertical-align:top}th{color:#5b6470;font-weight:500}.alarm{color:#b42318;
font-weight:600}h2{font-size:1.15rem;margin-top:1.6rem}div{overflow-x:auto}p{overflow-wrap:anywhere}"""
_NAMES = {
    "reports": "举报 reports", "cases": "案件 cases", "by_state": "按状态 by state", "by_category": "按类别 by category",
    "undecided": "待审 undecided", "days_to_decide": "审定用时（天）days to decide", "days_to_end": "办结用时（天）days to end",
    "due": "整改中 in remediation", "overdue": "超期 overdue", "least_days_left": "最短剩余天数 least days left",
    "probes": "复测 probes", "exceptions": "书面例外 written exceptions", "received": "受理 received",
    "by_kind": "按类型 by kind", "by_outcome": "按结果 by outcome", "late": "超期未答复 late",
    "subject_blocks": "个人信息屏蔽 blocks about persons",
    "assertions": "身份凭证（近 30 天）assertions, last 30 days", "notices": "提示（近 30 天）notices, last 30 days",
    "labels": "标识（近 30 天）labels, last 30 days", "agreements": "无标识约定 agreements to go without a label",
    "actions": "处置 actions", "ledger": "处置台账 ledger",
    "current": "现行公示版本 current version", "history": "历次版本 versions", "documents": "文件 documents",
    "guidance": "随拒绝语给出的指引 guidance with a refusal",
    "requests": "查阅与删除请求 requests to export and to erase", "retention": "保存期限 what is kept",
    "lists": "自有清单 operator's lists", "changes": "变更记录 change log", "reassess": "需重新评估 to be assessed again",
    "classifier": "分类模型 classifier", "texts": "文本数 texts", "sources": "数据来源 sources", "decided": "已审定 decided",
    "drawn": "抽中 drawn", "looked_at": "已复核 looked at again", "agreement": "一致率 agreement", "kappa": "Cohen's kappa",
    "second_looks_by_category": "按类别复核 second looks by category", "guide": "审核指引 guide",
    "fail_modes": "故障处置 fail modes", "fail_mode_changes": "故障处置变更 changes of fail modes",
    "replicas": "副本（分钟）replicas, minutes",
    "last_30_days": "近 30 天 last 30 days", "last_90_days": "近 90 天 last 90 days", "last_180_days": "近 180 天 last 180 days",
    "categories": "类别数 categories", "live_entries": "有效条目 live entries",
}  # fmt: skip
_TITLES = {
    "4": "第四条 内容要求 · Article 4, content", "6": "第六条 变更与评估 · Article 6, changes and assessment",
    "7": "第七条 数据来源 · Article 7, data sources of the shipped classifier",
    "8": "第八条 复核与一致性 · Article 8, second looks and agreement",
    "9": "第九条 真实身份 · Article 9, assertions of identity",
    "10": "第十条 服务公示 · Article 10, disclosure",
    "11": "第十一条 个人信息与保存期限 · Article 11, personal information and retention",
    "13": "第十三条 投诉与个人信息 · Article 13, complaints",
    "14": "第十四条 稳定持续 · Article 14, continuous service",
    "15": "第十五条 三个月内优化 · Article 15, not generated again within three months",
    "16": "第十六条 生成标识 · Article 16, labels",
    "17": "第十七条 影响信任与选择的信息 · Article 17, information that affects trust and choice",
    "18": "第十八条 使用指引 · Article 18, guidance for users",
    "19": "第十九条 用户违法行为处置 · Article 19, conduct of users",
}  # fmt: skip


def html(export: Mapping[str, Any]) -> str:
    """The export as one page: self-contained, no script, Chinese first."""
    audit = export["audit"]
    alarm = "" if audit["chain"] == "whole" else ' class="alarm"'
    parts = [
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">',
        csp.meta(_STYLE),
        "<title>合规证据 Evidence</title>",
        f"<style>{_STYLE}</style><h1>合规证据 <small>Evidence</small></h1>",
        f"<p>{escape(export['at'])} · {escape(export['versions']['profile'])} · 策略 policy {escape(export['versions']['policy'])}</p>",
        f"<p{alarm}>审计链 audit chain: {escape(audit['chain'])}, {audit['rows']} 行 rows</p>",
    ]
    for article, figures in export["articles"].items():
        parts.append(f'<h2>{escape(_TITLES[article])}</h2><div tabindex="0"><table>')
        parts += [f"<tr><th>{escape(_NAMES[k])}</th><td>{escape(_said(v))}</td></tr>" for k, v in figures.items()]
        parts.append("</table></div>")
    parts.append('<h2>案件 Cases</h2><div tabindex="0"><table><tr>')
    columns = ("case", "category", "state", "reports", "received", "due", "days_left", "ended")
    parts += [f"<th>{c}</th>" for c in (*columns, "probes")]
    for case in export["cases"]:
        cells = [_said(case[c]) for c in columns]
        cells.append("; ".join(f"{p['at'][:10]} {p['outcome']} {_rates(p)}" for p in case["probes"]))
        parts.append("</tr><tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells))
    parts.append("</tr></table></div><h2>不能证明的 What this does not show</h2><ul>")
    parts += [f"<li>{escape(line)}</li>" for line in export["not_shown"]]
    return "".join(parts) + "</ul></html>\n"


def _rates(probe: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {s['again']}/{s['judged']} (≤{s['upper']:.1%})" for name, s in probe["sets"].items())


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_said, value)) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_said(v)}" for k, v in value.items()) or "-"
    return "-" if value is None else str(value)
