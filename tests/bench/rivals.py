"""Other matchers, built of the same terms: each a function from a text to what it finds.

pyahocorasick and flashtext are no dependencies: `pip install pyahocorasick flashtext`. What is missing is left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

Matcher = Callable[[str], Any]

BARE = "daachorse, bare"


def daachorse(terms: Sequence[str]) -> Matcher:
    from daachorse import CharwiseDoubleArrayAhoCorasick

    return CharwiseDoubleArrayAhoCorasick(list(terms)).find_overlapping  # type: ignore[no-any-return]


def pyahocorasick(terms: Sequence[str]) -> Matcher:
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for term in terms:
        automaton.add_word(term, len(term))
    automaton.make_automaton()
    return lambda text: list(automaton.iter(unicodedata.normalize("NFKC", text).casefold()))


def flashtext(terms: Sequence[str]) -> Matcher:
    from flashtext import KeywordProcessor

    processor = KeywordProcessor()
    for term in terms:
        processor.add_keyword(term)
    return lambda text: processor.extract_keywords(text, span_info=True)


def trie(terms: Sequence[str]) -> Matcher:
    """The DFA of dictionaries that many filters are."""
    root: dict[str, Any] = {}
    for term in terms:
        node = root
        for ch in term:
            node = node.setdefault(ch, {})
        node[""] = True

    def find(text: str) -> list[tuple[int, int]]:
        text, found = text.lower(), []
        for start in range(len(text)):
            node = root
            for end in range(start, len(text)):
                if (following := node.get(text[end])) is None:
                    break
                node = following
                if "" in node:
                    found.append((start, end + 1))
        return found

    return find


_ALL: dict[str, tuple[str, Callable[[Sequence[str]], Matcher]]] = {
    BARE: ("daachorse", daachorse),
    "pyahocorasick, NFKC + casefold": ("ahocorasick", pyahocorasick),
    "flashtext": ("flashtext", flashtext),
    "Python DFA": ("", trie),
}
HERE = {name: build for name, (module, build) in _ALL.items() if not module or find_spec(module)}
MISSING = sorted(set(_ALL) - set(HERE))
