"""Guard models: the second look at a text, by whatever model an operator has.

A guard is a folder of SLUICE_MODELS with a model.toml of kind `guard` (its format and what its labels mean), and a place where it
runs: a server (SLUICE_GUARD_URL, app.guards.remote) or a path on this machine (SLUICE_GUARD_PATH, app.guards.local). How a family
of models is asked and how its answers read is app.guards.formats, and nothing else knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.guards.guard import ModelGuard
    from app.guards.named import Absent
    from app.keys import Keys
    from app.settings import Settings


def guard_of(settings: Settings, keys: Keys) -> ModelGuard | Absent | None:
    """The guard that the settings name, None where they name none."""
    # Not at the top: a worker's process imports this package too, and needs nothing of it.
    from app.guards import named

    return named.guard_of(settings, keys)
