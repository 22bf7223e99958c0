"""Coverage-guided fuzzing by libFuzzer (through atheris): what every target here shares.

Law: a finding is the input that shows it, in a file; given that file as the argument, the target does exactly the same again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
_OUT = ROOT / "out" / "fuzz"


class Dice(random.Random):
    """Dice that fall as the bytes of an input say, so that the fuzzer learns what a throw leads to; when they are used up, each
    throw is the lowest, and no chance comes true any more."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(0)
        self._left = raw

    def _next(self, size: int) -> bytes:
        took, self._left = self._left[:size], self._left[size:]
        return took

    def getrandbits(self, k: int) -> int:
        return int.from_bytes(self._next((k + 7) // 8), "little") & ((1 << k) - 1)

    def random(self) -> float:
        took = self._next(2)
        return int.from_bytes(took, "little") / (1 << 8 * len(took)) if took else 1 - 2**-53


def fuzz(name: str, check: Callable[[bytes], None], seeds: Iterable[bytes] = (), words: Iterable[bytes] = ()) -> None:
    """Run `check` on inputs for the seconds that the command line names, or on the one input in the file that it names.

    `seeds`: inputs to start from; `words`: what inputs are likely to hold. What was learnt stays in out/fuzz/<name>/corpus for the
    next run. Never returns: exit status 0, or another one when `check` raised, took over 60 s, or needed over 4 GiB.
    """
    what = sys.argv[1] if len(sys.argv) > 1 else "60"
    if not what.isdigit():
        check(Path(what).read_bytes())
        return
    corpus, found, dictionary = _OUT / name / "corpus", _OUT / name / "found", _OUT / name / "words"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for at, seed in enumerate(seeds):
        (corpus / f"seed-{at:03}").write_bytes(seed)
    spelled = ("".join(f"\\x{byte:02x}" for byte in word) for word in words if word)
    dictionary.write_text("".join(f'"{word}"\n' for word in spelled), "ascii")
    options = [
        f"-max_total_time={what}", f"-artifact_prefix={found}/", f"-dict={dictionary}", "-timeout=60", "-rss_limit_mb=4096",
        "-max_len=65536", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([name, str(corpus), *options], check)
    atheris.Fuzz()
