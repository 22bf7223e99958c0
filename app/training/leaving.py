"""How well a source is told by a model that never saw it: what a data set's own split hides.

Families alone are fitted (a source's own categories are often in no other source); a text counts as violating where any
family says so. Law: nothing of the source left out, and of the texts on the other side of the split, is learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from app.figures import auc
from app.training import fit
from app.training.sources import HATE, PAIRS, SOURCES, Example
from app.training.train import Fitted, expanded, fold_of, sampled

_SHARE = 4000
"""Texts of one source and label that are learned from: a third of the time, the same figures within a point."""
_FALSE = 0.01
_KIN = {"COLD": {"HED-COLD"}, "HED-COLD": {"COLD"}}
"""Sources made from one another, that are left out together."""


def left_out(examples: Sequence[Example], seed: int) -> Iterator[dict[str, Any]]:
    """One row per source with violating texts: AUC against its own harmless texts (where it has at least 100) and against clean
    ones, recall at half, and at 1% false alarms on clean texts."""
    for source in [*SOURCES, PAIRS]:
        if not any(e.source == source and e.categories for e in examples):
            continue
        # Pairs are left out by a third: without any of them another model would be measured.
        aside = [e for e in examples if e.source == source and (source != PAIRS or fold_of(e, seed) == 0)]
        clean = [
            e
            for e in examples
            if (e.source in ("Laws", "KdConv", "CLINC, Banking77") and fold_of(e, seed) == 0) or False
        ]
        clean = clean or [e for e in examples if e.source == "KdConv"]
        taken = {id(e) for e in (*aside, *clean)} | {id(e) for e in examples if e.source in _KIN.get(source, ())}
        model = families(expanded(list(sampled([e for e in examples if id(e) not in taken], _SHARE))))
        measured = [*sampled(aside, 1500)]
        scores = model.highest([e.text for e in measured]).max(1)
        floor = model.highest([e.text for e in clean[:: max(1, len(clean) // 1500)]]).max(1)
        bad = np.array([bool(e.categories) for e in measured])
        limit = float(np.quantile(floor, 1 - _FALSE))
        own = scores[~bad]
        yield {
            "source": source,
            "texts": len(measured),
            "auc_own": auc(scores[bad], own) if len(own) >= 100 else None,
            "auc_clean": auc(scores[bad], floor),
            "recall_half": float((scores[bad] > 0).mean()),
            "false_half": float((own > 0).mean()) if len(own) >= 100 else None,
            "recall_strict": float((scores[bad] > limit).mean()),
            "false_strict": float((own > limit).mean()) if len(own) >= 100 else None,
        }


def families(examples: Sequence[Example]) -> Fitted:
    """One column per family."""
    made = fit.features(examples)
    words = fit.vocabulary(made)
    rows, w = fit.Rows.of(fit.matrix(made, words)), fit.weights(examples)
    columns = []
    for family, members in fit.FAMILIES.items():
        y, counts = fit.target(examples, frozenset(members) | ({HATE} if family == "hate" else set()), family)
        columns.append(fit.fitted(rows, y, w * counts, np.zeros(len(words) + 1), fit.RIDGE))
    return Fitted(words, np.stack(columns, 1))
