"""A policy file before it is loaded: what is wrong with it, and what it would change.

Law: pure, and never raises for what stands in the file; of that it says no more than the reader does. What is compared is what would be
done, not what is written: a key that says what holds anyway changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from app.errors import PolicyError
from app.policy import Policies, Policy, parse
from app.policyfile import MODES, Mode, Rules
from app.taxonomy import taxonomy
from app.types import Direction

BYTES = 256 << 10
"""Of a file at most."""
SECTIONS = 500
"""Of apps at most: each is read in every mode."""
_ERRORS = 100
"""Told at most."""
_NAME = "policy.yaml"
_LINE = re.compile(r"line (\d+)\)?\Z")
_ACTIONS: tuple[Direction, ...] = ("answer", "prompt")
_At = tuple[str, frozenset[Mode]]
"""An app's id ('' for the common rules), and the modes that are laid over."""


def policy_check(raw: bytes | str, current: Policies) -> dict[str, Any]:
    """What would come of a policy file in the place of `current`. JSON: `ok`; `errors`, `[{"where": key or line, "message"}]`; `version`
    that it would have; `changes`, `[{"app", "mode", "category", "direction", "from", "to"}]`, of every category and direction for which
    something else would be done; `rules`, `[{"app", "mode", "rule": dotted name, "from", "to"}]`, of everything else. `app`: '*' for the
    common rules; `mode`: null, or what is laid over them (minors, restricted, restricted+minors). Of a mode, and of an app's other rules,
    only what does not change in the same way without it, or for all."""
    try:
        raw = raw.encode() if isinstance(raw, str) else raw
        if len(raw) > BYTES:
            raise PolicyError(f"{_NAME}: larger than {BYTES >> 10} KiB")
        policies = parse(raw, _NAME, SECTIONS)
    except UnicodeEncodeError:
        return _refused(PolicyError(f"{_NAME}: not text (it holds half of a surrogate pair)"))
    except PolicyError as e:
        return _refused(e)
    changes: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    done: dict[_At, dict[Any, Any]] = {}
    for at in _sections(current, policies):
        app, modes = at
        old, new = current.of(app, modes), policies.of(app, modes)
        where = {"app": app or "*", "mode": "+".join(MODES[m] for m in MODES if m in modes) or None}
        acts = done[at] = dict(_acts(old, new))
        below = [done[app, frozenset(fewer)] for n in range(len(modes)) for fewer in combinations(modes, n)]
        common = [done["", modes]] if app else []
        changes += [
            where | {"category": category, "direction": direction, "from": was, "to": will}
            for (category, direction), (was, will) in acts.items()
            if not modes or _new((category, direction), (was, will), [*below, *common])
        ]
        others = dict(_others(old, new))
        acts |= others
        rules += [
            where | {"rule": name, "from": was, "to": will}
            for name, (was, will) in others.items()
            if _new(name, (was, will), [*below, *common])
        ]
    return {"ok": True, "errors": [], "version": policies.common.version, "changes": changes, "rules": rules}


def _new(what: Any, change: tuple[Any, Any], below: list[dict[Any, Any]]) -> bool:
    return all(what not in one or one[what] != change for one in below)


def _refused(e: PolicyError) -> dict[str, Any]:
    lines = str(e).splitlines()
    errors = [_fault(line.removeprefix(f"{_NAME}: ")) for line in lines[:_ERRORS]]
    if len(lines) > _ERRORS:
        errors.append({"where": "", "message": f"and {len(lines) - _ERRORS} more"})
    return {"ok": False, "errors": errors, "version": None, "changes": [], "rules": []}


def _fault(said: str) -> dict[str, str]:
    """One line of the reader, as where and what."""
    if found := _LINE.search(said):
        return {"where": f"line {found[1]}", "message": said}
    where, _, message = said.partition(": ")
    return {"where": where, "message": message} if message else {"where": "", "message": said}


def _sections(current: Policies, policies: Policies) -> Iterator[_At]:
    """Those of both, the common one first, each before its modes."""
    none: frozenset[Mode] = frozenset()
    laid = sorted(
        {modes for _, modes in current.modes} | {modes for _, modes in policies.modes},
        key=lambda m: (len(m), sorted(m)),
    )
    for app in ("", *sorted({*current.apps, *policies.apps})):
        yield app, none
        yield from ((app, modes) for modes in laid)


def _acts(old: Policy, new: Policy) -> Iterator[tuple[tuple[str, Direction], tuple[str, str]]]:
    for category in taxonomy():
        for direction in _ACTIONS:
            was, will = _word(old, category, direction), _word(new, category, direction)
            if was != will:
                yield (category, direction), (was, will)


def _word(policy: Policy, category: str, direction: Direction) -> str:
    """What is done about a sure finding, in the words of the file."""
    word = policy.usual(category, direction).word
    return "regenerate" if word == "replace" and direction == "answer" and policy.regenerates(category) else word


def _others(old: Policy, new: Policy) -> Iterator[tuple[str, tuple[Any, Any]]]:
    was, will = dict(_said(old)), dict(_said(new))
    for name in sorted({*was, *will}):
        if was.get(name) != will.get(name):
            yield name, (was.get(name), will.get(name))


def _said(policy: Policy) -> Iterator[tuple[str, Any]]:
    """Everything but the actions, by its dotted name."""
    yield "profile", policy.profile
    yield "unmoderated_routes", sorted(policy.unmoderated_routes)
    for name, value in policy.rules.model_dump(mode="json", include=set(Rules.model_fields)).items():
        if name == "categories":
            value = {id: {k: v for k, v in rule.items() if k not in _ACTIONS and v} for id, rule in value.items()}
        yield from _flat(name, value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(f"{name}.{key}", inner)
