"""Codes that a text may carry another text in: base64, hexadecimal, tag characters.

Law: finds what decodes to readable text, and says where it stands; what is in it is the matter of others.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app import native

_TOKEN = 1024
"""Characters of base64 or hexadecimal digits at most; longer runs are data."""
# A class first, without a count: then the search skips what is none of it.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-][A-Za-z0-9+/_-]{5,}={0,2}")
_MIXED = re.compile(r"[a-z0-9+/_-][A-Z]|[A-Z][0-9+/]")
"""Without one of these a token is no base64."""
_HEX = re.compile(
    r"[0-9A-Fa-f](?:(?<=0)[xX][0-9A-Fa-f]{2}|[0-9A-Fa-f])[ ,:]{0,2}(?:(?:0[xX])?[0-9A-Fa-f]{2}[ ,:]{0,2}){3,400}"
)
_TAGS = re.compile("[\U000e0020-\U000e007e][\U000e0020-\U000e007e]{2,}")


Span = tuple[int, int]


class Coded(NamedTuple):
    """source[start:end] is `text` in the code `name`; `open`: it reaches to the end, so more of it may follow."""

    start: int
    end: int
    text: str
    name: str
    open: bool


def coded(source: str) -> Iterator[Coded]:
    """What of `source` decodes to readable text, by code and in order; and what may still come to."""
    return undone(source, _look(source) or ())


def shaped(source: str) -> Iterable[Iterable[Span]]:
    """Where what has the shape of a code stands: base64, hexadecimal, tags."""
    return ([found.span() for found in shape.finditer(source)] for shape in (_BASE64, _HEX, _TAGS))


_look = native.views.codes if native.views is not None else shaped
"""The same for the native engine: None where there is none, and no base64 but what _MIXED allows or the end cuts off."""


def undone(source: str, spans: Iterable[Iterable[Span] | None]) -> Iterator[Coded]:
    """What decodes of what stands at `spans`, as `shaped` gives them."""
    for (name, undo), some in zip((("base64", _base64), ("hex", _hex), ("tag", _tags)), spans, strict=False):
        for start, end in some or ():
            if end - start > _TOKEN:
                continue
            token = source[start:end]
            text, last = undo(token), end == len(source)
            if text is not None or last:
                yield Coded(start, start + len(token.rstrip(" ,:")), text or "", name, last)


def _base64(token: str) -> str | None:
    if token.islower() or not _MIXED.search(token) or (token.isalpha() and token.istitle()):
        return None
    try:
        raw = base64.b64decode(
            token.rstrip("=") + "=" * (-len(token.rstrip("=")) % 4), altchars=b"-_" if {"-", "_"} & set(token) else None
        )
    except (binascii.Error, ValueError):
        return None
    return _readable(raw)


def _hex(token: str) -> str | None:
    digits = re.sub("0[xX]|[ ,:]", "", token)
    return _readable(bytes.fromhex(digits)) if not digits.isdigit() or len(digits) >= 8 else None


def _tags(token: str) -> str:
    """Tag characters are ASCII that nobody sees (but a model reads)."""
    return "".join(chr(ord(c) - 0xE0000) for c in token)


def _readable(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) >= 2 and text.replace("\n", " ").isprintable() else None
