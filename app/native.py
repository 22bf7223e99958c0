"""What was compiled when Sluice was installed: `scan` (app/_scan.c), `grams` (app/_grams.c) and `views` (app/_views.c), or None where there
was no compiler. Their only importer."""

from __future__ import annotations

__all__ = ["grams", "scan", "views"]

try:
    from app import _scan as scan
except ImportError:
    scan = None  # type: ignore[assignment]
try:
    from app import _grams as grams
except ImportError:
    grams = None  # type: ignore[assignment]
try:
    from app import _views as views
except ImportError:
    views = None  # type: ignore[assignment]
