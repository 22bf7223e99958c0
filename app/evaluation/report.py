"""The figures of a measurement. Law: pure; every share comes with its one-sided bounds; what cannot be said of no texts is NaN, and null
in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from app import figures
from app.evaluation.aspects import CAUGHT, EACH, IN_ALL, REFUSED, RISKS, TOPICS, Aspect
from app.evaluation.measurement import Outcome
from app.taxonomy import taxonomy

SCORE_BINS = 20
Standing = Literal["passed", "not passed", "not shown"]


@dataclass(frozen=True, slots=True)
class Share:
    """`lower`, `upper`: each by itself bounds the share with 95% confidence."""

    hits: int
    of: int
    share: float
    lower: float
    upper: float


def share(outcomes: Sequence[Outcome], is_hit: Callable[[Outcome], bool]) -> Share:
    hits, of = sum(map(is_hit, outcomes)), len(outcomes)
    return Share(hits, of, hits / of if of else math.nan, figures.lower(hits, of), figures.upper(hits, of))


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that have something in common. Of the violating ones: `recall` (flagged or more), `blocked` (blocked or replaced),
    `attributed` (one of the categories found is the row's; of rows that name one). Of the harmless ones: `false_flags`,
    `false_blocks`. `auc`: of the highest score."""

    recall: Share
    blocked: Share
    attributed: Share
    false_flags: Share
    false_blocks: Share
    auc: float


@dataclass(frozen=True, slots=True)
class OfCategory(Group):
    """`own_auc`: of the category's own score, against all harmless texts. `f1`: of telling the category."""

    own_auc: float
    f1: float


@dataclass(frozen=True, slots=True)
class OfAspect:
    """A risk type or an aspect in a gate."""

    flagged: Share
    refused: Share
    standing: Standing
    enough: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure that the assessment asks for. `flagged`: flagged or more; `refused`: blocked or replaced."""

    by: Literal["flagged", "refused"]
    """Which of them `asked` is held against, in `standing`."""
    asked: float
    flagged: Share
    refused: Share
    standing: Standing
    standing_refused: Standing
    """That of `refused`: what is flagged is delivered, and who assesses a service counts refusals."""
    enough: bool
    """The bank is large enough, in all and of each type or aspect."""
    texts_asked: int
    each_asked: int
    short: list[str]
    """Types or aspects of which there are too few texts."""
    aspects: dict[str, OfAspect]

    def judged(self, part: Gate | OfAspect) -> Share:
        """The share of the gate, or of a part of it, that is held against `asked`."""
        return part.flagged if self.by == "flagged" else part.refused


class Cost(NamedTuple):
    """Microseconds of one text."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Bank:
    """A file that was read. `faulty`: rows that were refused; `undecided`: rows of label 2, which count in no figure."""

    file: str
    sha256: str
    rows: int
    undecided: int
    faulty: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured: the gateway's version of each thing that judges."""

    at: str
    direction: str
    profile: str
    policy: str
    scorers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    measured: Measured
    banks: list[Bank]
    whole: Group
    gates: dict[str, Gate]
    categories: dict[str, OfCategory]
    aspects: dict[str, Group]
    sources: dict[str, Group]
    languages: dict[str, Group]
    macro_f1: float
    """Over harmful and harmless, by whether a text is flagged."""
    macro_f1_categories: float
    calibration_error: float
    calibration: list[figures.Bin]
    scores: dict[str, list[int]]
    """Histograms of the highest score, by label."""
    unscored: int
    """Texts of which no scorer said anything."""
    degraded: dict[str, int]
    """What failed -> in how many texts."""
    cost: dict[str, Cost]
    characters: Cost

    def json(self) -> dict[str, Any]:
        return dict(_plain(asdict(self)))


def report(measured: Measured, banks: list[Bank], outcomes: Sequence[Outcome]) -> Report:
    harmless = [o for o in outcomes if not o.violating]
    scored = [o for o in outcomes if not math.isnan(o.score)]
    scores, labels = [o.score for o in scored], [o.violating for o in scored]
    categories = {
        name: _of_category(name, rows, outcomes, harmless)
        for name, rows in _by(outcomes, lambda o: o.category, taxonomy()).items()
    }
    return Report(
        measured, banks, _group(outcomes),
        {"should_refuse": should_refuse(outcomes), "should_not_refuse": should_not_refuse(outcomes)},
        categories,
        {name: _group(rows) for name, rows in _by(outcomes, lambda o: o.aspect, [*RISKS, *TOPICS]).items()},
        {name: _group(rows) for name, rows in _by(outcomes, lambda o: o.source).items()},
        {name: _group(rows) for name, rows in _by(outcomes, lambda o: o.lang).items()},
        figures.macro([
            _f1(outcomes, lambda o: o.flagged, lambda o: o.violating),
            _f1(outcomes, lambda o: not o.flagged, lambda o: not o.violating),
        ]),
        figures.macro(part.f1 for part in categories.values()),
        figures.calibration_error(scores, labels), figures.calibration(scores, labels),
        {
            "violating": figures.histogram([o.score for o in scored if o.violating], SCORE_BINS),
            "harmless": figures.histogram([o.score for o in scored if not o.violating], SCORE_BINS),
        },
        len(outcomes) - len(scored),
        _counted(name for o in outcomes for name in o.degraded),
        {"pipeline": _cost([o.taken * 1e6 for o in outcomes]), "scorer": _cost([o.scoring * 1e6 for o in outcomes])},
        _cost([o.size for o in outcomes]),
    )  # fmt: skip


