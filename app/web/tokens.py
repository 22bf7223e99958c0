"""The log probabilities of one text of a stream: they go out with it. Law: they say what the text says, all of it and nothing else, or
none goes out."""

from __future__ import annotations

from collections import deque
from typing import Any

from app.dialects import Tokens


class Queue:
    """Log probabilities that wait for their text."""

    __slots__ = ("_carried", "_spoken", "_waiting", "_whole")

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Any]] = deque()  # (characters that must have gone out, log probabilities)
        self._whole = True  # none was missing so far
        self._spoken = b""  # what tokens say that are part of a character …
        self._carried: Any = None  # … and those

    def note(self, text: str, taken: int, tokens: Tokens | None) -> None:
        """`text` came, `taken` characters with it, and these tokens."""
        if not self._whole or (tokens is None and not text):
            return
        if tokens is None or tokens.given is None or tokens.spoken is None:
            self._whole = False  # tokens on both sides of it would say together what nobody said
            return
        self._spoken += tokens.spoken
        self._carried = together(self._carried, tokens.given)
        if not text:
            return  # part of a character: it goes with the rest
        if self._spoken != text.encode("utf-8", "surrogatepass"):
            self._whole = False
            return
        self._waiting.append((taken, self._carried))
        self._spoken, self._carried = b"", None

    def drop(self) -> None:
        """None goes out any more."""
        self._whole = False
        self._waiting.clear()

    def ready(self, out: int) -> Any:
        """The log probabilities of the first `out` characters, that were not asked for before; None where there are none."""
        given = None
        while self._waiting and self._waiting[0][0] <= out:
            given = together(given, self._waiting.popleft()[1])
        return given


def together(one: Any, other: Any) -> Any:
    """Two runs of log probabilities as one."""
    if one is None:
        return other
    if isinstance(one, dict):
        return {name: together(one[name], other.get(name)) for name in one}
    return one + other if other is not None else one
