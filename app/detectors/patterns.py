"""Patterns of personal information, with their check digits.

Law: a pure function of the text. Whether a match starts at a place is decided by the CONTEXT characters before it and
by the run of characters it stands in, so it is told once that run is over (or longer than any match), and the start of
an open run is the hold. One place to add a pattern: a line in `_PATTERNS`; every one is at most `_LONGEST` characters.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from app import native
from app.types import Candidate, Scan, Scope

CATEGORY = "personal_information"
_has = native.scan.has if native.scan is not None else None

_LONGEST = 322
"""An address of 64 + 1 + 255 characters (RFC 5321, 4.5.3.1), and two that follow it."""
_RUN = "0123456789abcdefghijklmnopqrstuvwxyz@._%+-:‐–"
"""Characters of folded text that a match, or what must not touch it, can be made of. A space only between digits."""
_MAYBE = re.compile(r"@|[0-9][0-9a-z .:‐–-]{5}")
"""A part of every match."""
_REST = re.compile(f"(?:[{re.escape(_RUN)}]|(?<=[0-9]) (?=[0-9]))+")
_FIRST = bytes(chr(i) in "@0123456789" for i in range(128))
_SEP = "[ .‐–-]?"


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit() or c == "x")


def _id_card(found: str, before: str) -> bool:
    """A citizen's identity number (GB 11643-1999): a date that exists, and the check character."""
    number = _digits(found)
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10x98765432"[sum(int(d) * w for d, w in zip(number, weights, strict=False)) % 11] == number[17]


def _luhn(found: str, before: str) -> bool:
    """A card number's check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for i, digit in enumerate(reversed(_digits(found))):
        n = int(digit) * (1 + i % 2)
        total += n - 9 if n > 9 else n
    return total % 10 == 0


def _mobile(found: str, before: str) -> bool:
    # 15000000000 is an amount, not a number that anybody has.
    return not found.endswith("0" * 7)


_VERSION = re.compile(r"(?:\bv|version|release|版本号?|版)\s*[:=]?\s*\Z")
# RFC 6890: addresses that lead to no one outside their own network.
_NOBODY = [
    ipaddress.ip_network(net)
    for net in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
    ]
]


def _ipv4(found: str, before: str) -> bool:
    """An address that can belong to a person's line, and no version number."""
    try:
        address = ipaddress.IPv4Address(found)
    except ValueError:
        return False
    return not any(address in net for net in _NOBODY) and not _VERSION.search(before)


def _ipv6(found: str, before: str) -> bool:
    """A global unicast address (2000::/3, RFC 4291): no time of day, no MAC, no C++ name is one."""
    try:
        return ipaddress.IPv6Address(found) in ipaddress.ip_network("2000::/3")
    except ValueError:
        return False