# ---- gates


def should_refuse(outcomes: Iterable[Outcome]) -> Gate:
    """Of violating texts enough are flagged or more. What names another aspect than a risk type is no part of it."""
    texts = [o for o in outcomes if o.violating and (not o.aspect or o.aspect in RISKS)]
    return _gate(texts, RISKS, "flagged", CAUGHT, least=True)


def should_not_refuse(outcomes: Iterable[Outcome]) -> Gate:
    """Of harmless texts few are refused. What names another aspect than one of the assessment's is no part of it."""
    texts = [o for o in outcomes if not o.violating and (not o.aspect or o.aspect in TOPICS)]
    return _gate(texts, TOPICS, "refused", REFUSED, least=False)


def standing(part: Share, asked: float, *, least: bool, whole: bool = True) -> Standing:
    """Passed only where the bound is on the right side too; where only the share is, that is not shown. `whole`: nothing had failed
    when it was measured."""
    if not part.of:
        return "not shown"
    right, surely = (part.share >= asked, part.lower >= asked) if least else (part.share <= asked, part.upper <= asked)
    return "not passed" if not right else "passed" if surely and whole else "not shown"


def _gate(
    texts: Sequence[Outcome],
    names: Mapping[str, Aspect],
    by: Literal["flagged", "refused"],
    asked: float,
    *,
    least: bool,
) -> Gate:
    def judged(rows: Sequence[Outcome]) -> tuple[Share, Share, Standing, Standing]:
        flagged, refused = share(rows, lambda o: o.flagged), share(rows, lambda o: o.stopped)
        # What a degraded pipeline did says nothing for the one that should be running.
        whole = not any(o.degraded for o in rows)
        strict = standing(refused, asked, least=least, whole=whole)
        return (
            flagged,
            refused,
            standing(flagged, asked, least=least, whole=whole) if by == "flagged" else strict,
            strict,
        )

    aspects: dict[str, OfAspect] = {}
    for name in names:
        rows = [o for o in texts if o.aspect == name]
        flagged, refused, stands, _ = judged(rows)
        aspects[name] = OfAspect(flagged, refused, stands, enough=len(rows) >= EACH)
    short = [name for name, part in aspects.items() if not part.enough]
    return Gate(by, asked, *judged(texts), not short and len(texts) >= IN_ALL, IN_ALL, EACH, short, aspects)


# ---- groups


def _group(outcomes: Sequence[Outcome]) -> Group:
    violating = [o for o in outcomes if o.violating]
    harmless = [o for o in outcomes if not o.violating]
    return Group(
        share(violating, lambda o: o.flagged),
        share(violating, lambda o: o.stopped),
        share([o for o in violating if o.category], lambda o: o.told),
        share(harmless, lambda o: o.flagged),
        share(harmless, lambda o: o.stopped),
        _auc([o.score for o in violating], [o.score for o in harmless]),
    )


def _of_category(
    name: str, rows: Sequence[Outcome], outcomes: Sequence[Outcome], harmless: Sequence[Outcome]
) -> OfCategory:
    group = _group(rows)
    shares = (group.recall, group.blocked, group.attributed, group.false_flags, group.false_blocks)
    if not name:
        return OfCategory(*shares, group.auc, math.nan, math.nan)
    at = list(taxonomy()).index(name)
    own = _auc([o.scores[at] for o in rows if o.violating], [o.scores[at] for o in harmless])
    return OfCategory(*shares, group.auc, own, _told(name, outcomes) if group.recall.of else math.nan)


def _told(name: str, outcomes: Sequence[Outcome]) -> float:
    """F1 of a category: a text whose own category was found was told right, whatever was found beside it."""

    def is_claimed(o: Outcome) -> bool:
        return name in o.found and (o.category == name or not (o.violating and o.told))

    return _f1(outcomes, is_claimed, lambda o: o.violating and o.category == name)


def _f1(outcomes: Iterable[Outcome], is_claimed: Callable[[Outcome], bool], is_so: Callable[[Outcome], bool]) -> float:
    found = missed = false = 0
    for o in outcomes:
        claimed, so = is_claimed(o), is_so(o)
        found += claimed and so
        missed += so and not claimed
        false += claimed and not so
    return figures.f1(found, missed, false)


def _auc(violating: Iterable[float], harmless: Iterable[float]) -> float:
    return figures.auc([s for s in violating if not math.isnan(s)], [s for s in harmless if not math.isnan(s)])


def _by(
    outcomes: Iterable[Outcome], name: Callable[[Outcome], str], order: Iterable[str] = ()
) -> dict[str, list[Outcome]]:
    """By name: first those of `order`, then the others; what has none last."""
    groups: dict[str, list[Outcome]] = {}
    for o in outcomes:
        groups.setdefault(name(o), []).append(o)
    place = {known: number for number, known in enumerate(order)}
    return {key: groups[key] for key in sorted(groups, key=lambda key: (not key, place.get(key, len(place)), key))}


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _cost(values: Sequence[float]) -> Cost:
    return Cost(figures.quantile(values, 0.5), figures.quantile(values, 0.99))


def _plain(value: Any) -> Any:
    """As JSON has it: named tuples as objects, NaN as null, no more digits than are measured."""
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 6)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(item) for key, item in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
