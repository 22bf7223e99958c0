"""A text that is JSON, as it arrives: a call's arguments, an answer that was asked for as JSON.

Law: what is screened is what it says, every escape in a string read; what goes out is the JSON as it came, and a mask leaves it
JSON. What cannot be masked so (a number, a finding across two strings) is stopped instead. Text that is no JSON after all is
screened as it stands.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace
from typing import Any

from app.streaming import MASK, Channel
from app.types import Finding

_MARK = re.compile(r'["\\]')
_ESCAPE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_HEX = re.compile(r"u[0-9A-Fa-f]{4}\Z")
_CUT = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
"""An escape that is not all there."""
_HALF = re.compile("[\ud800-\udfff]")
_NO_TEXT = "\ufffd"
"""Half a surrogate pair is none."""


class Structured(Channel):
    """A Channel over what a JSON text says. Offsets of findings are those of the text as it came."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._quoted = False
        self._rest = ""  # the beginning of an escape, or the first half of a pair of them
        self._spoken = 0
        self._raw = ""  # as it came, from self._gone on
        self._gone = 0
        self._tail = ""  # what it says, not yet let go
        self._raws: list[str] = []  # what came after that
        self._saids: list[str] = []
        self._places: list[int] = [0]  # after which characters of what it says …
        self._shifts: list[int] = [0]  # … how many more came than it says
        self._quotes: list[int] = []  # characters that begin and end strings, in turn

    def push(self, text: str) -> str:
        return self._out_of(super().push(self._read_on(text)))

    def finish(self, text: str = "") -> str:
        said = self._read_on(text)
        rest, self._rest = self._rest, ""
        return self._out_of(super().finish(said + self._say(rest, rest)))

    def take(self, *answer: Any) -> str:
        return self._out_of(super().take(*answer))

    # ---- in

    def _read_on(self, text: str) -> str:
        text, late = _paired(self._rest + text)
        self._rest = ""
        said, at = [], 0
        while at < len(text):
            mark = _MARK.search(text, at)
            end = mark.start() if mark else len(text)
            said.append(self._say(text[at:end], text[at:end]))
            if mark is None:
                break
            at = end + 1
            if text[end] == '"':
                self._quoted = not self._quoted
                self._quotes.append(self._spoken)
                said.append(self._say('"', '"'))
            elif not self._quoted:
                said.append(self._say("\\", "\\"))
            else:
                raw, char = self._escape(text, end)
                if not raw:
                    self._rest = text[end:]
                    break
                said.append(self._say(raw, char))
                at = end + len(raw)
        self._rest += late
        return "".join(said)

    def _escape(self, text: str, at: int) -> tuple[str, str]:
        """An escape as it came and what it says; nothing while it is not all there."""
        if _CUT.match(text, at):
            return "", ""
        if _HEX.match(text[at + 1 : at + 6]):
            char = chr(int(text[at + 2 : at + 6], 16))
            if not "\ud800" <= char <= "\udbff":
                return text[at : at + 6], _NO_TEXT if "\udc00" <= char <= "\udfff" else char
            if at + 6 == len(text) or _CUT.match(text, at + 6):
                return "", ""
            second = (
                chr(int(text[at + 8 : at + 12], 16))
                if text[at + 6] == "\\" and _HEX.match(text[at + 7 : at + 12])
                else ""
            )
            if "\udc00" <= second <= "\udfff":
                pair = (char + second).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
                return text[at : at + 12], pair
            return text[at : at + 6], _NO_TEXT
        known = _ESCAPE.get(text[at + 1])
        return (text[at : at + 2], known) if known else ("\\", "\\")

    def _say(self, raw: str, said: str) -> str:
        said = _HALF.sub(_NO_TEXT, said)
        self._raws.append(raw)
        self._saids.append(said)
        self._spoken += len(said)
        if len(raw) != len(said):
            self._places.append(self._spoken)
            self._shifts.append(self._shifts[-1] + len(raw) - len(said))
        return said

    # ---- out

    def _out_of(self, said: str) -> str:
        """The JSON that says `said`, masked as it is."""
        if not said:
            return ""
        self._raw += "".join(self._raws)
        self._tail += "".join(self._saids)
        self._raws, self._saids = [], []
        begin, end = self.released - len(said), self.released
        original, self._tail = self._tail[: len(said)], self._tail[len(said) :]
        until = self._at(end)
        raw, self._raw = self._raw[: until - self._gone], self._raw[until - self._gone :]
        first, self._gone = self._gone, until
        if said == original:
            return raw
        return "".join(
            raw[self._at(i) - first : self._at(i + 1) - first] if now == before else MASK
            for i, now, before in zip(range(begin, end), said, original, strict=True)
        )

    def _at(self, index: int) -> int:
        """Where the character that says character `index` begins in the text as it came."""
        return index + self._shifts[bisect_right(self._places, index) - 1]

    def _maskable(self, start: int, end: int) -> bool:
        before = bisect_right(self._quotes, start)
        return before % 2 == 1 and self._quotes[before - 1] < start and bisect_right(self._quotes, end - 1) == before

    @property
    def findings(self) -> list[Finding]:
        return [
            replace(
                f,
                start=self._at(f.start),
                end=self._at(f.end),
                spans=tuple((self._at(a), self._at(b)) for a, b in f.spans),
            )
            for f in super().findings
        ]


def _paired(text: str) -> tuple[str, str]:
    """`text` with surrogate pairs made one, and the first half of a pair at its end, which waits for the other."""
    try:
        text.encode()
        return text, ""
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return (text[:-1], text[-1]) if "\ud800" <= text[-1] <= "\udbff" else (text, "")
