"""The words a person sees instead of what was stopped. Law: names category, clause and decision; passes our own detectors.

The language follows the person's own text: Chinese where it has any Han character or none to go by, else English.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.policy import Policy
from app.taxonomy import taxonomy
from app.text import has_han
from app.types import Slot, Verdict

NOTE = "（此前的一条消息未通过审核，内容已略去。An earlier message was not passed on.）"
"""Stands upstream for a message that was refused."""

APPEALS = "/sluice/v1/appeals"

_SAMPLE = 2000
"""Characters looked at to tell the language."""
_SOURCE = {"zh": "来源：", "en": "Source: "}
_CORRECTED = {
    "zh": "（以上更正代替了原回答。涉及“{category}”，依据：{clause}。如认为有误，请凭决定编号申诉：{decision}）",
    "en": "(This correction stands in place of the answer. It concerns “{category}”, basis: {clause}. If you think this is wrong, "
    "appeal with the decision id: {decision})",
}
_DEGRADED = {"zh": "审核暂不可用", "en": "moderation unavailable"}


def language(slots: Sequence[Slot]) -> str:
    """'zh' or 'en', by the newest text of a user."""
    for slot in reversed([s for s in slots if s.origin == "user" and (s.message >= 0 or s.path[0] == "prompt")]):
        sample = slot.text[:_SAMPLE]
        if has_han(sample):
            return "zh"
        if any(map(str.isalpha, sample)):
            return "en"
    return "zh"


def text(policy: Policy, verdict: Verdict, decision: str, language: str) -> str:
    """The surrogate for a verdict."""
    rules = policy.rules.surrogates
    template = rules.get(verdict.category or "", rules["default"])
    category = taxonomy().get(verdict.category or "")
    name = getattr(category, language) if category else _DEGRADED[language]
    clause = category.basis(policy.profile, language) if category else "-"
    where = policy.rules.guidance
    return str(getattr(template, language)).format(
        category=name, clause=clause, decision=decision, report=where.report, authority=where.authority
    )


def guidance(policy: Policy, language: str) -> dict[str, str]:
    """What goes with a refusal: how answers are used well, and where to report and to appeal."""
    rule = policy.rules.guidance
    return {
        "text": str(getattr(rule, language)),
        "report": rule.report,
        "appeal": APPEALS,
        "authority": rule.authority,
    }


def corrected(policy: Policy, verdict: Verdict, decision: str, language: str, right: Mapping[str, str]) -> str:
    """The surrogate where it is known what is right: that, where it can be read, and what every surrogate names. `right`: zh, en, and
    maybe source, as the owner of an entry wrote them."""
    category = taxonomy()[verdict.category or ""]
    name, clause = getattr(category, language), category.basis(policy.profile, language)
    source = f"\n{_SOURCE[language]}{right['source']}" if "source" in right else ""
    return f"{right[language]}{source}\n{_CORRECTED[language].format(category=name, clause=clause, decision=decision)}"
