"""Policy decides, never finds. Law: pure (findings in, actions out), loaded whole or not at all.

What each category means and its default action stand in app/taxonomy.py; what an operator may change, in app/policyfile.py.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import combinations, product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import PolicyError
from app.policyfile import (
    MODES,
    CategoryRule,
    DegradedRule,
    Mode,
    PolicyFile,
    Rules,
    SuspectRule,
    check,
    explain,
    read_yaml,
)
from app.taxonomy import OF_WORD, Profile, taxonomy
from app.types import Action, Candidate, Direction, Finding

_COMBINED = tuple(frozenset(c) for n in (1, 2) for c in combinations(MODES, n))


class Policy:
    """One set of rules, ready to decide. Immutable; a reload makes a new one."""

    def __init__(self, rules: Rules, profile: Profile, version: str, unmoderated_routes: Iterable[str] = ()) -> None:
        self.rules, self.profile, self.version = rules, profile, version
        self.unmoderated_routes = frozenset(unmoderated_routes)
        self.shadow = frozenset(rules.shadow)
        self._cap = Action.BLOCK
        self._excepted: frozenset[str] = frozenset()
        self._regenerate = frozenset(id for id, rule in rules.categories.items() if rule.answer == "regenerate")
        self._actions: dict[tuple[str, Direction], Action] = {}
        self._off: dict[str, frozenset[str]] = {}
        self._scores = {id: rule.score for id, rule in rules.categories.items() if rule.score is not None}
        for category in taxonomy().values():
            rule = rules.categories.get(category.id, CategoryRule())
            off = profile == "interim_2023_08" and category.origin == "draft_only"
            answer = category.answer if rule.answer is None else OF_WORD[rule.answer]
            prompt = category.prompt if rule.prompt is None else OF_WORD[rule.prompt]
            self._actions[category.id, "answer"] = Action.PASS if off else answer
            self._actions[category.id, "prompt"] = Action.PASS if off else prompt
            self._off[category.id] = frozenset(rule.techniques_off)

    def action(self, candidate: Candidate, direction: Direction, techniques: Set[str] = frozenset()) -> Action:
        """A live entry does what its owner chose; a suspect term flags at most; else the category's action. A technique
        that is switched off for the category or the term makes it pass (never a live entry)."""
        if (
            candidate.action is None
            and techniques
            and not techniques.isdisjoint(self._off[candidate.category] | candidate.off)
        ):
            return Action.PASS
        if candidate.tier in ("cleared", "unsure") or candidate.category in self._excepted:
            return Action.PASS
        action = self._actions[candidate.category, direction] if candidate.action is None else candidate.action
        return min(action, self._cap, Action.FLAG if candidate.tier == "suspect" else Action.BLOCK)

    def scored(self, candidate: Candidate) -> Candidate:
        """A scorer's candidate: a suspicion from the category's score on, below it a reason to ask. Never more than that."""
        least = self._scores.get(candidate.category)
        if least is not None:
            return replace(candidate, tier="suspect" if candidate.score >= least else "unsure")
        return candidate if candidate.tier in ("unsure", "cleared") else replace(candidate, tier="suspect")

    def confirmed(self, candidate: Candidate, suspected: Set[str]) -> Candidate:
        """A guard's candidate: certain where something else suspects its category too, or where it may act alone."""
        if candidate.tier == "suspect" and (candidate.category in suspected or self.rules.guard.alone == "act"):
            return replace(candidate, tier="certain")
        return candidate

    def raised(self, candidate: Candidate, start: int, earlier: Iterable[Finding]) -> Candidate:
        """The candidate (which begins at `start` of the text), as certain where a second signal stands beside it: among
        the `earlier` settled findings of its category. What was let go before the second signal stays so."""
        rule = self.rules.suspects
        if candidate.tier != "suspect" or not (rule.near or rule.count):
            return candidate
        near = rule.near and any(f.rule != candidate.rule and start - f.end <= rule.near for f in earlier)
        if near or (rule.count and len({f.start for f in earlier} | {start}) >= rule.count):
            return replace(candidate, tier="certain", raised=True)
        return candidate

    def usual(self, category: str, direction: Direction) -> Action:
        """What is done about a sure finding of `category` that nothing else is known of."""
        return min(
            self._actions[category, direction], self._cap, Action.PASS if category in self.shadow else Action.BLOCK
        )

    def capped(self, action: Action) -> Policy:
        """The same policy doing at most `action`."""
        policy = copy.copy(self)
        policy._cap = min(action, self._cap)
        if action <= Action.FLAG and self.rules.degraded.guard == "block":
            degraded = self.rules.degraded.model_copy(update={"guard": "flag"})
            policy.rules = self.rules.model_copy(update={"degraded": degraded})
        return policy

    def excepting(self, categories: frozenset[str]) -> Policy:
        """The same policy, doing nothing about these categories."""
        policy = copy.copy(self)
        policy._excepted = categories
        return policy

    def no_weaker(self, than: Policy) -> Policy:
        """The same policy, doing no less about any category than another one."""
        policy = copy.copy(self)
        policy._actions = {key: max(action, than._actions[key]) for key, action in self._actions.items()}
        return policy

    def shadowing(self, rules: frozenset[str]) -> Policy:
        """The same policy, with these rules in shadow besides."""
        policy = copy.copy(self)
        policy.shadow = self.shadow | rules
        policy.version = f"{self.version}+{hashlib.sha256(repr(sorted(rules)).encode()).hexdigest()[:6]}"
        return policy

    @property
    def regenerating(self) -> bool:
        """Some category asks the model once more."""
        return bool(self._regenerate)

    def regenerates(self, category: str) -> bool:
        """An answer stopped for `category` is asked for once more."""
        return category in self._regenerate

    def stands_in(self, category: str) -> bool:
        """The answer of a model that stands in may be shown; not where the category has words of its own, as help has."""
        return category not in self.rules.surrogates

    def shadowed(self, candidate: Candidate) -> bool:
        """True where policy computes the action but does not apply it: by rule, category or detector."""
        return bool(self.shadow) and not self.shadow.isdisjoint(
            (candidate.rule, candidate.category, candidate.detector)
        )

    def degraded(self, direction: Direction) -> Action | None:
        """The action when a detector could not answer; None: the request is unavailable."""
        word = getattr(self.rules.degraded, direction)
        return None if word == "unavailable" else OF_WORD[word]


