"""What app/_grams.c gives: see there and grams.py."""

from typing import Any

from numpy.typing import NDArray

class Table:
    def __init__(self, keys: NDArray[Any], weights: NDArray[Any], limits: NDArray[Any]) -> None: ...
    def look(self, text: str, before: tuple[tuple[int, bytes], ...]) -> tuple[int, bytes, bool]: ...
