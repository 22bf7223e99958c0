"""`python -m tests.bench.copies [--data FOLDER]`: near copies of passages: how many are found, what else is, and what looking costs.

A passage is made of sentences of the project's own pairs, their violating halves. FOLDER holds prose_zh.txt and prose_en.txt, a text
a line, in which nothing should be found; without it words of jieba's dictionary stand in.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from app.copies import LEAST, RUN, Copies, Runs, grams, runs
from app.detectors.blocklist import Blocklist, pack
from app.passages import Passages, compact, fingerprint
from app.text import fold
from app.types import Scope
from tests.bench.matching import Row, _resident, best, fresh, table
from tests.bench.material import prose, slices

ROOT = Path(__file__).parents[2]
KID = "0"
KEY = b"bench" * 8
SCOPE = Scope("bench", "answer")
_NOISE = " \n，。…-_*·|~\u200b\u200d\u3000\ufe0f"
_LEAST_GAP, _MOST_GAP = 5, 30
"""Characters between two edits."""


@cache
def halves() -> tuple[dict[str, list[str]], list[str]]:
    """Violating halves of the project's pairs by language, and its harmless texts."""
    violating: dict[str, list[str]] = {"zh": [], "en": []}
    harmless = []
    for file in sorted((ROOT / "models/grams/pairs").glob("*.tsv")):
        for line in file.read_text("utf-8").splitlines()[1:]:
            _, lang, _, _, bad, good = line.split("\t")
            violating[lang].append(bad)
            harmless.append(good)
    harmless += [line.split("\t")[1] for line in (ROOT / "models/grams/everyday.tsv").read_text("utf-8").splitlines()]
    bank = (ROOT / "app/data/banks/should_not_refuse.jsonl").read_text("utf-8").splitlines()
    return violating, harmless + [json.loads(line)["text"] for line in bank]


@cache
def clean() -> frozenset[str]:
    """The grams of the harmless texts."""
    return frozenset(gram for text in halves()[1] for gram in grams(text))


def passages(count: int, dice: random.Random) -> list[list[str]]:
    """So many, as their sentences; every other one English."""
    violating = halves()[0]
    return [dice.sample(violating["en"], 5) if n % 2 else dice.sample(violating["zh"], 8) for n in range(count)]


def joined(sentences: Sequence[str]) -> str:
    return "".join(s if s >= "\u2e80" else f"{s} " for s in sentences)


def row(passage: str, number: int, action: str = "block", near: Callable[[str], Runs] | None = None) -> dict[str, Any]:
    """An entry with the fingerprint and the runs of a passage."""
    made = runs(passage, KID, KEY, clean()) if near is None else near(passage)
    return {
        "id": f"ent_{number}", "fingerprint": pack(fingerprint(passage, KID, KEY), made), "category": "violence", "action": action,
        "scope": {"app": "*", "directions": ["prompt", "answer"]},
    }  # fmt: skip


# ---- edits

Edit = Callable[[list[str], random.Random], str]


def _edited(text: str, dice: random.Random, change: Callable[[str], str]) -> str:
    """`change` applied to a character every 5 to 30."""
    made, at = list(text), dice.randint(0, _MOST_GAP)
    while at < len(made):
        made[at] = change(made[at])
        at += dice.randint(_LEAST_GAP, _MOST_GAP)
    return "".join(made)


def _other(dice: random.Random) -> str:
    return dice.choice(joined(dice.choice(halves()[0][dice.choice(("zh", "en"))])))


def substituted(sentences: list[str], dice: random.Random) -> str:
    return _edited(joined(sentences), dice, lambda _: _other(dice))


def deleted(sentences: list[str], dice: random.Random) -> str:
    return _edited(joined(sentences), dice, lambda _: "")


def inserted(sentences: list[str], dice: random.Random) -> str:
    return _edited(joined(sentences), dice, lambda ch: ch + "".join(_other(dice) for _ in range(dice.randint(1, 3))))


def padded(sentences: list[str], dice: random.Random) -> str:
    """Some characters substituted, and noise between all of them."""
    return "".join(ch + "".join(dice.choices(_NOISE, k=dice.randint(0, 2))) for ch in substituted(sentences, dice))


def redrawn(sentences: list[str], dice: random.Random) -> str:
    """Some characters deleted, the others in traditional script, full width or upper case."""
    forms = _traditional()
    return "".join(
        dice.choice([ch, ch.upper(), chr(ord(ch) + 0xFEE0)]) if "!" <= ch <= "~" else forms.get(ch, ch)
        for ch in deleted(sentences, dice)
    )


def reordered(sentences: list[str], dice: random.Random) -> str:
    """Without some sentences, the others shuffled between harmless ones."""
    kept = dice.sample(sentences, len(sentences) - 2)
    return joined([text for sentence in kept for text in (dice.choice(halves()[1]), sentence)])


EDITS: dict[str, Edit] = {
    "characters substituted": substituted,
    "characters deleted": deleted,
    "characters inserted": inserted,
    "substituted, noise between": padded,
    "deleted, another script and width": redrawn,
    "sentences reordered, embedded": reordered,
}


@cache
def _traditional() -> dict[str, str]:
    lines = (files("app") / "data" / "traditional.txt").read_text("utf-8").splitlines()
    return {line[1]: line[0] for line in lines if not line.startswith("#")}


