"""fold(): text to folded text, with an exact way back to the original offsets.

Law: folding works character by character (so a text may be cut anywhere), is idempotent, and one table does all of it.
Nothing here alters what is sent on: findings are mapped back and the original is masked.

Folds now: width, case, compatibility forms (NFKC), zero-width, bidi and tag characters, variation selectors, combining
marks, traditional to simplified (OpenCC's character table). A character may fold to none, one or several.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files

SENTINEL = "\uf8ff"
"""Never occurs in folded text: the hold-back automaton ends its prefixes with it."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2065\u2800\u3164\uffa0\ufff0\ufff1\ufff2\ufff3\ufff4\ufff5\ufff6\ufff7\ufff8"
)
"""Letters, marks and unassigned code points that draw nothing (Default_Ignorable_Code_Point)."""


def _invisible(ch: str) -> str:
    """The technique that a character without a glyph of its own stands for, or ''."""
    code = ord(ch)
    if ch in _BIDI:
        return "bidi"
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F:
        return "variation"
    if 0xE0000 <= code <= 0xE0FFF:
        return "tag"
    # Half of a surrogate pair (JSON can carry one) draws nothing either.
    if ch in _BLANK or ch == SENTINEL or 0xD800 <= code <= 0xDFFF:
        return "zero_width"
    category = unicodedata.category(ch)
    if category in ("Mn", "Me"):
        return "combining"
    if category == "Cf" or (category == "Cc" and ch not in "\t\n\r"):
        return "zero_width"
    return ""


@cache
def _simplified() -> dict[str, str]:
    lines = (files("app") / "data" / "traditional.txt").read_text("utf-8").splitlines()
    return {line[0]: line[1] for line in lines if not line.startswith("#")}


def _fold_char(ch: str) -> str:
    """The fixed point of all folds on one character: so that folding twice changes nothing."""
    simplified = _simplified()
    for _ in range(8):
        before = ch
        ch = unicodedata.normalize("NFKC", ch).casefold()
        ch = unicodedata.normalize("NFKC", "".join(c for c in unicodedata.normalize("NFKD", ch) if not _invisible(c)))
        ch = "".join(simplified.get(c, c) for c in ch)
        if ch == before:
            break
    return ch


class _Table(dict[int, int | str | None]):
    """str.translate's table, filled as characters are met. A missing key would cost an exception per character."""

    _ROOM = 1 << 17

    def __missing__(self, code: int) -> int | str | None:
        folded = "" if _invisible(chr(code)) else _fold_char(chr(code))
        value: int | str | None = (ord(folded) if len(folded) == 1 else folded) if folded else None
        # Text made to fill the table must not fill the memory: past this it is computed each time.
        if len(self) < self._ROOM:
            self[code] = value
        return value


_TABLE = _Table()
"".join(map(chr, range(0x250))).translate(_TABLE)


def fold(text: str) -> str:
    """Folded text. Offsets are not computed: see `origins`, needed only where something hit."""
    return text.translate(_TABLE)


def origins(text: str) -> list[int]:
    """For each character of fold(text), the index in `text` of the character it comes from."""
    result: list[int] = []
    for i, ch in enumerate(text):
        folded = _TABLE[ord(ch)]
        if isinstance(folded, int):
            result.append(i)
        elif folded is not None:
            result.extend([i] * len(folded))
    return result


def techniques(text: str) -> str:
    """Names of the folds that `text` needed, joined by '+'; 'plain' if none. For a finding's evidence."""
    names: set[str] = set()
    for ch in text:
        if _TABLE[ord(ch)] == ord(ch):
            continue
        name = _invisible(ch)
        if not name:
            if ch in _simplified():
                name = "traditional"
            elif (
                ch.casefold() != ch and unicodedata.normalize("NFKC", ch) == ch and unicodedata.decomposition(ch) == ""
            ):
                name = "case"
            elif unicodedata.east_asian_width(ch) in "FH" and unicodedata.decomposition(ch).startswith(
                ("<wide>", "<narrow>")
            ):
                name = "width"
            elif unicodedata.decomposition(ch).startswith("<") or not unicodedata.decomposition(ch):
                name = "compat"
            else:
                name = "combining"
        names.add(name)
    return "+".join(sorted(names)) or "plain"


def is_han(ch: str) -> bool:
    """True for Han ideographs (the blocks of Unicode 15.1)."""
    return (
        "\u4e00" <= ch <= "\u9fff" or "\u3400" <= ch <= "\u4dbf" or "\U00020000" <= ch <= "\U000323af" or ch in "〇々"
    )


def is_word(ch: str) -> bool:
    """True for letters and digits of scripts that put spaces between words."""
    return ch < "\u2e80" and ch.isalnum()
