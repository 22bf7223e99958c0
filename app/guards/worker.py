"""A guard model in a process of its own: `python -m app.guards.worker`, started by app.guards.local, never by hand.

Law: the only importer of torch and transformers. A model comes from its folder alone: no network, no code that lies beside it, and
no weights that are not there (a library would make some up). It is whole or not used: files are those whose SHA-256 model.toml
gives. What a text holds is text: nothing in it counts as a mark of the model's own. No text leaves but as an answer: the standard
streams are closed, and of a failure a word is told. The process ends when its parent does.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from app.guards.frames import frame, take

_NICE = 5
"""A gateway that waits for a core keeps everybody waiting, a guard only those who ask it."""
_MOST_TOKENS = 4096
"""Of one window of a classifier, whatever it could take."""


class Unfit(Exception):
    """A model that cannot be used; the message says why. Raised before any text has come."""


class Failed(Exception):
    """No answer to a question; `reason` is one of GuardError's."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Model(Protocol):
    """A model that is loaded. `kind`: of the requests that it answers."""

    kind: str

    def answer(self, question: Mapping[str, Any], given_up: Callable[[], bool]) -> str:
        """`given_up` tells, while it computes, that nobody waits any more. Raises Failed."""
        ...


# ---- the pipe


class _Pipe:
    """Reads in a thread of its own, so that an end and a stop are noticed while a model computes."""

    def __init__(self, asked: BinaryIO, said: BinaryIO) -> None:
        self._asked, self._said = asked, said
        self._questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, ValueError, OSError):
            while True:
                told = take(self._asked)
                if "stop" in told:
                    self._stopped = told["stop"]
                else:
                    self._questions.put(told)
        os._exit(0)  # nobody is there

    def next(self) -> dict[str, Any]:
        return self._questions.get()

    def stopped(self, number: int) -> bool:
        return self._stopped == number

    def say(self, value: dict[str, Any]) -> None:
        try:
            self._said.write(frame(value))
            self._said.flush()
        except OSError:
            os._exit(0)


def _apart() -> _Pipe:
    """The pipe, with the standard streams out of everybody's reach: what a library prints must not get between the frames, and what
    it complains of may quote a text."""
    asked, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return _Pipe(asked, said)


def _die_with_parent() -> None:
    """Even where this process is stopped or its threads are not scheduled (Linux; elsewhere the pipe's end does it)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def _answered(model: Model, question: Mapping[str, Any], pipe: _Pipe) -> dict[str, Any]:
    number = question["id"]
    try:
        return {"id": number, "said": model.answer(question, lambda: pipe.stopped(number))}
    except Failed as e:
        return {"id": number, "failed": e.reason}
    except Exception as e:
        # The type alone: a message could hold the text.
        return {"id": number, "failed": "crashed", "error": type(e).__name__}


def main(load: Callable[[Path, int], Model] | None = None) -> None:
    """Answer until the pipe ends. `load`: what makes a model of a folder, with so many threads."""
    _die_with_parent()
    pipe = _apart()
    with suppress(OSError):
        os.nice(_NICE)
    order = pipe.next()
    try:
        path = Path(order["path"])
        _check(path, order["files"])
        model = (load or loaded)(path, order["threads"])
    except Unfit as e:
        pipe.say({"failed": str(e)})
        os._exit(1)
    pipe.say({"loaded": model.kind})
    while True:
        pipe.say(_answered(model, pipe.next(), pipe))


# ---- models


def _check(path: Path, files: Mapping[str, str]) -> None:
    """Raises Unfit unless each of these files has its SHA-256."""
    for name, expected in files.items():
        try:
            with open(path / name, "rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            raise Unfit(f"{path / name}: cannot be read ({e.strerror})") from None
        if found != expected.lower():
            raise Unfit(f"{path / name}: its SHA-256 is not the one in model.toml")


def loaded(path: Path, threads: int) -> Model:
    """The model in a folder, on the CPU. Raises Unfit."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait for each other took three times the CPU of a busy machine, and four times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    try:
        import torch
        import transformers
    except ImportError as e:
        raise Unfit(f"{e}: pip install 'sluice-gateway[models]', and torch (docs/operations.md)") from None
    torch.set_num_threads(threads)
    try:
        return _made(path, torch, transformers)
    except Unfit:
        raise
    except Exception as e:
        raise Unfit(f"{path}: {type(e).__name__}: {e}") from None