def strictest(findings: Iterable[Finding]) -> Finding | None:
    """The finding that decides: highest action, then the earliest. Shadow findings decide nothing."""
    applied = [f for f in findings if not f.shadow]
    return max(applied, key=lambda f: (f.action, -f.start), default=None)


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of every app: its own section over the common one. `modes`: by section ('' for the common one) and what is laid over."""

    common: Policy
    apps: dict[str, Policy]
    modes: dict[tuple[str, frozenset[Mode]], Policy] = field(default_factory=dict)

    def of(self, section: str, modes: frozenset[Mode] = frozenset()) -> Policy:
        if modes:
            return self.modes[section if section in self.apps else "", modes]
        return self.apps.get(section, self.common)

    def fail_modes(self) -> dict[str, dict[str, str]]:
        """What is to happen when a detector fails: of all, and of the apps and modes that have it otherwise."""
        common = self.common.rules.degraded.model_dump()
        modes = {"+".join((at or "*", *sorted(m))): policy for (at, m), policy in self.modes.items()}
        own = {name: p.rules.degraded.model_dump() for name, p in sorted({**self.apps, **modes}.items())}
        return {"*": common} | {name: words for name, words in own.items() if words != common}

    def shadowing(self, rules: frozenset[str]) -> Policies:
        """The same, with these rules in shadow besides: those that were reversed too often and wait for a review."""
        if not rules:
            return self
        return Policies(
            self.common.shadowing(rules),
            {app: policy.shadowing(rules) for app, policy in self.apps.items()},
            {key: policy.shadowing(rules) for key, policy in self.modes.items()},
        )


def _merge(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(common)
    for key, value in own.items():
        merged[key] = (
            _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged


def _least(*values: float) -> Any:
    """The lowest that is a limit: 0 is none."""
    return min((v for v in values if v), default=0)


def _stricter(rules: Rules, below: Rules) -> Rules:
    """Rules that were laid over others, where they would loosen them as strict as those."""
    order = ("pass", "flag", "block", "unavailable")
    degraded = {
        name: max(getattr(rules.degraded, name), getattr(below.degraded, name), key=order.index)
        for name in DegradedRule.model_fields
    }
    notices = {name: _least(getattr(rules.notices, name), getattr(below.notices, name)) for name in ("hours", "turns")}
    return rules.model_copy(
        update={
            "pace": _least(rules.pace, below.pace),
            "suspects": SuspectRule(
                near=max(rules.suspects.near, below.suspects.near),
                count=_least(rules.suspects.count, below.suspects.count),
            ),
            "degraded": DegradedRule(**degraded),
            "notices": rules.notices.model_copy(update=notices),
            "stream": below.stream if below.stream.mode == "strict" and rules.stream.mode != "strict" else rules.stream,
            "media": below.media if below.media.not_examined == "refuse" else rules.media,
        }
    )


def parse(raw: bytes, name: str = "policy.yaml", most: int | None = None) -> Policies:
    """Raises PolicyError that names the key at fault. `most`: sections of apps at most; unset: any number."""
    value = read_yaml(raw, name)
    shipped = read_yaml((files("app") / "policy.yaml").read_bytes(), "policy.yaml")
    for key in ("surrogates", "guidance", *MODES.values()):
        words = shipped.get(key, {})
        value[key] = _merge(words, value[key]) if isinstance(value.get(key), dict) else value.get(key, words)
    try:
        file = PolicyFile.model_validate(value)
    except ValidationError as e:
        raise PolicyError(explain(e, name)) from None
    if most is not None and len(file.apps) > most:
        raise PolicyError(f"{name}: apps: more than {most} sections")

    def valid(section: dict[str, Any], *above: str) -> Rules:
        try:
            return Rules.model_validate(section)
        except ValidationError as e:
            raise PolicyError(explain(e, name, *above)) from None

    common = {k: v for k, v in value.items() if k in Rules.model_fields}
    sections = {"": common} | {app: _merge(common, section or {}) for app, section in file.apps.items()}
    own = {app: valid(section, "apps", app) for app, section in sections.items() if app}
    overlaid: dict[tuple[str, frozenset[Mode]], Rules] = {}
    for at, modes in product(sections, _COMBINED):
        section, laid = sections[at], [MODES[mode] for mode in MODES if mode in modes]
        for above in laid:
            section = _merge(section, getattr(file, above))
        overlaid[at, modes] = _stricter(valid(section, *laid), own.get(at, file))
    check(
        file,
        own,
        {"".join(f"{MODES[m]}." for m in MODES if m in modes): r for (at, modes), r in overlaid.items() if not at},
    )
    version = hashlib.sha256(raw).hexdigest()[:12]

    def made(rules: Rules, *modes: str) -> Policy:
        return Policy(rules, file.profile, "+".join((version, *sorted(modes))), file.unmoderated_routes)

    policies = Policies(made(file), {app: made(rules) for app, rules in own.items()})
    policies.modes.update((key, made(rules, *key[1]).no_weaker(policies.of(key[0]))) for key, rules in overlaid.items())
    return policies


def load(path: Path) -> Policies:
    """Read and check a policy file. Raises PolicyError."""
    try:
        return parse(path.read_bytes(), str(path))
    except OSError as e:
        raise PolicyError(f"{path}: cannot be read ({e.strerror}); set SLUICE_POLICY to a readable file") from None
