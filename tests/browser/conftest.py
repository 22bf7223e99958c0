"""Tests in a browser are collected where they are asked for, or where what they need is installed: asked for without it, they fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = "not browser" not in config.option.markexpr
    there = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
    return None if wanted or there else collection_path.suffix == ".py"