def _made(path: Path, torch: Any, transformers: Any) -> Model:
    given = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(path, **given)
    architecture = (getattr(config, "architectures", None) or ["none"])[0]
    make: Callable[[Any, Any, Any], Model]
    if architecture.endswith("ForSequenceClassification"):
        auto, make = transformers.AutoModelForSequenceClassification, _Classifier
    elif architecture.endswith("ForCausalLM"):
        auto, make = transformers.AutoModelForCausalLM, _Generator
    else:
        raise Unfit(f"{path}: config.json: {architecture} neither classifies sequences nor generates text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, **given)
    if not tokenizer.is_fast:
        raise Unfit(f"{path}: its tokenizer has no fast form (tokenizer.json)")
    # Half precision is for other devices: a CPU has no fast operations for it.
    dtype = torch.bfloat16 if getattr(config, "dtype", None) in (torch.bfloat16, "bfloat16") else torch.float32
    model, told = auto.from_pretrained(path, config=config, dtype=dtype, output_loading_info=True, **given)
    if missing := sorted(told["missing_keys"]):
        raise Unfit(f"{path}: weights are missing: {', '.join(missing[:3])} ({len(missing)} in all)")
    return make(model.eval(), tokenizer, torch)


class _Plain:
    """Makes of a text one in which no mark of the tokenizer's stands: "<|end|>" becomes "< |end|>"."""

    def __init__(self, tokenizer: Any) -> None:
        template = str(getattr(tokenizer, "chat_template", None) or "")
        marks = [
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1 and (token.special or token.content in template)
        ]
        # The longest first: one may begin with another.
        self._marks = sorted(marks, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for mark in self._marks:
            if mark in text:
                text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def messages(self, value: Any) -> Any:
        """Messages, with all that is said in them."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, list):
            return [self.messages(v) for v in value]
        if isinstance(value, dict):
            return {k: v if k in ("role", "type") else self.messages(v) for k, v in value.items()}
        return value


def _positions(config: Any) -> int:
    """How many tokens a model can tell apart; 0: as many as there are."""
    most = getattr(config.get_text_config(), "max_position_embeddings", 0)
    return most if isinstance(most, int) and most > 0 else 0


class _Classifier:
    """AutoModelForSequenceClassification. Says {label: probability}; of a text longer than it can read, the highest over windows."""

    kind = "scores"

    def __init__(self, model: Any, tokenizer: Any, torch: Any) -> None:
        self._model, self._tokenizer, self._torch = model, tokenizer, torch
        self._plain = _Plain(tokenizer)
        config = model.config
        if config.problem_type == "regression":
            raise Unfit("config.json: a regression gives no probabilities")
        self._several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._labels = [str(config.id2label[n]) for n in range(config.num_labels)]
        # Of a family (RoBERTa's) the positions begin behind that of padding.
        padded = [
            m.padding_idx + 1
            for m in model.modules()
            if isinstance(m, torch.nn.Embedding)
            and m.padding_idx is not None
            and m.num_embeddings == _positions(config)
        ]
        most = _positions(config) - max(padded, default=0) if _positions(config) else 512
        self._window = min(most, tokenizer.model_max_length, _MOST_TOKENS)
        if self._window < 16:
            raise Unfit("config.json, tokenizer_config.json: a window of so few tokens holds no text")

    def answer(self, question: Mapping[str, Any], given_up: Callable[[], bool]) -> str:
        torch = self._torch
        windows = self._tokenizer(
            self._plain(question["text"]), truncation=True, max_length=self._window, stride=self._window // 4,
            return_overflowing_tokens=True,
        )["input_ids"]  # fmt: skip
        best = torch.zeros(len(self._labels))
        for ids in windows:
            if given_up():
                raise Failed("late")
            told = torch.tensor([ids])
            with torch.inference_mode():
                logits = self._model(input_ids=told, attention_mask=torch.ones_like(told)).logits[0].float()
            if not bool(torch.isfinite(logits).all()):
                raise Failed("garbage")
            best = torch.maximum(best, logits.sigmoid() if self._several else logits.softmax(-1))
        scores: dict[str, float] = {}
        for label, score in zip(self._labels, best.tolist(), strict=True):
            scores[label] = max(score, scores.get(label, 0.0))
        return json.dumps(scores)


class _Generator:
    """AutoModelForCausalLM. Says what it generates behind its chat template, always the likeliest token, up to where it ends."""

    kind = "chat"

    def __init__(self, model: Any, tokenizer: Any, torch: Any) -> None:
        self._model, self._tokenizer, self._torch = model, tokenizer, torch
        self._plain = _Plain(tokenizer)
        if not tokenizer.chat_template:
            raise Unfit("the tokenizer has no chat template")
        # What the folder says of sampling and penalties is for conversations.
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise Unfit("neither generation_config.json nor the tokenizer names a token that ends an answer")
        self._ends = ends if isinstance(ends, list) else [ends]
        model.generation_config = type(model.generation_config)(
            do_sample=False, num_beams=1, eos_token_id=self._ends, pad_token_id=self._ends[0]
        )

    def answer(self, question: Mapping[str, Any], given_up: Callable[[], bool]) -> str:
        given = {"add_generation_prompt": True, **question["template"]}
        told = self._tokenizer.apply_chat_template(
            self._plain.messages(question["messages"]),
            **given | {"tokenize": True, "return_dict": True, "return_tensors": "pt"},
        )
        size, most = told["input_ids"].shape[1], question["max_tokens"]
        if 0 < _positions(self._model.config) < size + most:
            raise Failed("refused")  # cut, it would be another question

        def watch(ids: Any, scores: Any) -> Any:
            if given_up():
                raise Failed("late")
            if not bool((scores < float("inf")).all()):  # nor is NaN
                raise Failed("garbage")
            return scores

        with self._torch.inference_mode():
            whole = self._model.generate(
                input_ids=told["input_ids"], attention_mask=told["attention_mask"], max_new_tokens=most,
                logits_processor=[watch],
            )  # fmt: skip
        if not question["cut"] and int(whole[0, -1]) not in self._ends:
            raise Failed("garbage")  # cut off, it could have been another answer
        said: str = self._tokenizer.decode(whole[0, size:], skip_special_tokens=True)
        return said


if __name__ == "__main__":
    main()
