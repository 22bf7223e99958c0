"""The disclosure: what anybody may know of the service and of the gateway before it. Draft Measures, Articles 6, 10, 17 and 18.

Law: the operator's part is what it has published, word for word, or the plain sentence that it has published nothing; the gateway's part
is made from what is in force at that moment. Never a term, a text of a user or a pseudonym. The page needs no script and nothing from
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app import clock, csp, deliveries, findings, journal, retention, surrogate
from app.policy import Policy
from app.policyfile import GuidanceRule
from app.power import UNNAMED
from app.statements import KINDS, Archive, said, shown
from app.store import feed
from app.store.tables import Row
from app.taxonomy import taxonomy

ROUTE = "/sluice/v1/disclosure"
PAGES = "/sluice/"
"""Where the users' pages are."""
REPORTS, COMPLAINTS = "/sluice/v1/reports", "/sluice/v1/complaints"
_NOTHING = {"zh": "运营者尚未公布", "en": "the operator has published nothing yet"}
_MISSING = {
    "zh": "存储暂不可用，近期数字暂缺",
    "en": "the store does not answer: the figures are missing for now",
}
_UNNAMED = {"zh": "未归入类别（审核不可用时的拦截；未留存回答的申诉）",
            "en": "no category (stopped while moderation was unavailable; appeals about answers nobody kept)"}  # fmt: skip


def collected(policy: Policy, status: Mapping[str, Any], archive: Archive, figures: Row | None) -> Row:
    """The disclosure as JSON values. `status`: which versions this process enforces. `figures`: app.power's, None without."""
    current = archive.current("disclosure")
    rule, reports = policy.rules.guidance, policy.rules.reports
    return {
        "at": clock.stamp(),
        "statement": None if current is None else shown(current) | said(current) | {"url": _url(current)},
        "notice": _NOTHING if current is None else None,
        "profile": policy.profile,
        "versions": {"policy": policy.version, **{k: status[k] for k in ("lexicon", "model", "guard")}},
        "categories": [
            {
                "id": c.id, "zh": c.zh, "en": c.en,
                "clause": {language: c.basis(policy.profile, language) for language in ("zh", "en")},
                "prompt": policy.usual(c.id, "prompt").word, "answer": policy.usual(c.id, "answer").word,
            }
            for c in taxonomy().values()
        ],
        "stored": _stored(policy),
        "periods": {"answered_within_days": reports.days, "not_generated_again_within_months": reports.months},
        "guidance": {"zh": rule.zh, "en": rule.en, "version": rule.version},
        "links": {
            "report": rule.report, "appeal": surrogate.APPEALS, "complaint": COMPLAINTS,
            "authority": _authorities(rule, current),
        },
        "statements": [shown(row) | _name(row) | {"url": _url(row)} for row in archive.public()],
        "power": figures,
        "power_missing": _MISSING if figures is None else None,
    }  # fmt: skip


def _url(row: Row) -> str:
    return f"{ROUTE}/{row['kind']}/{row['number']}"


def _name(row: Row) -> Row:
    zh, en = KINDS[row["kind"]]
    return {"zh": zh, "en": en}


def _authorities(rule: GuidanceRule, current: Row | None) -> list[Row]:
    """Those that the operator names, and the policy's, if it is not among them."""
    named = list(current["fields"].get("report_to_authority", [])) if current is not None else []
    if rule.authority not in [one["url"] for one in named]:
        named.append({"zh": "向主管部门举报", "en": "Report to the authority", "url": rule.authority})
    return named


def _days(name: str) -> int:
    return retention.seconds(name) // retention.DAY


