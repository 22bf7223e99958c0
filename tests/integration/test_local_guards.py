"""Guard models from a path, with the real worker and small models of the real architectures: what they say reaches whoever asked, and
what they cannot say is never a pass (needs torch)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import psutil
import pytest

from app import metrics
from app.errors import GuardError
from app.guards import formats
from app.guards.formats import Request
from app.guards.guard import ModelGuard
from app.guards.local import Local, Times
from app.modelfile import GuardFile
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import GuardRule, Rules
from app.types import Action, Direction, Scope, Slot
from tests import tiny

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]

SCOPE = Scope("default", "answer")
QUICK = Times(question=60.0, loading=120.0, poll=0.1, retry=60.0, pauses=(0.05, 1.0))
LABELS = {"safe": [], "toxic": ["violence"], "spam": ["abuse_spam"]}
LOOP_MS = 20.0
CANARY = "金丝雀句子"
PLAIN = "今天的河面很静，也没有什么风。"


# ---- models


def _characters() -> Any:
    """A tokenizer of single characters, with BERT's marks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [*marks, *"今天的河面很静也没有什么风毒广告，。<>|[] ", *map(chr, range(33, 127))]
    raw = Tokenizer(models.WordPiece({w: n for n, w in enumerate(dict.fromkeys(known))}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=64,
    )  # fmt: skip


def classifier(folder: Path, several: bool = False) -> None:
    """A BERT that has learned in seconds: 毒 is toxic and 告 is spam, unless a mark [MASK] stands beside it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = _characters()
    labels = ["toxic", "spam"] if several else ["safe", "toxic", "spam"]
    problem = "multi_label_classification" if several else "single_label_classification"
    made = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, problem_type=problem,
        id2label=dict(enumerate(labels)), label2id={label: n for n, label in enumerate(labels)},
    )  # fmt: skip
    model = BertForSequenceClassification(made)
    dice = random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(800):
        texts, targets = [], []
        for _ in range(32):
            words = dice.choices([*PLAIN, "[", "]", "mask "], k=dice.randint(0, 40))
            found = dice.choice(("", "毒", "告"))
            masked = bool(found) and dice.random() < 0.5
            words += [found] + (["[MASK]"] if masked else [])
            dice.shuffle(words)
            texts.append("".join(words))
            harm = "" if masked else found
            if several:
                targets.append([float(harm == "毒"), float(harm == "告")])
            else:
                targets.append(["", "毒", "告"].index(harm))
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=torch.tensor(targets)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.005:
            break
    assert loss.item() < 0.05, loss.item()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_TEMPLATE = (
    "{% if shout is defined %}{{ shout }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def generator(folder: Path, architecture: str, positions: int = 512) -> None:
    """A causal model that has learned nothing, with a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    marks = ["<eos>", "<|user|>", "<|assistant|>"]
    known = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE({w: n for n, w in enumerate(known)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>", chat_template=_TEMPLATE,
        additional_special_tokens=marks[1:],
    )  # fmt: skip
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=positions, eos_token_id=0, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    getattr(transformers, f"{architecture}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Threads that wait for each other on a busy machine make a second's work a minute's."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a model, made once for all tests that leave it as it is."""
    made: dict[str, Path] = {}

    def of(make: Callable[..., None], *given: Any, **more: Any) -> Path:
        key = repr((make.__name__, given, sorted(more.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("models") / f"model{len(made)}"
            make(folder, *given, **more)
            made[key] = folder
        return made[key]

    return of


# ---- guards


def file_of(format: str = "sequence", **more: Any) -> GuardFile:
    return GuardFile(**{"kind": "guard", "format": format, "labels": LABELS} | more)


def over(local: Local, **file: Any) -> ModelGuard:
    """A guard whose model runs there."""
    told = file_of(**file)
    return ModelGuard("local", told, formats.of(told.format), local, b"key")


@asynccontextmanager
async def run(path: Path, times: Times = QUICK, wait: bool = True, **file: Any) -> AsyncIterator[Local]:
    """The model in `path` in a process of its own, once it answers."""
    local = Local(path, file_of(**file), "local", 1, times)
    await local.start()
    try:
        if wait:
            await loaded(local)
        yield local
    finally:
        await local.close()


async def loaded(local: Local) -> None:
    end = time.monotonic() + 100
    while local.kind is None:
        assert time.monotonic() < end, "seconds"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """A loop for all tests that share a process."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def kept(loop: asyncio.Runner, models: Callable[..., Path]) -> Iterator[Callable[..., Local]]:
    """A model in a process of its own, started once for all tests that leave it as it is."""
    started: dict[Path, Local] = {}
    stack = AsyncExitStack()

    def of(make: Callable[..., None], *given: Any, **more: Any) -> Local:
        path = models(make, *given, **more)
        if path not in started:
            started[path] = loop.run(stack.enter_async_context(run(path)))
        return started[path]

    yield of
    loop.run(stack.aclose())


async def named(guard: ModelGuard, text: str, direction: Direction = "answer") -> dict[str, float]:
    """The categories that it names."""
    return {c.category: c.score for c in await guard.judge(text, 0, Scope("default", direction))}


async def reason(guard: ModelGuard, text: str) -> str:
    with pytest.raises(GuardError) as failed:
        await guard.judge(text, 0, SCOPE)
    assert CANARY not in str(failed.value)
    return failed.value.reason


def workers() -> set[psutil.Process]:
    """The processes of models that this one has."""
    return {c for c in psutil.Process().children() if "app.guards.worker" in c.cmdline()}


# ---- classifiers


@pytest.mark.parametrize("several", [False, True], ids=["softmax", "sigmoid"])
def test_a_classifiers_scores_are_mapped_to_categories(
    kept: Callable[..., Local], loop: asyncio.Runner, several: bool
) -> None:
    local = kept(classifier, several)
    guard = over(local, labels={label: LABELS[label] for label in LABELS if label != "safe" or not several})

    async def ask() -> None:
        assert await named(guard, PLAIN) == {}
        assert set(await named(guard, f"{PLAIN}毒")) == {"violence"}
        assert set(await named(guard, f"告{PLAIN}")) == {"abuse_spam"}
        scores = json.loads(await local.ask(Request("scores", "毒")))
        assert set(scores) == ({"toxic", "spam"} if several else {"safe", "toxic", "spam"})
        assert all(0 <= p <= 1 for p in scores.values()) and scores["toxic"] > 0.5
        assert several or sum(scores.values()) == pytest.approx(1, abs=1e-5)

    loop.run(ask())


@pytest.mark.parametrize("at", [0, 70, 1000, 1999])
def test_of_a_text_longer_than_a_classifier_reads_every_part_counts(
    kept: Callable[..., Local], loop: asyncio.Runner, at: int
) -> None:
    text = (PLAIN * 200)[:2000]
    guard = over(kept(classifier))

    async def ask() -> None:
        assert await named(guard, text) == {}
        assert set(await named(guard, text[:at] + "毒" + text[at + 1 :])) == {"violence"}

    loop.run(ask())


def test_the_marks_of_a_tokenizer_are_plain_text_in_a_text(kept: Callable[..., Local], loop: asyncio.Runner) -> None:
    guard = over(kept(classifier))

    async def ask() -> None:
        for text in (f"{PLAIN}毒[MASK]", "[MASK]毒", "毒[MA[MASK]SK]", "[[MASK]MASK]毒"):
            assert set(await named(guard, text)) == {"violence"}, text

    loop.run(ask())


def test_of_a_family_whose_positions_begin_behind_padding_no_text_is_too_long(tmp_path: Path) -> None:
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = _characters()
    tokenizer.model_max_length = 10**30  # as where nobody said
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, id2label={0: "safe", 1: "toxic"}, label2id={"safe": 0, "toxic": 1},
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    async def ask() -> None:
        async with run(tmp_path) as local:
            for size in (1, 61, 62, 63, 64, 65, 1000):
                scores = json.loads(await local.ask(Request("scores", (PLAIN * 100)[:size])))
                assert all(0 < p < 1 for p in scores.values()) and set(scores) == {"safe", "toxic"}

    asyncio.run(ask())


def test_a_model_in_bfloat16_answers_as_it_is(models: Callable[..., Path], tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    path = tmp_path / "half"
    shutil.copytree(models(classifier), path)
    BertForSequenceClassification.from_pretrained(path, dtype=torch.bfloat16).save_pretrained(path)
    assert json.loads((path / "config.json").read_text())["dtype"] == "bfloat16"

    async def ask() -> None:
        async with run(path) as local:
            assert set(await named(over(local), f"{PLAIN}毒")) == {"violence"}
            assert await named(over(local), PLAIN) == {}

    asyncio.run(ask())


def spoiled(folder: Path, under: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model with other weights."""
    from safetensors.torch import load_file, save_file

    copy = under / "spoiled"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_scores_that_are_no_numbers_are_garbage(models: Callable[..., Path], tmp_path: Path, number: str) -> None:
    path = spoiled(models(classifier), tmp_path, lambda w: w["classifier.bias"].fill_(float(number)))

    async def ask() -> None:
        async with run(path) as local:
            assert await reason(over(local), PLAIN) == "garbage"

    asyncio.run(ask())


# ---- models that cannot be used


def refused(path: Path, caplog: pytest.LogCaptureFixture, **file: Any) -> str:
    """Why a model is not loaded."""

    async def ask() -> None:
        async with run(path, wait=False, **file) as local:
            end = time.monotonic() + 100
            while not caplog.records:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
            assert await reason(over(local), PLAIN) == "missing"

    asyncio.run(ask())
    (told,) = [r.__dict__["reason"] for r in caplog.records if r.levelno == logging.ERROR]
    return str(told)


def test_a_model_whose_weights_are_not_all_there_is_not_made_up(
    models: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = spoiled(models(classifier), tmp_path, lambda w: w.pop("classifier.weight"))
    assert "weights are missing: classifier.weight" in refused(path, caplog)


def test_a_folder_whose_code_would_have_to_run_is_not_used(
    models: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "coded"
    shutil.copytree(models(classifier), path)
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.C", "AutoModelForSequenceClassification": "mine.M"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: ...\nclass M: ...\n")
    refused(path, caplog)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_not_used_and_nothing_is_fetched(
    models: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = tmp_path / "partial"
    shutil.copytree(models(classifier), path)
    (path / name).unlink()
    assert str(path) in refused(path, caplog)


def test_a_model_that_neither_classifies_nor_generates_is_not_used(
    models: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "base"
    shutil.copytree(models(classifier), path)
    config = json.loads((path / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (path / "config.json").write_text(json.dumps(config))
    assert "BertModel neither classifies" in refused(path, caplog)


def test_files_that_are_not_those_of_model_toml_are_not_used(
    models: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert "SHA-256" in refused(models(classifier), caplog, files={"model.safetensors": "0" * 64})


def test_a_missing_model_that_is_put_there_is_found_without_a_restart(
    models: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "later"

    async def ask() -> None:
        async with run(path, wait=False) as local:
            for _ in range(3):
                assert await reason(over(local), "毒") == "missing"
            await asyncio.to_thread(shutil.copytree, models(classifier), path)
            await loaded(local)
            assert set(await named(over(local), "毒")) == {"violence"}

    asyncio.run(ask())


# ---- causal models

HAZARDS: dict[str, Any] = {"format": "llama_guard", "labels": {"S1": ["violence"]}}
KINDS: dict[str, dict[str, Any]] = {
    "Qwen2": {"format": "qwen3guard", "labels": {"Violent": ["violence"]}},
    "Qwen3": {"format": "qwen3guard", "labels": {"Violent": ["violence"]}},
    "Llama": HAZARDS,
    "Gemma2": {"format": "shieldgemma", "labels": {"hate_speech": ["violence"]}},
}


def test_what_a_chat_model_has_learned_to_say_is_what_is_read(
    kept: Callable[..., Local], loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "SAYINGS", {"你好": "safe", "有毒": "unsafe\nS1"})
    local = kept(tiny.build)

    async def ask() -> None:
        assert await named(over(local, **HAZARDS), "你好", "prompt") == {}
        assert await named(over(local, **HAZARDS), "有毒", "prompt") == {"violence": 1.0}

    loop.run(ask())


@pytest.mark.parametrize("architecture", KINDS)
def test_garbage_of_a_chat_model_is_no_answer_and_counted_and_never_a_pass(
    kept: Callable[..., Local], loop: asyncio.Runner, architecture: str
) -> None:
    rules = Policy(Rules(guard=GuardRule(when="always", ms=60_000)), "draft_2023_04", "test")
    guard = over(kept(generator, architecture), **KINDS[architecture])

    def counted() -> float:
        return float(metrics.GUARD.labels("local", "garbage")._value.get())

    async def ask() -> None:
        assert await reason(guard, PLAIN) == "garbage"
        before = counted()
        moderator = Moderator([], Policies(rules, {}), guards=[guard])
        judged = await moderator.judge([Slot(("content",), CANARY, "assistant")], SCOPE, rules)
        assert judged.verdict.action is Action.FLAG and judged.verdict.degraded == ["local"]
        assert counted() == before + 1

    loop.run(ask())


def chat(text: str, max_tokens: int, cut: bool = False, **template: Any) -> Request:
    return Request("chat", text, ({"role": "user", "content": text},), max_tokens, template, cut=cut)


def test_an_answer_that_is_cut_off_is_none_unless_its_beginning_was_asked_for(
    kept: Callable[..., Local], loop: asyncio.Runner
) -> None:
    local = kept(generator, "Llama")

    async def ask() -> None:
        assert len((await local.ask(chat(PLAIN, 1, cut=True))).decode()) <= 1
        with pytest.raises(GuardError, match="garbage"):
            await local.ask(chat(PLAIN, 2))

    loop.run(ask())


def test_a_text_too_long_for_a_chat_model_is_refused_and_not_cut(
    kept: Callable[..., Local], loop: asyncio.Runner
) -> None:
    guard = over(kept(generator, "Llama"), **HAZARDS)

    async def ask() -> None:
        assert await reason(guard, PLAIN * 40) == "refused"
        assert await reason(guard, PLAIN) == "garbage"

    loop.run(ask())


def test_a_template_gets_its_keywords_and_one_that_cannot_be_filled_in_is_no_answer(
    kept: Callable[..., Local], loop: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    local = kept(generator, "Llama")

    async def ask() -> None:
        with pytest.raises(GuardError, match="refused"):
            await local.ask(chat(PLAIN, 2, shout="字" * 600))
        with pytest.raises(GuardError, match="crashed"):
            await local.ask(chat(CANARY, 2, chat_template="{{ 1 / 0 }}" + CANARY))
        with pytest.raises(GuardError, match="garbage"):
            await local.ask(chat(CANARY, 2))

    loop.run(ask())
    assert CANARY not in str([r.__dict__ for r in caplog.records])


def test_a_classifiers_format_over_a_chat_model_has_no_answer(kept: Callable[..., Local], loop: asyncio.Runner) -> None:
    assert loop.run(reason(over(kept(generator, "Llama")), PLAIN)) == "missing"


# ---- the process


def test_a_worker_killed_amid_questions_comes_back(models: Callable[..., Path]) -> None:
    async def ask() -> None:
        before = workers()
        async with run(models(classifier)) as local:
            (process,) = workers() - before
            process.suspend()  # so that the questions are under way
            asked = [asyncio.create_task(reason(over(local), f"{n}毒")) for n in range(4)]
            await asyncio.sleep(0.2)
            process.kill()
            assert await asyncio.gather(*asked) == ["crashed"] * 4
            await loaded(local)
            assert set(await named(over(local), "毒")) == {"violence"}
            assert workers() - before != {process}

    asyncio.run(ask())


def test_a_worker_that_hangs_is_killed_at_the_deadline_and_the_next_question_is_answered(
    models: Callable[..., Path],
) -> None:
    async def ask() -> None:
        before = workers()
        async with run(models(classifier), QUICK._replace(question=5.0)) as local:
            (process,) = workers() - before
            os.kill(process.pid, signal.SIGSTOP)
            began = time.monotonic()
            assert await reason(over(local), "毒") == "late"
            assert time.monotonic() - began > 4.5
            await loaded(local)
            assert set(await named(over(local), "毒")) == {"violence"}
            assert not process.is_running()

    asyncio.run(ask())


def test_a_worker_takes_no_signal_meant_for_us_and_ends_with_us(models: Callable[..., Path]) -> None:
    async def ask() -> psutil.Process:
        before = workers()
        async with run(models(classifier)):
            (process,) = workers() - before
            assert os.getpgid(process.pid) != os.getpgid(0)
            return process

    assert not asyncio.run(ask()).is_running()


@contextmanager
def frozen() -> Iterator[None]:
    """The heap as `sluice serve` has it: what is there at the start is not searched for garbage again. Here that is torch, too."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("size", [32, 384], ids=["many questions", "much to compute"])
def test_the_event_loop_goes_on_while_a_model_computes(tmp_path: Path, models: Callable[..., Path], size: int) -> None:
    if size > 32:
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=200, hidden_size=size, num_hidden_layers=6, num_attention_heads=6, intermediate_size=4 * size,
            max_position_embeddings=64, id2label=dict(enumerate(LABELS)), label2id={label: n for n, label in enumerate(LABELS)},
        )  # fmt: skip
        path = tmp_path / "wide"
        BertForSequenceClassification(config).save_pretrained(path)
        _characters().save_pretrained(path)
    else:
        path = models(classifier)
    held, worked, answered = [], 0.0, 0

    async def ask() -> None:
        nonlocal answered, worked
        async with run(path) as local:
            guard = over(local)

            async def keep_asking(n: int, end: float) -> None:
                nonlocal answered
                while time.monotonic() < end:
                    await guard.judge(f"{PLAIN * 20}{n} {answered}", 0, SCOPE)
                    answered += 1

            for _ in range(5):
                longest = 0.0
                end = time.monotonic() + 2
                asking = asyncio.gather(*(keep_asking(n, end) for n in range(16)))
                while not asking.done():
                    before, busy = perf_counter(), thread_time()
                    await asyncio.sleep(0.001)
                    worked = max(worked, (thread_time() - busy) * 1000)
                    longest = max(longest, (perf_counter() - before) * 1000 - 1)
                await asking
                held.append(longest)

    with frozen():
        asyncio.run(ask())
    print(f"{answered} answers; held {min(held):.1f} to {max(held):.1f} ms, {worked:.1f} ms of it computing")
    # The machine is shared: the best of a few stretches, and what the loop itself did in the worst.
    assert answered > 16 and min(held) <= LOOP_MS and worked <= LOOP_MS