def near_copy(sentences: list[str], edit: Edit, dice: random.Random) -> str:
    """The passage edited so that RUN characters in a row survive, and it does not stand there whole."""
    whole = compact(fold(joined(sentences)))
    survivors = {whole[at : at + RUN] for at in range(len(whole) - RUN + 1)}
    while True:
        text = edit(sentences, dice)
        dense = compact(fold(text))
        if whole not in dense and any(dense[at : at + RUN] in survivors for at in range(len(dense) - RUN + 1)):
            return text


# ---- what is measured


def recall(count: int) -> list[Row]:
    dice = random.Random(1)
    made = passages(count, dice)
    detector = Blocklist({KID: KEY})
    detector.load(row(joined(sentences), n) for n, sentences in enumerate(made))
    rows: list[Row] = []
    for name, edit in EDITS.items():
        found = {"zh": 0, "en": 0}
        for n, sentences in enumerate(made):
            text = fold(near_copy(sentences, edit, dice))
            told = detector.passages.scan(text, 0, True, SCOPE).candidates
            found["en" if n % 2 else "zh"] += any(c.rule == f"ent_{n}" for c in told)
        share = {lang: f"{2 * n / count:.1%}" for lang, n in found.items()}
        rows.append({"edit": name, "found": f"{sum(found.values()) / count:.1%}", **share})
    return rows


def false(count: int, texts: dict[str, list[str]]) -> list[Row]:
    """Lines of ordinary prose in which something is found."""
    detector = Blocklist({KID: KEY})
    detector.load(row(joined(sentences), n) for n, sentences in enumerate(passages(count, random.Random(1))))
    rows: list[Row] = []
    for name, lines in texts.items():
        hits = sum(bool(detector.passages.scan(fold(line), 0, True, SCOPE).candidates) for line in lines)
        rows.append({"text": name, "lines": len(lines), "characters": sum(map(len, lines)), "lines hit": hits})
    return rows


def cost(count: int, many: int, texts: dict[str, list[str]]) -> list[Row]:
    """µs a character of texts of 60 and of 500 characters, and of texts that come three characters at a time."""
    made = [joined(sentences) for sentences in passages(count, random.Random(1))]
    few = [runs(passage, KID, KEY, clean()) for passage in made]
    whole = Passages([fingerprint(passage, KID, KEY) for passage in made], {KID: KEY})
    ways = {
        f"whole passages, {count:,}": whole.find,
        f"near copies, {count:,} passages, {sum(map(len, few)):,} grams": Copies(enumerate(few), {KID: KEY}).find,
        f"near copies, {many:,} grams": Copies(_many(many), {KID: KEY}).find,
    }
    rows: list[Row] = [{"searched": name} for name in ways]
    for lang, lines in texts.items():
        text = fold("\n".join(lines))
        for size in (60, 500):
            cut = slices(text, size, 30_000 // size)
            took = best({name: lambda t, f=f: f(t, 0, True) for name, f in ways.items()}, cut, 5)  # type: ignore[misc]
            for each, name in zip(rows, ways, strict=True):
                each[f"{lang}, {size}"] = took[name] / size
        streams = slices(text, 500, 20)
        took = best({name: lambda t, f=f: _streamed(t, f) for name, f in ways.items()}, streams, 3)  # type: ignore[misc]
        for each, name in zip(rows, ways, strict=True):
            each[f"{lang}, streamed"] = took[name] / 500
            held = [n for t in streams for n in _streamed(t, ways[name])]
            each[f"{lang}, held"] = sum(held) / len(held)
    return rows


def _streamed(text: str, find: Callable[[str, int, bool], tuple[Any, int, int]]) -> list[int]:
    """Characters held after every delta."""
    hold, held = 0, []
    for end in range(3, len(text) + 1, 3):
        _, hold, _ = find(text[:end], hold, False)
        held.append(end - hold)
    return held


def _many(count: int) -> Iterator[tuple[int, Runs]]:
    """Passages of 200 characters of made-up prose, until they have so many grams."""
    text, have, number = compact(fold(prose(count * 5 // 4))), 0, 0
    while have < count:
        made = runs(text[200 * number : 200 * (number + 1)], KID, KEY)
        yield number, made
        have, number = have + len(made), number + 1


def memory(many: int) -> Row:
    """In a fresh process."""
    numbered = list(_many(many))
    before = _resident("VmRSS")
    copies = Copies(numbered, {KID: KEY})
    after = _resident("VmRSS")
    copies.find("甲" * LEAST, 0, True)
    stored = sum(len(of.sealed) for _, of in numbered) * 4 / 3
    grams_ = sum(len(of) for _, of in numbered)
    return {
        "passages": len(numbered), "grams": grams_, "RSS MB": after - before, "peak MB": _resident("VmHWM") - before,
        "bytes a gram, JSON": stored / grams_,
    }  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(
        prog="python -m tests.bench.copies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data", type=Path, metavar="FOLDER")
    p.add_argument("--passages", type=int, default=1_000)
    p.add_argument("--grams", type=int, default=1_000_000)
    args = p.parse_args()
    if args.data:
        texts = {lang: (args.data / f"prose_{lang}.txt").read_text("utf-8").splitlines() for lang in ("zh", "en")}
    else:
        texts = {"made up": prose(1_000_000).splitlines()}
    table(
        f"Near copies of {args.passages:,} passages found, where {RUN} characters in a row survive",
        recall(args.passages),
    )
    table(f"Ordinary lines in which one of {args.passages:,} passages is found", false(args.passages, texts))
    table(
        "µs a character, and characters held on average after each delta of three",
        cost(args.passages, args.grams, texts),
    )
    table("Memory", [fresh(memory, args.grams)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