def _stored(policy: Policy) -> list[Row]:
    """What is kept under this policy, and for how long."""
    rules = policy.rules
    lines = [
        ("提问与回答的原文", "Prompts and answers", "不保存", "not kept"),
        ("决定记录：编号、类别、位置、版本；没有原文，没有用户", "Decision records: ids, categories, offsets, versions; no text, no user",
         f"{journal.KEEP_DAYS} 天", f"{journal.KEEP_DAYS} days"),
        ("每小时计数", "Hourly counts", f"{journal.COUNTERS_KEPT // 86400} 天", f"{journal.COUNTERS_KEPT // 86400} days"),
        ("被拒消息的带密钥指纹", "Keyed fingerprints of refused messages", f"{feed.KEPT // 3600} 小时", f"{feed.KEPT // 3600} hours"),
        ("举报、投诉与申诉所附的内容（加密）", "What came with reports, complaints and appeals (encrypted)",
         f"办结为止；案件证据办结后再留 {_days('comments')} 天，确认属实的另留至多十一个月供复测",
         f"until decided; the evidence of a case {_days('comments')} days more, of a confirmed one up to eleven months for probing again"),
        ("案件、决定与审计记录：没有原文", "Cases, decisions and the audit chain: no text", "长期", "kept"),
        ("举报人的带密钥假名", "Keyed pseudonyms of who reported",
         f"办结后 {_days('reporters')} 天", f"{_days('reporters')} days after the end"),
        ("申诉成立后放行的提问：带密钥指纹", "Prompts that an upheld appeal lets through: keyed fingerprints",
         f"{_days('exceptions')} 天", f"{_days('exceptions')} days"),
        ("用户（带密钥假名）的违规次数与决定编号", "Strikes of a user (keyed pseudonym): a count and decision ids", "24 小时", "24 hours"),
        ("对用户的提醒、限制、暂停或终止", "Warnings, limits, suspensions and ends of a user's use",
         f"结束后 {_days('standings')} 天", f"{_days('standings')} days after their end"),
        ("无标识约定：假名与约定版本", "Agreements to go without a visible label: pseudonym and version", "至约定结束", "until they end"),
        ("无标识回答的发放日志：时间、决定编号、假名", "Log of answers that went out without a label: time, decision id, pseudonym",
         f"{_days('unlabelled')} 天", f"{_days('unlabelled')} days"),
    ]  # fmt: skip
    if rules.reports.deliveries:
        lines.append((
            "已送达回答的带密钥痕迹", "Keyed traces of delivered answers", f"{deliveries.KEPT} 天", f"{deliveries.KEPT} days",
        ))  # fmt: skip
    if rules.appeals.hold:
        hours = findings.HELD // 3600
        lines.append((
            "被拦截的回答（加密）", "Blocked answers (encrypted)", f"{hours} 小时，除非有人申诉", f"{hours} hours, unless somebody appeals",
        ))  # fmt: skip
    if rules.reports.runtime:
        named = [taxonomy()[id] for id in rules.reports.runtime if not taxonomy()[id].no_retain]
        lines.append((
            f"下列类别中被停止的回答（加密）：{'、'.join(c.zh for c in named)}",
            f"Stopped answers of these categories (encrypted): {'; '.join(c.en for c in named)}",
            "同案件证据", "as the evidence of a case",
        ))  # fmt: skip
    return [{"what": {"zh": a, "en": b}, "kept": {"zh": c, "en": d}} for a, b, c, d in lines]


# ---- the page

_STYLE = """:root{color-scheme:light dark;--ink:#1b1f24;--soft:#4d5661;--line:#d0d7de;--page:#fff;--link:#0b57a4}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a9b2bd;--line:#3b434c;--page:#15181c;--link:#8ab8f5}}
body{font:16px/1.6 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;max-width:64rem;margin:1rem auto;padding:0 1rem;
color:var(--ink);background:var(--page)}a{color:var(--link)}h2{font-size:1.2rem;margin-top:2rem}[lang=en]{color:var(--soft);
font-size:.9em;font-weight:400}table{border-collapse:collapse;font-size:.9rem;width:100%}caption{text-align:left;padding:.3rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}td.n{text-align:right}
.wide{overflow-x:auto}.said{white-space:pre-wrap;overflow-wrap:anywhere}dt{font-weight:600;margin-top:.8rem}dd{margin:0}
code{overflow-wrap:anywhere}"""
CSP = csp.policy(_STYLE)
_ACTIONS = {
    "pass": ("不处理", "nothing"), "flag": ("放行并记录", "delivered, recorded"), "mask": ("打码", "masked"),
    "replace": ("换成别的回答", "replaced"), "block": ("拦截", "stopped"),
}  # fmt: skip
_FIELDS = {
    "users": ("适用人群", "For whom"), "occasions": ("适用场合", "Occasions"), "uses": ("用途", "Uses"),
    "limits": ("不能做什么", "What it cannot do"), "minors": ("未成年人", "Minors"), "contacts": ("联系方式", "Contacts"),
    "report_to_operator": ("向运营者举报", "Reporting to the operator"),
    "report_to_authority": ("向主管部门举报", "Reporting to the authority"), "filing": ("备案与评估", "Filing and assessment"),
}  # fmt: skip
_FILING = {
    "algorithm_number": ("算法备案编号", "Algorithm filing number"), "model_number": ("模型备案编号", "Model filing number"),
    "url": ("备案查询", "Where it can be looked up"), "assessment_date": ("安全评估日期", "Date of the security assessment"),
}  # fmt: skip
_OURS = {REPORTS: "report", surrogate.APPEALS: "appeal", COMPLAINTS: "complain"}
"""Our routes that take a POST, and the pages from which people send one (app/web/pages)."""


