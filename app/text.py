"""fold(): text to folded text, with an exact way back to the original offsets.

Law: folding works character by character (so a text may be cut anywhere), is idempotent, and one table does all of it.
Nothing here alters what is sent on: findings are mapped back and the original is masked. What folds is the same
character in another form; what merely looks or sounds like it is a matter of views.py.

Folds now: width, case, compatibility forms (NFKC), mathematical, circled and squared letters, radicals, zero-width, bidi
and tag characters, variation selectors, combining marks, traditional and regional forms to simplified (OpenCC's tables).
A character may fold to none, one or several.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from app import native

SENTINEL = "\uf8ff"
"""Never occurs in folded text: the hold-back automaton ends its prefixes with it."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2065\u2800\u3164\uffa0\ufff0\ufff1\ufff2\ufff3\ufff4\ufff5\ufff6\ufff7\ufff8"
)
"""Letters, marks and unassigned code points that draw nothing (Default_Ignorable_Code_Point)."""


def invisible(ch: str) -> str:
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
    lines = [
        line
        for name in ("variants", "traditional")
        for line in (files("app") / "data" / f"{name}.txt").read_text("utf-8").splitlines()
    ]
    return {line[0]: line[1] for line in lines if not line.startswith("#")}


def _enclosed() -> dict[str, str]:
    """Circled, squared and flag letters that Unicode gives no compatibility form."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    table: dict[str, str] = {}
    for first in (0x1F150, 0x1F170, 0x1F1E6):
        table |= {chr(first + i): letter for i, letter in enumerate(letters)}
    for first, digit in ((0x2776, 1), (0x2780, 1), (0x278A, 1)):
        table |= {chr(first + i): str(digit + i) for i in range(10)}
    table |= {chr(0x24F5 + i): str(1 + i) for i in range(10)}
    table |= {chr(0x24EB + i): str(11 + i) for i in range(10)}
    return (
        table
        | {"\u24ff": "0", "\u24ea": "0", "\U0001f10b": "0", "\U0001f10c": "0"}
        | dict(zip("ⅠⅡⅢⅣⅥⅦⅧⅨⅰⅱⅲⅳⅵⅶⅷⅸ", "1234678912346789", strict=True))
    )


_ENCLOSED = _enclosed()
# EquivalentUnifiedIdeograph of the CJK Radicals Supplement (UAX #38), and variants that OpenCC's table leaves alone.
_RADICALS = dict(
    zip(
        "⺀⺁⺅⺆⺇⺈⺉⺊⺌⺍⺎⺐⺒⺓⺕⺖⺘⺙⺛⺜⺝⺞⺠⺡⺣⺤⺥⺦⺧⺨⺩⺪⺫⺬⺭⺮⺯⺰⺱⺲⺴⺶⺸⺹⺺⺻⺼⺽⺾⺿⻀⻁⻂⻃⻄⻅⻆⻇⻈⻉⻊⻋⻌⻍⻎⻏⻐⻑⻒⻓⻔⻕⻖⻗⻘⻙⻚⻛⻜⻝⻞⻟⻠⻡⻢⻣⻤⻥⻦⻧⻨⻩⻪⻫⻬⻭⻮⻯⻰⻱⻲"
        "婬姧妳鎗",
        "冫厂亻冂几刀刂卜小小兀尢巳幺彐忄扌攵旡日月歺民氵灬爫爫丬牛犭王疋目示礻竹糹纟罓罒罓羊羊耂肀聿肉臼艹艹艹虎衤覀西见角角讠贝足车辶辶辶阝钅長镸长门阝阝雨青韦页风飞食食飠饣首马骨鬼鱼鸟卤麦黄黾斉齐歯齿竜龙龜亀"
        "淫奸你枪",
        strict=True,
    )
)
_SAME = _ENCLOSED | _RADICALS
_KEPT = frozenset("ΗΝΥϹϲ")
"""Greek letters that look like other Latin letters than what they fold to does: they are left as they are (views.py)."""


def _fold_char(ch: str) -> str:
    """The fixed point of all folds on one character: so that folding twice changes nothing."""
    simplified = _simplified()
    for _ in range(8):
        if ch in _KEPT:
            break
        before = ch
        ch = unicodedata.normalize("NFKC", "".join(_SAME.get(c, c) for c in ch)).casefold()
        ch = unicodedata.normalize("NFKC", "".join(c for c in unicodedata.normalize("NFKD", ch) if not invisible(c)))
        ch = "".join(simplified.get(c, c) for c in ch)
        if ch == before:
            break
    return ch


_CODES = 0x34000
"""Code points that a map has places for: no letter, digit or ideograph lies beyond."""
_UNKNOWN, _GONE, _SEVERAL = 0, 1, 1 << 31
"""What a map holds besides characters (app/_scan.c). No folded text holds U+0000 or U+0001."""


class CharTable(dict[int, int | str | None]):
    """What every character becomes, given by `one`: none (''), one or several. Filled as characters are met.

    `runs`: of a run of what is then the same character, one counts. `beyond`: False where code points of private planes
    become nothing.
    """

    _ROOM = 1 << 17

    def __init__(self, one: Callable[[str], str], runs: bool = False, beyond: bool = True) -> None:
        super().__init__()
        self._one, self._runs = one, runs
        self._codes = np.zeros(_CODES, np.uint32)
        self._pool = np.zeros(1 << 14, np.uint32)
        self._pooled = 0
        self._filling = threading.Lock()
        scan, rest = native.scan, _UNKNOWN if beyond else _GONE
        self.map = scan.Map(self._codes, self._pool, rest, runs) if scan is not None else None
        """The same for the native engine; None without it."""

    def __missing__(self, code: int) -> int | str | None:
        made = self._one(chr(code))
        value: int | str | None = (ord(made) if len(made) == 1 else made) if made else None
        # Text made to fill the table must not fill the memory: past this it is computed each time.
        if len(self) < self._ROOM:
            self[code] = value
        if code < _CODES:
            self._codes[code] = _GONE if value is None else value if isinstance(value, int) else self._several(value)
        return value

    def _several(self, made: str) -> int:
        with self._filling:  # a list is loaded in a thread while the loop folds
            at, end = self._pooled, self._pooled + len(made)
            if len(made) > 31 or end > len(self._pool):
                return _UNKNOWN
            self._pool[at:end] = np.frombuffer(made.encode("utf-32-le", "surrogatepass"), np.uint32)
            self._pooled = end
        return _SEVERAL | at << 5 | len(made)

    @property
    def codes(self) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """What every code point becomes, as app/_scan.c says; what lies past it becomes what `beyond` says."""
        return self._codes

    def meet(self, text: str) -> None:
        """Fill in every character of `text` that is not."""
        for code in map(ord, set(text)):
            if code >= _CODES or self._codes[code] == _UNKNOWN:
                self.__missing__(code)

    def apply(self, text: str) -> str:
        """`text` with every character replaced by what it becomes."""
        if self.map is not None:
            made = self.map.apply(text)
            if made is None:
                self.meet(text)
                made = self.map.apply(text)
            if made is not None:
                return made
        plain = text.translate(self)
        return _RUN.sub(r"\1", plain) if self._runs else plain

    def places(self, text: str) -> list[int]:
        """For each character of `apply(text)`, the index in `text` of the one it comes from."""
        if self.map is not None:
            made = self.map.places(text)
            if made is None:
                self.meet(text)
                made = self.map.places(text)
            if made is not None:
                return made
        found: list[int] = []
        last = None
        for i, ch in enumerate(text):
            value = self[ord(ch)]
            if value is not None and not (self._runs and value == last):
                found += [i] * (len(value) if isinstance(value, str) else 1)
                last = value
        return found


_RUN = re.compile(r"(.)\1+", re.DOTALL)


def _folded(ch: str) -> str:
    if "\u4e00" <= ch <= "\u9fff" and ch not in _SAME and ch not in _simplified():
        return ch  # most ideographs are met when the tables are read, and have no other form
    return "" if invisible(ch) else _fold_char(ch)


_TABLE = CharTable(_folded)
"".join(map(chr, range(0x250))).translate(_TABLE)


def fold(text: str) -> str:
    """Folded text. Offsets are not computed: see `origins`, needed only where something hit."""
    return _TABLE.apply(text)


def origins(text: str) -> Sequence[int]:
    """For each character of fold(text), the index in `text` of the character it comes from."""
    return _TABLE.places(text)


def is_mark(ch: str) -> bool:
    """True for what is drawn on the character before it: combining marks, variation selectors."""
    return invisible(ch) in ("combining", "variation")


def techniques(text: str) -> set[str]:
    """Names of the folds that `text` needed. For a finding's evidence."""
    names: set[str] = set()
    for ch in text:
        if _TABLE[ord(ch)] == ord(ch):
            continue
        name = invisible(ch)
        if not name:
            shape = unicodedata.decomposition(ch)
            if ch in _simplified():
                name = "traditional"
            elif (
                ch in _ENCLOSED
                or shape.startswith("<circle>")
                or "\u3200" <= ch <= "\u32ff"
                or "\U0001f100" <= ch <= "\U0001f2ff"
            ):
                name = "circled"
            elif shape.startswith("<font>"):
                name = "math"
            elif ch in _RADICALS:
                name = "compat"
            elif ch.casefold() != ch and unicodedata.normalize("NFKC", ch) == ch and shape == "":
                name = "case"
            elif unicodedata.east_asian_width(ch) in "FH" and shape.startswith(("<wide>", "<narrow>")):
                name = "width"
            elif shape.startswith("<") or not shape:
                name = "compat"
            else:
                name = "combining"
        names.add(name)
    return names


def is_han(ch: str) -> bool:
    """True for Han ideographs (the blocks of Unicode 15.1)."""
    return (
        "\u4e00" <= ch <= "\u9fff" or "\u3400" <= ch <= "\u4dbf" or "\U00020000" <= ch <= "\U000323af" or ch in "〇々"
    )


_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af〇々]")


def has_han(text: str) -> bool:
    """True where a character of it is a Han ideograph."""
    return _HAN.search(text) is not None


def is_word(ch: str) -> bool:
    """True for letters and digits of scripts that put spaces between words."""
    return ch < "\u2e80" and ch.isalnum()
