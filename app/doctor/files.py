"""What the operator's files say: policy, apps, lexicons, the scorer; and where they do not fit one another."""

from __future__ import annotations

from collections.abc import Iterator

from app import apps, policy
from app.detectors import classifier
from app.detectors.lexicon import Lexicon, load
from app.doctor.symptoms import Symptom, fact, fault, warning
from app.policy import Policy
from app.settings import Settings
from app.taxonomy import taxonomy
from app.types import Action, Direction

_STOPPING = frozenset({"blocklist", "passages", "lexicon", "rules", "patterns"})
"""Detectors whose findings may stop a text by themselves."""
_BOTH: tuple[Direction, Direction] = ("prompt", "answer")


def rules(conf: Settings) -> Iterator[Symptom]:
    """The policy file, and the sections that apps ask for."""
    loaded, known = policy.load(conf.policy), apps.load(conf.apps)
    yield fact(f"{loaded.common.profile}, version {loaded.common.version}, {len(loaded.apps)} app sections")
    # An app that names no section has one of its own name, or the common rules: both are meant. A name that was written down is not.
    for app in sorted(known.all, key=lambda app: app.id):
        if app.policy != app.id and app.policy not in loaded.apps:
            yield fault(
                f"SLUICE_APPS: apps.{app.id}.policy is {app.policy!r}, which SLUICE_POLICY does not have under `apps`: the common rules "
                "are in force for it; add the section, or correct the name"
            )
    for unused in sorted(set(loaded.apps) - {app.policy for app in known.all}):
        yield warning(
            f"SLUICE_POLICY: no app of SLUICE_APPS uses the section apps.{unused}: correct the name or take it out"
        )
    if not _stops(loaded.common):
        yield warning(
            "SLUICE_POLICY: everything that could stop a text is in `shadow`: nothing is stopped; take out what shall act"
        )
    for name, own in sorted(loaded.apps.items()):
        if _stops(loaded.common) and not _stops(own):
            yield warning(
                f"SLUICE_POLICY: apps.{name}: everything that could stop a text is in `shadow`; take out what shall act"
            )


def _stops(rules: Policy) -> bool:
    """Does it stop anything, as far as that hangs on what is in shadow?"""
    acts = any(rules.usual(id, direction) > Action.FLAG for id in taxonomy() for direction in _BOTH)
    return not rules.shadow or (acts and not rules.shadow >= _STOPPING - {"passages"})


def users(conf: Settings) -> Iterator[Symptom]:
    """Who vouches for users, and whether the policy asks for what nobody can give."""
    loaded, told = policy.load(conf.policy), []
    for app in sorted(apps.load(conf.apps).all, key=lambda app: app.id):
        known = "subjects" if app.subject_header or app.identity is not None else "no subjects"
        vouched = "vouched for" if app.identity is not None else "nobody vouches"
        if loaded.of(app.policy).rules.identity.missing == "refuse" and app.identity is None:
            yield fault(
                f"{app.id}: the policy refuses users for whom nobody vouches, and the apps file names nobody who could: every request "
                "would be refused (apps file: identity)"
            )
        told.append(f"{app.id}: {vouched}, {known}")
    yield fact("; ".join(told))


def labels(conf: Settings) -> Iterator[Symptom]:
    """How answers are labelled."""
    rule = policy.load(conf.policy).common.rules.labels
    producer = (
        rule.producer
        or "none: no metadata is prepared and no pictures are served until the policy names labels.producer"
    )
    shown = " (your app shows sluice.label)" if rule.mode == "interface" else ""
    yield fact(f"{rule.mode}{shown}, producer {producer}")


def lexicons(conf: Settings) -> Iterator[Symptom]:
    """The terms."""
    lexicon = Lexicon(load(conf.lexicons))
    yield fact(f"{len(lexicon)} terms, version {lexicon.version}")


def scorer(conf: Settings) -> Iterator[Symptom]:
    """The shipped scorer."""
    loaded = classifier.load(conf.models)
    assert loaded.grams is not None
    yield fact(f"{len(loaded.grams.categories)} categories, version {loaded.version}")
