"""`sluice serve` without its scorer, for the bench alone: what terms, entries and patterns cost by themselves."""

from __future__ import annotations

import sys

from app import cli, server
from app.main import Gateway, create_app
from app.settings import Settings


def _unscored(settings: Settings, redis_url: str | None = None) -> Gateway:
    gateway = create_app(settings, redis_url)
    gateway.moderator.scorers.clear()
    return gateway


if __name__ == "__main__":
    server.create_app = _unscored
    sys.argv[1:1] = ["serve"]
    sys.exit(cli.main())
