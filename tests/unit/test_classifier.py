"""The shipped scorer: what it says of pieces, and what happens without its files."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from app import settings
from app.checkpoints import WINDOW
from app.detectors import classifier
from app.errors import ModelError
from app.modelfile import Thresholds
from app.text import fold
from app.types import Scope
from tests.scorers import small

SCOPE = Scope("default", "answer")
SHIPPED = settings.packaged("models")


def test_a_finding_spans_the_piece_and_is_a_suspicion_from_the_threshold_on(tmp_path: Path) -> None:
    scorer = classifier.load(small(tmp_path))
    found, state = scorer.score("坏东西", None, SCOPE)
    assert [(c.start, c.end, c.category, c.tier, c.rule) for c in found] == [
        (0, 3, "violence", "suspect", "grams/violence")
    ]
    found, _ = scorer.score("今天的河面很静。" * 20, None, SCOPE)
    assert found == []
    assert state and scorer.score("", state, SCOPE)[0] == []


def test_pieces_before_count_with_the_last_one_as_far_as_a_window_reaches(tmp_path: Path) -> None:
    scorer = classifier.load(small(tmp_path, Thresholds(flag=0.99, ask=0.55)))
    half = "坏东西今天"
    alone, state = scorer.score(half, None, SCOPE)
    together, _ = scorer.score(half, state, SCOPE)
    assert together and (not alone or together[0].score > alone[0].score)
    far = state
    for _ in range(3):
        _, far = scorer.score("静" * (WINDOW // 2), far, SCOPE)
    assert scorer.score(half, far, SCOPE)[0] == alone, "what lies further back than a window is not looked at"


def test_a_state_is_never_changed_so_a_text_may_go_on_in_two_ways(tmp_path: Path) -> None:
    scorer = classifier.load(small(tmp_path))
    _, state = scorer.score("今天的河面", None, SCOPE)
    first = scorer.score("坏东西", state, SCOPE)
    scorer.score("很静", state, SCOPE)
    assert scorer.score("坏东西", state, SCOPE) == first


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "model.toml").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.toml").write_text("kind = 'grams'\n"), "version"),
        (lambda folder: (folder / "model.toml").write_text("kind = [\n"), "not valid TOML"),
        (lambda folder: (folder / "weights.npz").unlink(), "cannot be read"),
        (lambda folder: (folder / "weights.npz").write_bytes(b"PK"), "SHA-256"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_with_the_reason(tmp_path: Path, harm: object, said: str) -> None:
    harm(small(tmp_path) / "grams")  # type: ignore[operator]
    with pytest.raises(ModelError, match=said):
        classifier.load(tmp_path)
    failing = classifier.tried(tmp_path)
    with pytest.raises(ModelError):
        failing.score("今天", None, SCOPE)


@pytest.mark.parametrize("wrong", ["nan", "order", "shape", "type"])
def test_weights_that_make_no_sense_are_refused(tmp_path: Path, wrong: str) -> None:
    arrays = {
        "categories": np.array(["violence"]),
        "vocabulary": np.array([1, 2], np.uint32),
        "weights": np.ones((2, 1), np.int8),
        "scale": np.ones(1, np.float32),
        "bias": np.zeros(1, np.float32),
    }
    arrays |= {
        "nan": {"bias": np.array([np.nan], np.float32)},
        "order": {"vocabulary": np.array([2, 1], np.uint32)},
        "shape": {"weights": np.ones((3, 1), np.int8)},
        "type": {"weights": np.ones((2, 1), np.float32)},
    }[wrong]
    out = io.BytesIO()
    np.savez(out, **arrays)
    with pytest.raises(ModelError, match="do not belong together"):
        classifier.grams(out.getvalue(), (("violence", 0.6),))


def test_the_shipped_model_is_whole_and_knows_categories_of_the_taxonomy(tmp_path: Path) -> None:
    scorer = classifier.load(SHIPPED)
    assert len(scorer.scores(["今天天气很好。"])) >= 30
    for text in ("今天天气很好，我们去河边散步吧。", "好", "ok", "1", "How do I sort a list by its second column?"):
        found, _ = scorer.score(fold(text), None, SCOPE)
        assert not [c for c in found if c.tier == "suspect"], text
    shutil.copytree(SHIPPED / "grams", tmp_path / "grams")
    assert classifier.load(tmp_path).version == scorer.version
