"""The shipped scorer: a linear model per category over n-grams (app.grams), as a suspicion.

Law: what it finds flags at most, and is a reason to ask a guard (measured: such a model flags half of all speech against
prejudice, so it may never block; docs/adr/0016). Without its model, or with one that is not what model.toml says, every look
fails, visibly, until the files are whole again.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from app import checkpoints
from app.errors import ModelError
from app.grams import Grams, Piece
from app.modelfile import NAME as MODEL
from app.modelfile import GramsFile, Thresholds, checked, read
from app.types import Candidate, Scope

log = logging.getLogger("sluice.classifier")

NAME = "grams"
"""Of the detector, and of its folder in SLUICE_MODELS."""
TOLD = 0.8
"""From which probability on a category is told, though its model's own thresholds be higher: a policy may flag from there on."""
_WEIGHTS = "weights.npz"
_Kept = tuple[tuple[int, Piece], ...]
"""Of the last pieces their length and what they come to."""
_State = tuple[Grams, _Kept]
"""The model that looked, and what it keeps."""
_Loaded = tuple[Grams | None, Mapping[str, Thresholds], str]


class Classifier:
    """A Scorer. `take` gives it the model of another; one without a model fails at every look."""

    name = NAME

    def __init__(self, grams: Grams | None, thresholds: Mapping[str, Thresholds], version: str) -> None:
        self._loaded: _Loaded = grams, thresholds, version

    @property
    def grams(self) -> Grams | None:
        return self._loaded[0]

    @property
    def version(self) -> str:
        return self._loaded[2]

    def take(self, other: Classifier) -> None:
        """Go on with the model of `other`."""
        self._loaded = other._loaded  # whole: a look may be under way

    def score(self, piece: str, before: _State | None, scope: Scope) -> tuple[list[Candidate], _State]:
        """See app.types.Scorer. A candidate spans the piece. `cleared`: below what the model's own thresholds make of it."""
        model, thresholds, _ = self._loaded
        if model is None:
            raise ModelError("no model")
        length = len(piece)
        kept = _near(before[1], length) if before is not None and before[0] is model else ()
        made, told = model.look(piece, tuple([p for _, p in kept]))
        after = (*kept, (length, made))
        if not told:
            return [], (model, after)
        found = [
            Candidate(
                0, length, s.category, NAME, f"{NAME}/{s.category}",
                "suspect" if s.value >= thresholds[s.category].flag
                else "unsure" if s.value >= thresholds[s.category].ask
                else "cleared",
                # Rounded down: what is not certain is not told as 1.
                math.floor(10_000 * s.value) / 10_000,
            )
            for s in told
        ]  # fmt: skip
        return found, (model, after)

    def evidence(self, piece: str, category: str) -> list[tuple[int, int]]:
        """See app.types.Scorer: where the n-grams stand that speak most for it."""
        model = self._loaded[0]
        return model.evidence(piece, category) if model is not None and category in model.categories else []

    def scores(self, pieces: list[str]) -> dict[str, float]:
        """The highest probability of every category over the windows of a text that comes in these pieces."""
        model = self._loaded[0]
        if model is None:
            raise ModelError("no model")
        best = np.zeros(len(model.categories))
        kept: _Kept = ()
        for piece in pieces:
            kept = _near(kept, len(piece))
            made, _ = model.look(piece)
            for window in ((made,), (*(p for _, p in kept), made)):
                best = np.maximum(best, model.together(window))
            kept = (*kept, (len(piece), made))
        return dict(zip(model.categories, map(float, best), strict=True))


def _near(kept: _Kept, length: int) -> _Kept:
    """Those that are looked at together with a piece of `length`."""
    return kept[checkpoints.behind([size for size, _ in kept], length) :]


def tried(models: Path) -> Classifier:
    """The scorer in a folder of models, or one that fails at every look where that cannot be loaded: what then happens, policy says."""
    try:
        return load(models)
    except ModelError as e:
        log.error("scorer not loaded, texts go unscored", extra={"reason": str(e)})
        return Classifier(None, {}, "none")


def load(models: Path) -> Classifier:
    """The scorer in a folder of models. Raises ModelError that says what is wrong with it."""
    folder = models / NAME
    file = read(folder)
    if not isinstance(file, GramsFile):
        raise ModelError(f"{folder}: kind must be 'grams'")
    raw = checked(folder, file, _WEIGHTS)
    floors = tuple((category, min(t.ask, t.flag, TOLD)) for category, t in file.categories.items())
    try:
        return Classifier(grams(raw, floors), file.categories, file.version)
    except ModelError as e:
        raise ModelError(f"{folder / _WEIGHTS}: {e}") from None


def sources(models: Path) -> list[Path]:
    """The files that a scorer is loaded from."""
    return [models / NAME / MODEL, models / NAME / _WEIGHTS]


@lru_cache(maxsize=2)
def grams(raw: bytes, floors: tuple[tuple[str, float], ...]) -> Grams:
    """The model in the content of a weights file. `floors`: of each category, from where on a score is told. Raises ModelError."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            given: dict[str, Any] = {
                key: arrays[key] for key in ("categories", "vocabulary", "weights", "scale", "bias")
            }
    except Exception:  # whatever a broken archive brings about
        raise ModelError("not a model's weights") from None
    categories = [str(c) for c in given["categories"]]
    vocabulary, weights, scale, bias = (given[k] for k in ("vocabulary", "weights", "scale", "bias"))
    sound = (
        vocabulary.ndim == 1 and len(set(categories)) == len(categories)
        and vocabulary.dtype == np.uint32 and weights.dtype == np.int8 and scale.dtype == bias.dtype == np.float32
        and len(vocabulary) > 0 and bool((vocabulary[1:] > vocabulary[:-1]).all())
        and weights.shape == (len(vocabulary), len(categories)) and scale.shape == bias.shape == (len(categories),)
        and bool(np.isfinite(scale).all() and np.isfinite(bias).all() and (scale > 0).all())
    )  # fmt: skip
    if not sound:
        raise ModelError("its arrays do not belong together, or hold what is no number")
    if set(categories) != {category for category, _ in floors}:
        raise ModelError("its categories are not those of model.toml")
    of = dict(floors)
    return Grams(categories, vocabulary, np.ascontiguousarray(weights), scale, bias, [of[c] for c in categories])