def html(page: Mapping[str, Any], app: str = "") -> str:
    """The disclosure as one page, Chinese first. `app`: the app that was named, for the pages that it leads to."""
    power, statement = page["power"], page["statement"]
    parts = [f"<h1>服务公示 {_en('Disclosure')}</h1><p>{escape(page['at'])}</p>"]
    parts.append(_heading("运营者的说明", "What the operator says"))
    if statement is None:
        parts.append(f"<p>{_both(page['notice'])}</p>")
    else:
        parts += [_fields(statement["fields"]), f"<p>{_line(statement, app)}</p>"]
    parts.append(_heading("使用指引", "Using it well"))
    parts.append(f'<p>{escape(page["guidance"]["zh"])}</p><p lang="en">{escape(page["guidance"]["en"])}</p>')
    parts.append(_heading("举报、投诉与申诉", "Reports, complaints, appeals"))
    links, periods = page["links"], page["periods"]
    parts.append(
        f"<ul><li>举报 {_en('report')}: {_link(links['report'], app)}</li>"
        f"<li>申诉 {_en('appeal')}: {_link(links['appeal'], app)}</li>"
        f"<li>投诉 {_en('complaint')}: {_link(links['complaint'], app)}</li>"
        + "".join(f"<li>{_both(one)}: {_link(one['url'])}</li>" for one in links["authority"])
        + f"</ul><p>{periods['answered_within_days']} 天内答复；确认属实的内容，"
        f"{periods['not_generated_again_within_months']} 个月内使模型不再生成。"
        + _en(
            f"Answered within {periods['answered_within_days']} days; what is confirmed is no longer generated by the model within "
            f"{periods['not_generated_again_within_months']} months."
        )
        + "</p>"
    )
    parts.append(_heading("审核什么，如何处理，用了多少", "What is moderated, how, and how much"))
    parts.append(f"<p>{_totals(power) if power is not None else _both(page['power_missing'])}</p>")
    parts.append(_categories(page["categories"], power))
    parts.append(_heading("保存什么，保存多久", "What is kept, and for how long"))
    parts.append(_table(
        [("内容", "what"), ("期限", "how long")], [[_both(s["what"]), _both(s["kept"])] for s in page["stored"]], "保存期限 retention"
    ))  # fmt: skip
    parts.append(_heading("运营者的文件", "The operator's statements"))
    if page["statements"]:
        parts.append(
            "<ul>" + "".join(f"<li>{_both(row)}: {_line(row, app)}</li>" for row in page["statements"]) + "</ul>"
        )
    else:
        parts.append(f"<p>{_both(_NOTHING)}</p>")
    parts.append(_heading("正在执行的版本", "Versions in force"))
    versions = {"profile": page["profile"], **page["versions"], "guidance": page["guidance"]["version"]}
    parts.append("<ul>" + "".join(f"<li>{k}: <code>{escape(str(v or '-'))}</code></li>" for k, v in versions.items()))
    return _whole("服务公示 Disclosure", "".join(parts) + "</ul>" + _back(app))


def statement_html(row: Row, app: str = "") -> str:
    """One version of one statement as a page. `app`: as for `html`."""
    name = _name(row)
    parts = [
        f"<h1>{escape(name['zh'])} {_en(name['en'])}</h1>",
        f"<p>{_line(shown(row) | {'url': _url(row)}, app)}</p>",
    ]
    content = said(row)
    if "fields" in content:
        parts.append(_fields(content["fields"]))
    parts += [
        f'<div class="said" lang="{tag}">{escape(content[key])}</div><hr>'
        for key, tag in (("zh", "zh-CN"), ("en", "en"))
        if key in content
    ]
    return _whole(
        f"{name['zh']} {name['en']}",
        "".join(parts) + f'<p><a href="{ROUTE}{_query(app)}">服务公示 {_en("Disclosure")}</a></p>',
    )


