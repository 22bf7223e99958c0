"""Confirmed cases as something to train on: what `sluice case export` writes, and the data sets made of it for TRL and LLaMA-Factory.

Law: a sample holds a case's id, the prompts, the passage and what is said instead; a field more is refused, so that nothing about who
reported it gets in. Categories that keep no text are refused. The same samples, source and time give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from app import strictjson
from app.clock import stamp
from app.errors import RequestError, TrainingError
from app.passages import compact
from app.taxonomy import taxonomy
from app.text import fold
from app.training.record import installed

RUN = 20
"""Letters or digits of a passage that, found in a row, are the passage produced again; all of it where it is shorter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of a confirmed case. `variants`: other ways to ask the same; `passage`: what must not be said again; `surrogate`: what is
    said instead."""

    case: str
    category: str
    language: Literal["zh", "en"]
    prompt: str
    variants: tuple[str, ...]
    passage: str
    surrogate: str

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt, *self.variants)


@dataclass(frozen=True, slots=True)
class Retained:
    """A prompt whose answer must stay as it is. `answer`: "" for what the model says before it is tuned."""

    prompt: str
    answer: str = ""


def says(text: str, passage: str) -> bool:
    """Whether `text` produces the passage: a run of RUN letters or digits of it, however it is spaced, spelt or marked."""
    told, kept = compact(fold(text)), compact(fold(passage))
    size = min(RUN, len(kept))
    return size > 0 and any(kept[i : i + size] in told for i in range(len(kept) - size + 1))


# ---- reading


def read(path: Path) -> list[Sample]:
    """The samples of a file of JSON lines, by case and prompt. Raises TrainingError that names file, line and field."""
    found = sorted((_sample(where, row) for where, row in _rows(path)), key=lambda s: (s.case, s.prompt))
    if not found:
        raise TrainingError(f"{path}: no samples; `sluice case export` writes them")
    for one, other in pairwise(found):
        if (one.case, one.prompt) == (other.case, other.prompt):
            raise TrainingError(f"{path}: {one.case}: prompt: given twice")
    return found


def retained(path: Path) -> list[Retained]:
    """The prompts, with or without answers, of a file of JSON lines: {"prompt": …, "answer"?: …}. Raises TrainingError."""
    found = []
    for where, row in _rows(path):
        _known(where, row, {"prompt", "answer"})
        found.append(Retained(_text(where, row, "prompt"), _text(where, row, "answer") if "answer" in row else ""))
    if not found:
        raise TrainingError(f"{path}: no prompts")
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, object)."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as e:
        raise TrainingError(f"{path}: cannot be read ({e.strerror})") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = strictjson.loads(line)
        except RequestError as e:
            raise TrainingError(f"{where}: {e}") from None
        if not isinstance(row, dict):
            raise TrainingError(f"{where}: must be a JSON object")
        yield where, row


def _known(where: str, row: Mapping[str, Any], names: set[str]) -> None:
    if unknown := [name for name in row if name not in names]:
        # The names alone, and only plain ones: anything may stand in a file that is not ours.
        shown = ", ".join(name for name in unknown if name.isidentifier() and len(name) <= 40) or "a field"
        raise TrainingError(f"{where}: {shown}: not a field of it; they are {', '.join(sorted(names))}")


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TrainingError(f"{where}: {name}: must be a text that is not empty")
    return value


def _sample(where: str, row: Mapping[str, Any]) -> Sample:
    _known(where, row, {f.name for f in fields(Sample)})
    case, category, language, prompt, passage, surrogate = (
        _text(where, row, name) for name in ("case", "category", "language", "prompt", "passage", "surrogate")
    )
    variants = row.get("variants")
    if not case.startswith("case_"):
        raise TrainingError(f"{where}: case: must begin with case_")
    if category not in taxonomy():
        raise TrainingError(f"{where}: category: no such category; the ids are in docs/categories.md")
    if taxonomy()[category].no_retain:
        raise TrainingError(f"{where}: category: {category} keeps no text and is never trained on")
    if language not in ("zh", "en"):
        raise TrainingError(f"{where}: language: must be zh or en")
    if not isinstance(variants, list) or not all(isinstance(v, str) and v.strip() for v in variants):
        raise TrainingError(f"{where}: variants: must be a list of texts, which may be empty")
    if not compact(fold(passage)):
        raise TrainingError(f"{where}: passage: holds no letter or digit")
    if says(surrogate, passage):
        raise TrainingError(f"{where}: surrogate: says the passage itself")
    others = tuple(v for v in dict.fromkeys(variants) if v != prompt)
    return Sample(case, category, "zh" if language == "zh" else "en", prompt, others, passage, surrogate)


# ---- data sets

Row = dict[str, Any]
_Asked = tuple[str, str, str]
"""(prompt, surrogate, passage)"""


def rows(samples: Sequence[Sample]) -> list[_Asked]:
    """Every way to ask, with what must be said and what must not."""
    return [(prompt, s.surrogate, s.passage) for s in samples for prompt in s.prompts]


def said(role: str, content: str) -> list[Row]:
    """A conversation of one message, as TRL takes it."""
    return [{"role": role, "content": content}]


def sft(asked: Sequence[_Asked], kept: Sequence[Retained]) -> list[Row]:
    """TRL, conversational prompt and completion: the surrogate, and the answers that stay."""
    pairs = [(p, s) for p, s, _ in asked] + [(r.prompt, r.answer) for r in kept]
    return [{"prompt": said("user", p), "completion": said("assistant", a)} for p, a in pairs]


def dpo(asked: Sequence[_Asked], kept: Sequence[Retained] = ()) -> list[Row]:
    """TRL, conversational preference: the surrogate before the passage. What stays has no pair, and is not in it."""
    return [
        {"prompt": said("user", p), "chosen": said("assistant", s), "rejected": said("assistant", x)}
        for p, s, x in asked
    ]


def kto(asked: Sequence[_Asked], kept: Sequence[Retained]) -> list[Row]:
    """TRL, conversational unpaired preference: the passage is to forget, the answers that stay are wanted."""
    pairs = [(p, x, False) for p, _, x in asked] + [(r.prompt, r.answer, True) for r in kept]
    return [{"prompt": said("user", p), "completion": said("assistant", a), "label": good} for p, a, good in pairs]


def _alpaca(row: Row) -> Row:
    """A row of TRL's as LLaMA-Factory's alpaca."""
    turned: Row = {"instruction": row["prompt"][0]["content"], "input": ""}
    names = {"completion": "output", "chosen": "chosen", "rejected": "rejected"}
    turned |= {names[k]: v[0]["content"] for k, v in row.items() if k in names}
    return turned | ({"kto_tag": row["label"]} if "label" in row else {})


def _sharegpt(row: Row) -> Row:
    """A row of TRL's as LLaMA-Factory's sharegpt."""
    turns = [{"from": "human", "value": row["prompt"][0]["content"]}]
    if "completion" in row:
        turns.append({"from": "gpt", "value": row["completion"][0]["content"]})
    turned: Row = {"conversations": turns}
    turned |= {k: {"from": "gpt", "value": row[k][0]["content"]} for k in ("chosen", "rejected") if k in row}
    return turned | ({"kto_tag": row["label"]} if "label" in row else {})


_SETS: dict[str, Callable[[Sequence[_Asked], Sequence[Retained]], list[Row]]] = {"sft": sft, "dpo": dpo, "kto": kto}
_TRL = {
    "sft": "conversational prompt-completion",
    "dpo": "conversational preference",
    "kto": "conversational unpaired preference",
}
_COLUMNS: dict[str, dict[str, dict[str, str]]] = {
    "alpaca": {
        "sft": {"prompt": "instruction", "query": "input", "response": "output"},
        "dpo": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
        "kto": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"},
    },
    "sharegpt": {
        "sft": {"messages": "conversations"},
        "dpo": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        "kto": {"messages": "conversations", "kto_tag": "kto_tag"},
    },
}
_TURNED = {"alpaca": _alpaca, "sharegpt": _sharegpt}


def write(out: Path, samples: Sequence[Sample], kept: Sequence[Retained], source: str, at: float) -> None:
    """Write the data sets, and MANIFEST.json that says what they are, to the folder `out`.

    `kept`: with answers; `source`: SHA-256 of the file that the samples were read from; `at`: seconds since the epoch. Raises
    TrainingError if the folder holds something, cannot be written, or an answer is missing.
    """
    if any(not r.answer for r in kept):
        raise TrainingError("a data set needs the answers that stay: a prompt without one has none")
    told: dict[str, tuple[str, int, bytes]] = {}  # file -> (format, rows, bytes)
    info: Row = {}
    for name, make in _SETS.items():
        made = make(rows(samples), kept)
        told[f"trl/{name}.jsonl"] = (f"TRL {_TRL[name]}", len(made), b"".join(_line(row) for row in made))
        for form, turn in _TURNED.items():
            file = f"{form}_{name}.json"
            told[f"llamafactory/{file}"] = (
                f"LLaMA-Factory {form} {name}",
                len(made),
                _page([turn(row) for row in made]),
            )
            info[f"sluice_{form}_{name}"] = {
                "file_name": file, "formatting": form, **({"ranking": True} if name == "dpo" else {}),
                "columns": _COLUMNS[form][name],
            }  # fmt: skip
    told["llamafactory/dataset_info.json"] = ("LLaMA-Factory dataset_info", len(info), _page(info))
    manifest = {
        "made": {"by": "sluice", "version": installed("sluice-gateway"), "at": stamp(at), "from": {"sha256": source}},
        "cases": sorted({s.case for s in samples}),
        "samples": len(samples),
        "prompts": len(rows(samples)),
        "retained": len(kept),
        "categories": dict(sorted(Counter(s.category for s in samples).items())),
        "languages": dict(sorted(Counter(s.language for s in samples).items())),
        "files": {
            name: {"format": form, "rows": count, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            for name, (form, count, raw) in sorted(told.items())
        },
    }
    fresh(out)
    try:
        for name, (_, _, raw) in told.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(raw)
        (out / "MANIFEST.json").write_bytes(_page(manifest))
    except OSError as e:
        raise TrainingError(f"{out}: cannot be written ({e.strerror})") from None


def fresh(out: Path) -> None:
    """Make a folder to write to. Raises TrainingError if there is something in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise TrainingError(f"{out}: is not empty; name a new folder (请指定新目录)")
    except OSError as e:
        raise TrainingError(f"{out}: cannot be written ({e.strerror})") from None


def _line(row: Row) -> bytes:
    return strictjson.dumps(row) + b"\n"


def _page(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace") + b"\n"
