"""What app/_views.c gives: see there, redrawn.py, pinyin.py and codes.py."""

from typing import Any, Literal

from numpy.typing import NDArray

_Spans = list[tuple[int, int]]

class Drawn:
    def __init__(
        self,
        map: NDArray[Any],
        sets: tuple[tuple[str, bytes], ...],
        keys: tuple[tuple[str, int, tuple[tuple[int, int, str, tuple[int, ...]], ...]], ...],
        particles: int,
    ) -> None: ...
    def find(self, text: str, short: int) -> list[tuple[int, tuple[int, ...]]] | Literal[False] | None: ...

class Syllables:
    def __init__(self, names: dict[str, bool]) -> None: ...
    def tokens(self, text: str) -> _Spans | None: ...

def codes(text: str) -> tuple[_Spans | None, _Spans | None, _Spans | None] | None: ...
