"""What the shipped scorer learns from: public data sets by their files, and the project's own matched pairs.

Law: a row whose label says that the topic alone does not decide it (2) is never used; nothing about minors is read; a source
is a unit that a measurement can leave out. Read in place: no row is copied into the project.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import TrainingError
from app.taxonomy import taxonomy
from app.text import fold
from app.training.cases import read as read_samples

HATE = "hate"
"""Stands for a category of that family which the source does not tell."""
UNKNOWN = "?"
"""Harmful in a way that has no column of ours: neither a positive nor a negative."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text to learn from or to test on. `categories`: those it violates, none if it is harmless. `group`: texts of one group are never
    on both sides of a split (a template, for pairs)."""

    text: str
    """Folded."""
    categories: frozenset[str]
    source: str
    lang: str
    group: str = ""


_Row = dict[str, Any]
_JADE = {
    "privacy": "privacy_violation", "fraud": "illegal_acts", "crime_intrusion": "abuse_malware", "crime_other": "illegal_acts",
    "crime_property": "illegal_acts", "crime_weapons": "illegal_acts", "violence": "violence", "false_info": "false_harmful_info",
    "discrimination_ethnic": "discrimination_ethnicity", "terrorism": "terrorism_extremism", "crime_drugs": "illegal_acts",
    "porn": "sexual_obscene", "gambling": "illegal_acts", "insult": "harassment_abuse", "economic_order": "economic_order_disruption",
}  # fmt: skip
_XSAFETY = {
    "Crimes_And_Illegal_Activities": "illegal_acts", "Unsafe_Instruction_Topic": "illegal_acts", "Insult": "harassment_abuse",
    "Unfairness_And_Discrimination": HATE, "Goal_Hijacking": "prompt_attack", "Prompt_Leaking": "prompt_attack",
    "Role_Play_Instruction": "prompt_attack",
}  # fmt: skip
_CATQA = {
    "Illegal Activity/Cybercrime": "abuse_malware", "Illegal Activity": "illegal_acts", "Malware Viruses": "abuse_malware",
    "Hate/Harass/Violence/Racial or ethnic hate": "ethnic_hatred", "Hate/Harass/Violence/Religious intolerance": "discrimination_belief",
    "Hate/Harass/Violence/Gender-based violence": "violence", "Hate/Harass/Violence/Cyberbullying": "harassment_abuse",
    "Physical Harm/Self-harm": "self_harm", "Physical Harm/Assault and battery": "violence", "Physical Harm/Weapon making": "illegal_acts",
    "Economic Harm/Intellectual property theft": "ip_infringement", "Economic Harm/Market manipulation": "economic_order_disruption",
    "Economic Harm": "illegal_acts", "Fraud/Deception": "illegal_acts", "Adult Content": "sexual_obscene",
    "Privacy Violation Activity": "privacy_violation",
}  # fmt: skip
_AART = {
    "terrorism": "terrorism_extremism", "bombings": "terrorism_extremism", "cyberterrorism": "abuse_malware",
    "hate crimes": "ethnic_hatred",
    "crimes motivated by race": "discrimination_race", "crimes motivated by religion": "discrimination_belief",
    "crimes motivated by disability": "discrimination_health", "crimes motivated by gender identity": "discrimination_gender",
    "assault": "violence", "violence": "violence", "assassinations": "violence", "domestic violence": "violence", "rape": "violence",
    "pornography": "sexual_obscene", "prostitution": "sexual_obscene",
}  # fmt: skip


def _catqa(row: _Row) -> str:
    name = row["category"]
    return _CATQA.get(name) or _CATQA.get(name.rsplit("/", 1)[0], UNKNOWN)


def _jade(row: _Row) -> str:
    name = row["category"]
    return name if name in taxonomy() else _JADE.get(name, UNKNOWN)


def _diasafety(row: _Row) -> str:
    return {"offending_user": "harassment_abuse", "biased_opinion": HATE}.get(row["category"], UNKNOWN)


def _own(row: _Row) -> str:
    return str(row["category"])


def _always(category: str) -> Callable[[_Row], str]:
    return lambda row: category


SOURCES: dict[str, tuple[str, Callable[[_Row], str]]] = {
    "COLD": ("cold_zh.jsonl", _own),
    "HED-COLD": ("hedcold_zh_evasion.jsonl", _own),
    "SWSR": ("swsr_zh.jsonl", _own),
    "TeleAntiFraud": ("teleantifraud_zh.jsonl", _always("illegal_acts")),
    "JADE easy": ("jade_v2_easy_zh.jsonl", _jade),
    "XSafety": ("xsafety_zh.jsonl", lambda row: _XSAFETY.get(row["source"].split()[-1], UNKNOWN)),
    "CatQA zh": ("catqa_zh.jsonl", _catqa),
    "CatQA en": ("catqa_en.jsonl", _catqa),
    "AART": ("aart_en.jsonl", lambda row: _AART.get(row["category"], "illegal_acts")),
    "Davidson": ("davidson_en.jsonl", lambda row: "harassment_abuse" if row["category"] == "insult" else HATE),
    "DiaSafety": ("diasafety_en.jsonl", _diasafety),
    "Do-Not-Answer": (
        "donotanswer_en.jsonl",
        lambda row: "illegal_acts" if row["category"] == "malicious_uses" else UNKNOWN,
    ),
    "SMS Spam": ("sms_spam_en.jsonl", _always("abuse_spam")),
    "Identity templates": ("identity_templates_zh.jsonl", _always(HATE)),
    "KdConv": ("kdconv_zh_benign.jsonl", _own),
    "Laws": ("laws_zh_benign.jsonl", _own),
    "Poetry": ("poetry_zh_benign.jsonl", _own),
    "Awesome prompts": ("awesome_prompts_zh_benign.jsonl", _own),
    "CLINC, Banking77": ("benign_en.jsonl", _own),
    "Self-instruct": ("self_instruct_en_benign.jsonl", _own),
}
"""Name -> (file, the category of a violating row)."""
PAIRS, EVERYDAY, CASES = "pairs", "everyday", "cases"


def read(folder: Path) -> Iterator[Example]:
    """Every usable row of the data sets in `folder`. Raises TrainingError that names the file."""
    for source, (name, category) in SOURCES.items():
        for number, row in _rows(folder / name):
            try:
                label, text = row["label"], fold(row["text"].rsplit("|||")[-1].strip())
                if label == 2 or "child" in row["category"].lower() or not text:
                    continue
                categories = frozenset({category(row)} if label == 1 else ())
                yield Example(text, categories, source, row["lang"])
            except (KeyError, TypeError, AttributeError):
                raise TrainingError(f"{folder / name}, line {number}: needs text, label, category and lang") from None


def _rows(path: Path) -> Iterator[tuple[int, _Row]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield number, json.loads(line)
    except OSError as e:
        raise TrainingError(f"{path}: cannot be read ({e.strerror}); --data names the folder of data sets") from None
    except ValueError:
        raise TrainingError(f"{path}: not JSON lines") from None


COLUMNS = ("template", "lang", "form", "twin", "violating", "harmless")


@dataclass(frozen=True, slots=True)
class Pair:
    """A violating text and its harmless twin (models/grams/GUIDE.md), as written."""

    category: str
    template: str
    lang: str
    form: str
    twin: str
    violating: str
    harmless: str

    def examples(self) -> tuple[Example, Example]:
        group = f"{self.category}/{self.template}"
        return (
            Example(fold(self.violating), frozenset({self.category}), PAIRS, self.lang, group),
            Example(fold(self.harmless), frozenset(), PAIRS, self.lang, group),
        )


def pairs(folder: Path) -> list[Pair]:
    """The matched pairs of a folder, by category. Raises TrainingError that names file, line and column."""
    found = []
    for path in sorted(folder.glob("*.tsv")):
        if path.stem not in taxonomy():
            raise TrainingError(f"{path}: no such category; the ids are in docs/categories.md")
        with path.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 2):
                empty = [name for name in COLUMNS if not (row.get(name) or "").strip()]
                if empty or None in row:
                    raise TrainingError(f"{path}, line {number}: {', '.join(empty) or 'a column too many'}")
                found.append(Pair(path.stem, *(row[name].strip() for name in COLUMNS)))
    if not found:
        raise TrainingError(f"{folder}: no pairs; --pairs names the folder with a file per category")
    return found


def confirmed(path: Path) -> Iterator[Example]:
    """The passages of confirmed cases, of categories that text decides; all of a case on one side of a split. Raises TrainingError."""
    for sample in read_samples(path):
        yield Example(
            fold(sample.passage), frozenset({sample.category}), CASES, sample.language, f"{CASES}/{sample.case}"
        )


def everyday(path: Path) -> Iterator[Example]:
    """Harmless texts written for the project, one a line behind its language and a tab. Raises TrainingError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as e:
        raise TrainingError(f"{path}: cannot be read ({e.strerror})") from None
    for number, line in enumerate(lines, 1):
        lang, tab, text = line.partition("\t")
        if not tab or lang not in ("zh", "en") or not text.strip():
            raise TrainingError(f"{path}, line {number}: must be zh or en, a tab, a text")
        yield Example(fold(text.strip()), frozenset(), EVERYDAY, lang)


def manifest(folder: Path) -> dict[str, str]:
    """File -> licence, as the folder of data sets says."""
    try:
        lines = (folder / "datasets_manifest.tsv").read_text("utf-8").splitlines()
    except OSError as e:
        raise TrainingError(f"{folder}: datasets_manifest.tsv cannot be read ({e.strerror})") from None
    return {row["file"]: row["licence"] for row in csv.DictReader(lines, delimiter="\t")}


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
