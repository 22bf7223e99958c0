"""What was compiled when Sluice was installed: `scan` (app/_scan.c), or None where there was no compiler. Its only importer."""

from __future__ import annotations

__all__ = ["scan"]

try:
    from app import _scan as scan
except ImportError:
    scan = None  # type: ignore[assignment]
