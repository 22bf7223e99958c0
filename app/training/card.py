"""CARD.md: what the shipped scorer was made from, what it can do and where it fails. Law: every figure of the model was measured by
the run that wrote it, on texts the model measured on had not seen; what people read and agreed on is history, and says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.figures import auc
from app.modelfile import Source, Thresholds
from app.training import fit
from app.training.pairset import described
from app.training.sources import CASES, EVERYDAY, PAIRS, SOURCES, Example, Pair, digest, manifest
from app.training.train import Unseen, is_clean, probabilities

_HEAD = """# Model card: grams {version}

Written by `sluice train`; do not edit by hand. 由 `sluice train` 生成。

**What it is.** One linear model per category over n-grams of one to three tokens (Han characters, words, numbers by length) of
folded text, {words:,} n-grams, one signed byte per n-gram and category; Chinese and English. Weights are kept by hash: no word
of a training text can be read out of the file. Code and reasons: `app/grams.py`, `docs/adr/0016-scorer.md`. How texts were
labelled: `GUIDE.md`.

**What it is for.** A suspicion: it flags, and has a guard model asked. It never blocks alone, and must not: see *Where it fails*.

**Licence.** Apache-2.0, as the project. The data sets allow training a model that is given away (table below); none of their text
is in the project.

## Made from

| source | file | texts used | violating | licence | SHA-256 of the file |
|---|---|---|---|---|---|
"""
_PAIRS = """
Rows whose label says that the topic alone does not decide it, and all rows about minors, were left out.

## Matched pairs

Written for the project by several authors, one per category and set, in November 2026. Of the 4,597 pairs written first a second
reader was given 1,360 and agreed with 99% of the 2,720 halves (an upper bound: author and reader are of one kind); the pairs
written later nobody but their authors has read. While the flag threshold's budget was chosen, and which harmless sources count
for it, summary figures of the project's own banks were seen; their texts were not. Per category and language: number of pairs,
share of the largest template, share of near-duplicates.

| category | zh pairs | template | alike | en pairs | template | alike |
|---|---|---|---|---|---|---|
"""
_FIGURES = """
## Figures

{texts} texts, each scored by a model that had not seen its template or, if harmless, its source (three folds). AUC: a violating
text of the pairs against the harmless twins of its category. Caught, twins: share of violating texts and of harmless twins that
any category flags. Clean: share of harmless texts of sources not learned from that this category flags.

| category | flag from | ask from | zh AUC | caught | twins | en AUC | caught | twins | clean |
|---|---|---|---|---|---|---|---|---|---|
"""
_CLEAN = """
Harmless sources, each by a model that had not learned from it: share flagged (by any category), share a guard would be asked about.

| source | texts | flagged | asked |
|---|---|---|---|
"""
_FAILS = """
## Where it fails

- It learns words and their neighbours, not sense. Between a text and its harmless twin it is right as often as the AUC column
  says, no more: below 0.8 it mostly tells topics apart. English is weaker than Chinese (fewer pairs).
- Speech against prejudice is still flagged more often than other harmless text: it shares its words (docs/benchmarks.md).
- Sources it has not seen are harder than these figures (docs/benchmarks.md: every source left out once). Nothing here was measured
  on texts of real users.
- Irony, quotation over several sentences, code words coined after the data was made, languages other than Chinese and English:
  not seen.
- What text alone does not decide has no column: truth, likeness, trade secrets, personal numbers (patterns find those), sexual
  content involving minors (no text of any kind was used).
- Probabilities are calibrated for one violating text in two, as in the pairs. Where violations are rare, a probability of 0.9 is
  far more often wrong than one time in ten: the thresholds are set by the share of harmless texts that they flag.
"""


_OWN = (
    (PAIRS, "matched pairs", "pairs/*.tsv", "Apache-2.0, written for the project"),
    (EVERYDAY, "everyday texts", "everyday.tsv", "Apache-2.0, written for the project"),
    (CASES, "confirmed cases", "`sluice case export`", "the operator's own"),
)


def used(examples: Sequence[Example], data: Path) -> list[tuple[str, str, Source]]:
    """(name, file, source) of all that is learned from. Raises TrainingError."""
    texts, violating = Counter(e.source for e in examples), Counter(e.source for e in examples if e.categories)
    licences = manifest(data)

    def of(key: str, name: str, licence: str, sha256: str | None = None) -> Source:
        return Source(name=name, licence=licence, texts=texts[key], violating=violating[key], sha256=sha256)

    found = [
        (source, name, of(source, source, licences.get(name) or "not stated", digest(data / name)))
        for source, (name, _) in SOURCES.items()
    ]
    for key, name, file, licence in _OWN:
        if texts[key] or key != CASES:
            found.append((name, file, of(key, name, licence)))
    return found


def card(
    version: str,
    examples: Sequence[Example],
    pairs: Sequence[Pair],
    unseen: Unseen,
    shape: NDArray[np.float64],
    thresholds: Mapping[str, Thresholds],
    data: Path,
    words: int,
) -> tuple[str, dict[str, object]]:
    """The card, and its figures as values."""
    p = probabilities(unseen.logits, shape)
    flag = np.array([thresholds[c].flag for c in fit.CATEGORIES])
    ask = np.array([thresholds[c].ask for c in fit.CATEGORIES])
    clean = np.array([is_clean(e) for e in unseen.examples])
    lines = [_HEAD.format(version=version, words=words)]
    for name, file, made in used(examples, data):
        print_ = f"`{made.sha256[:16]}…`" if made.sha256 else ""
        lines.append(f"| {name} | {file} | {made.texts:,} | {made.violating:,} | {made.licence} | {print_} |\n")
    lines.append(_PAIRS)
    sets = {(s.category, s.lang): s for s in described(pairs)}
    for category in fit.CATEGORIES:
        cells = []
        for lang in ("zh", "en"):
            s = sets.get((category, lang))
            cells.append(f"{s.pairs} | {s.template:.1%} | {s.alike:.1%}" if s else "0 | | ")
        lines.append(f"| `{category}` | {' | '.join(cells)} |\n")
    figures: dict[str, object] = {}
    lines.append(_FIGURES.format(texts=f"{len(unseen.examples):,}"))
    told = p >= flag
    for k, category in enumerate(fit.CATEGORIES):
        cells = []
        for lang in ("zh", "en"):
            own = np.array([e.group.startswith(f"{category}/") and e.lang == lang for e in unseen.examples])
            bad = own & np.array([bool(e.categories) for e in unseen.examples])
            good = own & ~bad
            area = auc(p[bad, k], p[good, k])
            caught, twins = float(told[bad].any(1).mean()), float(told[good].any(1).mean())
            figures[f"{category} {lang}"] = {"auc": area, "caught": caught, "twins": twins}
            cells.append(f"{area:.2f} | {caught:.0%} | {twins:.0%}")
        lines.append(
            f"| `{category}` | {flag[k]:.3g} | {ask[k]:.3g} | {' | '.join(cells)} | {told[clean, k].mean():.2%} |\n"
        )
    lines.append(_CLEAN)
    asked = p >= ask
    for source in sorted({e.source for e, c in zip(unseen.examples, clean, strict=True) if c}):
        rows = np.array([e.source == source and not e.categories for e in unseen.examples])
        figures[source] = {"flagged": float(told[rows].any(1).mean()), "asked": float(asked[rows].any(1).mean())}
        lines.append(
            f"| {source} | {rows.sum():,} | {told[rows].any(1).mean():.2%} | {asked[rows].any(1).mean():.2%} |\n"
        )
    lines.append(_FAILS)
    return "".join(lines), json.loads(json.dumps(figures))
