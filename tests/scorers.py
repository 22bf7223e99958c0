"""A scorer as small as one can be, in files: what tests give a gateway whose answers must not hang on what was trained."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from app import grams
from app.modelfile import Thresholds
from app.text import fold
from app.training.model import packed, write

BAD = "坏东西"


@cache
def models() -> Path:
    """A folder of models for all tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return small(folder)


def small(folder: Path, thresholds: Thresholds | None = None) -> Path:
    """A folder of models with one that knows one bad word, BAD, of one category."""
    words = np.unique(grams.features(fold(f"{BAD}今天的河面很静")))
    columns = np.zeros((len(words) + 1, 1))
    columns[:-1][np.isin(words, grams.features(BAD))] = 3.5
    columns[-1] = -2.5
    raw, _ = packed(["violence"], words, columns, np.array([[1.0], [0.0]]))
    write(folder / "grams", "1", raw, {"violence": thresholds or Thresholds(flag=0.8, ask=0.6)})
    return folder
