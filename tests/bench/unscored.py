"""The same without its scorer."""

from tests.bench.scored import app

app.moderator.scorers.clear()

__all__ = ["app"]