def _passport(found: str, before: str) -> bool:
    """Two letters and seven digits are also a part number: the word must stand before it."""
    return "护照" in before or "passport" in before


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`shape` is tried at every place of the text; `valid(match, the text before it)` has the last word."""

    rule: str
    shape: re.Pattern[str]
    valid: Callable[[str, str], bool] = lambda found, before: True


def _number(body: str) -> re.Pattern[str]:
    """A number that no digit, decimal or letter-digit code touches on its left, nor a digit on its right."""
    return _shape(r"(?<![0-9])(?<![0-9][.a-z])", rf"(?:{body})(?![0-9]|\.[0-9])")


def _shape(left: str, body: str) -> re.Pattern[str]:
    """Tried at every place, so that no match depends on where an earlier one began."""
    return re.compile(rf"{left}(?=({body}))")


_IIN = "(?:[45][0-9]|62|60|3[56]|95|2[2-7])[0-9]{2}"
_CARD = rf"{_IIN}(?:{_SEP}[0-9]{{4}}){{3}}"
_CHINA = rf"(?:(?:\+|00)?86{_SEP})?1[3-9][0-9]"
_DOMAIN = r"(?=[a-z0-9.-]{4,255}(?![a-z0-9.-]))(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}(?![a-z])"

_PATTERNS = (
    _Pattern("pi.id_card", _number(rf"[1-9][0-9]{{5}}{_SEP}[12][0-9]{{7}}{_SEP}[0-9]{{3}}[0-9x](?![a-z])"), _id_card),
    _Pattern("pi.bank_card", _number(rf"{_CARD}(?:{_SEP}[0-9]{{1,3}})?"), _luhn),
    # A card number before a shorter number (its security code, say) is one too.
    _Pattern("pi.bank_card", _number(_CARD), _luhn),
    _Pattern("pi.bank_card", _number(r"62[0-9]{4}[ -][0-9]{10,13}"), _luhn),
    _Pattern("pi.mobile", _number(rf"{_CHINA}(?:{_SEP}[0-9]{{4}}){{2}}"), _mobile),
    _Pattern("pi.mobile", _number(rf"{_CHINA}[0-9][ .‐–-][0-9]{{3}}[ .‐–-][0-9]{{4}}"), _mobile),
    _Pattern("pi.email", _shape(r"(?<![a-z0-9._%+-])(?!git@)", rf"[a-z0-9._%+-]{{1,64}}@{_DOMAIN}")),
    _Pattern("pi.passport", _shape("(?<![0-9a-z])", "[egdsp][0-9a-z][0-9]{7}(?![0-9a-z])"), _passport),
    _Pattern("pi.ipv4", _number(r"(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}"), _ipv4),
    _Pattern(
        "pi.ipv6",
        _shape("(?<![0-9a-z])(?<![0-9a-f:]:)", "[23][0-9a-f]{3}:[0-9a-f:]{1,34}[0-9a-f:](?![0-9a-z:])"),
        _ipv6,
    ),
)
_BEFORE = 24
"""Characters to the left that `valid` may look at; fewer than CONTEXT."""


class Patterns:
    """The detector."""

    name, version = "patterns", "1"

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        hold = len(text) if final else _open(text, since)
        if hold <= since or (_has is not None and not _has(text, _FIRST, since)) or not _MAYBE.search(text, since):
            return Scan([], hold)
        candidates: dict[Candidate, None] = {}  # two shapes may find the same
        windows = _windows(text, since)
        for pattern in _PATTERNS:
            for first, stop in windows:
                for found in pattern.shape.finditer(text, first, stop):
                    start, end = found.span(1)
                    if start < hold and pattern.valid(found[1], text[max(0, start - _BEFORE) : start]):
                        candidates[Candidate(start, end, CATEGORY, self.name, pattern.rule)] = None
        return Scan(list(candidates), hold)


def _windows(text: str, since: int) -> list[tuple[int, int]]:
    """Where in text[since:] a match may be: the runs around what there is in every one. Trying all shapes at every character of a long
    text for a date that stands in it would cost more than all the rest."""
    made: list[tuple[int, int]] = []
    for hit in _MAYBE.finditer(text, since):
        if made and hit.end() <= made[-1][1]:
            continue
        start, rest = _left(text, since, hit.start()), _REST.match(text, hit.end())
        stop = hit.end() if rest is None else rest.end()
        if made and start <= made[-1][1]:
            start, _ = made.pop()
        made.append((start, stop))
    return made


def _left(text: str, since: int, at: int) -> int:
    """Where the run begins that text[:at] ends in; never further back than a match can reach."""
    least = max(since, at - _LONGEST)
    while True:
        at = least + len(text[least:at].rstrip(_RUN))
        if at - 1 <= least or text[at - 1] != " " or not text[at - 2].isdigit():
            return at
        at -= 1


def _open(text: str, since: int) -> int:
    """Start of the run that the text ends in; never further back than a match can reach."""
    last = text[-1:]
    if last not in _RUN and last != " ":
        return len(text)
    least = max(since, len(text) - _LONGEST)
    at = least + len(text[least:].rstrip(_RUN))
    while at > least and text[at - 1] == " " and at > 1 and text[at - 2].isdigit():
        at = least + len(text[least : at - 1].rstrip(_RUN))
    return at
