"""How alike two passages are: minima of keyed hashes over their shingles (MinHash: Broder, On the resemblance and containment of documents,
1997), in bands, so that passages with much in common share one and can be looked up.

Law: keyed to the last: which shingle gives a minimum depends on the key, and a band is a MAC over its minima and the app, so that
without the key nothing can be read back, and bands of two apps, or under two keys, say nothing about one another. Only for finding what a
person looks at next: nothing acts by it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import shake_256
from typing import Any

import numpy as np

from app.keys import Keys

BANDS, ROWS = 8, 2
"""Passages that share a part s of their shingles share a band with probability 1 - (1 - s^2)^8: 0.9 at one half, 0.08 at one tenth."""
LEAST = 20
"""Compacted characters a passage must have: fewer have too few shingles to compare."""
MOST = 4000
"""Compacted characters that are looked at."""
_WIDTH = 3
"""Characters of a shingle."""
_BYTES = 6
"""Of a band's MAC: chance makes no two of a hundred thousand alike."""

Array = np.ndarray[Any, np.dtype[np.uint64]]


@lru_cache(maxsize=8)
def _factors(key: bytes) -> tuple[Array, Array, Array]:
    """Of each character of a shingle one factor, and of each minimum a factor and a summand; factors are odd."""
    n = BANDS * ROWS
    raw = np.frombuffer(shake_256(b"sluice/like/1" + key).digest(8 * (_WIDTH + 2 * n)), "<u8").astype(np.uint64)
    return raw[:_WIDTH] | np.uint64(1), raw[_WIDTH : _WIDTH + n] | np.uint64(1), raw[_WIDTH + n :]


def bands(keys: Keys, app: str, dense: str) -> tuple[str, ...]:
    """Of a folded and compacted passage of an app, its bands, in hex; none of one that is too short. Less than a millisecond."""
    if len(dense) < LEAST:
        return ()
    each, factors, summands = _factors(keys.derive("fingerprint"))
    letters = np.frombuffer(dense[:MOST].encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    shingles = sum(
        (letters[at : len(letters) - _WIDTH + 1 + at] * each[at] for at in range(1, _WIDTH)),
        letters[: len(letters) - _WIDTH + 1] * each[0],
    )
    shingles ^= shingles >> np.uint64(32)
    minima = [int((shingles * factor + summand).min()) for factor, summand in zip(factors, summands, strict=True)]
    told = ((str(band), *map(str, minima[band * ROWS : (band + 1) * ROWS])) for band in range(BANDS))
    return tuple(keys.mac("fingerprint", "like", app, *parts)[:_BYTES].hex() for parts in told)