def _query(app: str) -> str:
    return f"?app={escape(app)}" if app else ""


def _back(app: str) -> str:
    return f'<p><a href="{PAGES}{_query(app)}">举报与申诉首页 {_en("Reports and appeals")}</a></p>'


def _whole(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _en(text: str) -> str:
    return f'<span lang="en">{escape(text)}</span>'


def _both(value: Mapping[str, Any]) -> str:
    return f"{escape(value['zh'])} {_en(value['en'])}"


def _heading(zh: str, en: str) -> str:
    return f"<h2>{zh} {_en(en)}</h2>"


def _link(to: str, app: str = "") -> str:
    """A place to go to; for our own routes that take a POST, the page for people beside it."""
    if to in _OURS:
        page = PAGES + _OURS[to]
        return f'<a href="{page}{_query(app)}">{page}</a> (<code>POST {to}</code>)'
    return f'<a href="{escape(to)}">{escape(to)}</a>' if to.startswith(("/", "http://", "https://")) else escape(to)


def _line(row: Mapping[str, Any], app: str) -> str:
    version = _en(f"version {row['version']}")
    return (
        f'<a href="{escape(row["url"])}{_query(app)}">第 {row["version"]} 版 {version}</a> · {escape(row["at"])} · '
        f"SHA-256 <code>{escape(row['sha256'])}</code>"
    )


def _fields(fields: Mapping[str, Any]) -> str:
    lines = []
    for key, (zh, en) in _FIELDS.items():
        if not (value := fields.get(key)):
            continue
        if key == "report_to_operator":
            text = _link(value)
        elif key == "report_to_authority":
            text = "<br>".join(f"{_both(one)}: {_link(one['url'])}" for one in value)
        elif key == "filing":
            named = {k: _link(v) if k == "url" else escape(v) for k, v in value.items()}
            text = "<br>".join(f"{_FILING[k][0]} {_en(_FILING[k][1])}: {v}" for k, v in named.items())
        else:
            text = (
                f'<div class="said">{escape(value["zh"])}</div><div class="said" lang="en">{escape(value["en"])}</div>'
            )
        lines.append(f"<dt>{zh} {_en(en)}</dt><dd>{text}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def _totals(power: Mapping[str, Any]) -> str:
    days, minutes = power["days"], power["degraded_minutes"]
    return (
        f"近 {days} 天：请求 {power['requests']} 次，停止 {power['blocked']} 次，申诉 {power['appeals']} 件，"
        f"其中改判 {power['reversals']} 件；审核降级 {minutes} 分钟。现有生效条目 {power['live_entries']} 条。"
        + _en(
            f"The last {days} days: {power['requests']} requests, {power['blocked']} stopped, {power['appeals']} appeals, of which "
            f"{power['reversals']} upheld; moderation degraded in {minutes} minutes. Live entries now: {power['live_entries']}."
        )
    )


def _categories(categories: list[Row], power: Mapping[str, Any] | None) -> str:
    columns = [
        ("类别", "category"), ("依据", "clause"), ("提问", "prompts"), ("回答", "answers"), ("生效条目", "live entries"),
        ("停止", "stopped"), ("每万次", "per 10,000"), ("申诉", "appeals"), ("改判", "reversals"),
    ]  # fmt: skip
    rows = []
    for c in [*categories, {"id": UNNAMED, **_UNNAMED}]:
        acts = [
            _both(dict(zip(("zh", "en"), _ACTIONS[c[d]], strict=True))) if d in c else "-" for d in ("prompt", "answer")
        ]
        found = power["categories"][c["id"]] if power is not None else {}
        counts = ("live_entries", "blocked", "per_10000", "appeals", "reversals")
        figures = ["-" if found.get(k) is None else str(found[k]) for k in counts]
        rows.append([_both(c), _both(c["clause"]) if "clause" in c else "-", *acts, *figures])
    return _table(columns, rows, "各类别 by category", numbers=5)


def _table(columns: list[tuple[str, str]], rows: list[list[str]], caption: str, numbers: int = 0) -> str:
    """`rows`: cells that are escaped already, the last `numbers` of them figures."""
    head = "".join(f'<th scope="col">{zh} {_en(en)}</th>' for zh, en in columns)
    words = len(columns) - numbers
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{c}</td>" for c in row[1:words])
        + "".join(f'<td class="n">{c}</td>' for c in row[words:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
