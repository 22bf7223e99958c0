"""`pytest tests/fuzz --examples N`: how often each route is asked at random."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--examples", type=int, default=20, help="requests made up for each route of the OpenAPI documents"
    )
