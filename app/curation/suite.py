"""A suite of disguises and look-alikes, put through the engine with a list of terms of its own.

Owns the way to screen with these terms only, which `sluice check --terms` takes too, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from app.curation.files import objects
from app.curation.trial import SCOPE
from app.detectors.lexicon import Lexicon, Term, check
from app.errors import LexiconError
from app.moderation import Moderator, conclude
from app.policy import Policies, Policy
from app.policyfile import CategoryRule, Rules
from app.taxonomy import taxonomy
from app.types import Action, Tier, Verdict


@dataclass(slots=True)
class Tally:
    """Of one technique or kind: by language (found, all), and the ids of what went wrong."""

    by_language: dict[str, tuple[int, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return sum(found for found, _ in self.by_language.values())

    @property
    def all(self) -> int:
        return sum(count for _, count in self.by_language.values())

    def count(self, row: dict[str, str], found: bool, wanted: bool) -> None:
        had, count = self.by_language.get(row["lang"], (0, 0))
        self.by_language[row["lang"]] = had + found, count + 1
        if found is not wanted:
            self.wrong.append(row["id"])


@dataclass(slots=True)
class Suite:
    """A measured suite. `recall`: by technique; `false`: by kind of clean sentence; the context file: flagged, stopped, all."""

    recall: dict[str, Tally] = field(default_factory=dict)
    false: dict[str, Tally] = field(default_factory=dict)
    context: int = 0
    flagged: int = 0
    stopped: list[str] = field(default_factory=list)


def measure(folder: Path, phrases: Sequence[str]) -> Suite:
    """Put the sentences of a suite folder (cases, clean, context .jsonl) through the engine with its terms.jsonl only; every
    category blocks. The context file meets the terms as suspect. Raises LexiconError if a file is missing or a line is wrong."""
    listed = terms(folder / "terms.jsonl")
    made = Suite()
    moderator = only(listed, phrases)
    for row in _rows(folder / "cases.jsonl", "technique"):
        found = any(f.action > Action.PASS for f in _verdict(moderator, row["text"]).findings)
        made.recall.setdefault(row["technique"], Tally()).count(row, found, wanted=True)
    for row in _rows(folder / "clean.jsonl", "kind"):
        found = bool(_verdict(moderator, row["text"]).findings)
        made.false.setdefault(row["kind"], Tally()).count(row, found, wanted=False)
    moderator = only([replace(term, tier="suspect") for term in listed], phrases)
    for row in _rows(folder / "context.jsonl", "kind"):
        action = _verdict(moderator, row["text"]).action
        made.context += 1
        made.flagged += action is Action.FLAG
        if action.stops:
            made.stopped.append(row["id"])
    return made


def only(terms: Iterable[Term], phrases: Iterable[str], policies: Policies | None = None) -> Moderator:
    """The engine with these terms and no other detector. Without `policies` every category blocks."""
    if policies is None:
        rules = Rules(categories={id: CategoryRule(answer="block", prompt="block") for id in taxonomy()})
        policies = Policies(Policy(rules, "draft_2023_04", "terms"), {})
    lexicon = Lexicon(terms, phrases)
    return Moderator([lexicon], policies, [lexicon])


def terms(file: Path) -> list[Term]:
    """JSON lines of term, category and tier (certain if absent). Raises LexiconError with file and line."""
    made = []
    for where, row in objects(file):
        if not _strings(row, "term", "category"):
            raise LexiconError(
                f'{where}: must be an object like {{"term": "…", "category": "violence", "tier": "certain"}}'
            )
        if extra := sorted(set(row) - {"term", "category", "tier"}):
            raise LexiconError(f"{where}: unknown key {extra[0]!r}")
        made.append(check(Term(row["term"].strip(), row["category"], cast("Tier", row.get("tier", "certain"))), where))
    return made


def _rows(file: Path, label: str) -> Iterator[dict[str, str]]:
    """Objects with id, lang, text and `label`, all strings."""
    wanted = ("id", "lang", "text", label)
    for where, row in objects(file):
        if not _strings(row, *wanted):
            raise LexiconError(f"{where}: must be an object with the strings {', '.join(wanted)}")
        yield row


def _strings(row: object, *names: str) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in names)


def _verdict(moderator: Moderator, text: str) -> Verdict:
    policy = moderator.policies.common
    channel = moderator.channel(SCOPE, policy)
    channel.push(text)
    channel.finish()
    return conclude([channel], policy, SCOPE)
