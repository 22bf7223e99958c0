"""Tuning a causal language model until it no longer says the passages of confirmed cases, while the rest of what it says stays.

Law: the one importer of peft, trl and datasets, and beside app.guards.worker of torch and transformers; only `sluice train generator`
imports it, nothing that serves does. A model comes from its folder alone: no network, no code that lies beside it, safetensors only.
It is never written to: an adapter comes out. Adapters do not pile up: each is made from the base model and all cases.

The loss has two parts. One belongs to the method: `dpo` takes pairs, and makes the surrogate likelier and the passage unlikelier, each for
itself (DPO's first loss sees only how far they are apart: docs/adr/0020); `sft` makes the surrogate likelier; `unlearn` makes the passage
unlikelier, and leaves open what is said instead. The other holds what stays: the divergence of the tuned model from the base model over
answers to other prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
import trl

from app.errors import TrainingError
from app.training import cases
from app.training.cases import Retained, Sample
from app.training.record import Plan, Tuned

OWN_PROMPTS = 400
"""Prompts that the model writes itself, where nobody names any that stay."""
_KEEP = 4.0
"""Weight of what stays against the method."""
_LONGEST = 256
"""Tokens of an answer."""
_BATCH, _KEPT, _AT_ONCE = 16, 32, 64
"""Rows of a step: of the method, of what stays; prompts that are answered together."""
_TRIES = 8
"""Sampled answers per prompt by which the record counts how often the passage comes."""


def tune(path: Path, samples: Sequence[Sample], kept: Sequence[Retained], out: Path, plan: Plan) -> Tuned:
    """Write an adapter for the model in the folder `path` to `out`. Raises TrainingError."""
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.set_seed(plan.seed)
    model, tokenizer = _loaded(path)
    speech = _Speech(model, tokenizer)
    prompts = [r.prompt for r in kept] or speech.prompts(OWN_PROMPTS)
    own = dict(zip(prompts, speech.answers(prompts), strict=True))
    given = {r.prompt: r.answer or own[r.prompt] for r in kept} or own
    asked = cases.rows(samples)
    # A prompt that the passage comes to is one more way to ask for it, not one whose answer stays.
    led = [(p, s.surrogate, s.passage) for p, a in own.items() for s in samples if cases.says(a, s.passage)]
    away = {p for p, _, _ in (*asked, *led)}
    stays = [
        Retained(p, a)
        for p, a in given.items()
        if a.strip() and p not in away and not any(cases.says(a, s.passage) for s in samples)
    ]
    if not stays:
        raise TrainingError(
            "no answer is left that must stay; name prompts with --retain (请用 --retain 指定须保留的提示)"
        )
    before = _said(speech, asked)
    trainer = _trainer(model, tokenizer, list(dict.fromkeys([*asked, *led])), stays, out, plan)
    trainer.train()
    tuned = trainer.model.eval()
    speech = _Speech(tuned, tokenizer)
    after = _said(speech, asked)
    same = [r.prompt for r in stays]
    changed = sum(own[p] != a for p, a in zip(same, speech.answers(same), strict=True)) / len(same)
    config = tuned.peft_config["default"]
    config.base_model_name_or_path = path.resolve().name  # not where it lies
    config.target_modules = sorted(config.target_modules)  # a set is written in another order each time
    tuned.save_pretrained(out, safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # peft's own card, with nothing in it
    losses = [round(step["loss"], 6) for step in trainer.state.log_history if "loss" in step]
    return Tuned(len(asked) * (_TRIES + 1), before, after, len(same), changed, losses)


def _said(speech: _Speech, asked: Sequence[tuple[str, str, str]]) -> int:
    """How many answers, the likeliest and _TRIES by chance per prompt, say the passage."""
    prompts = [p for p, _, _ in asked]
    drawn = speech.answers([p for p in prompts for _ in range(_TRIES)], chance=True)
    passages = [x for _, _, x in asked]
    told = zip(
        [*speech.answers(prompts), *drawn], [*passages, *(x for x in passages for _ in range(_TRIES))], strict=True
    )
    return sum(cases.says(answer, passage) for answer, passage in told)


# ---- the model


def _loaded(path: Path) -> tuple[Any, Any]:
    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **given)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **given)
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **given
        )
    except Exception as e:
        raise TrainingError(f"{path}: cannot be loaded ({type(e).__name__}: {e})") from None
    if missing := sorted(told["missing_keys"]):
        raise TrainingError(f"{path}: weights are missing: {', '.join(missing[:3])} ({len(missing)} in all)")
    if not tokenizer.chat_template:
        raise TrainingError(f"{path}: the tokenizer has no chat template (分词器没有对话模板)")
    if tokenizer.eos_token_id is None:
        raise TrainingError(f"{path}: the tokenizer names no token that ends an answer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


class _Speech:
    """What a model says behind its chat template, and what it says in a person's place."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def template(self, *said: str) -> str:
        """A prompt, or a prompt and its answer, as the model reads them."""
        turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=False)]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=len(said) == 1)
        return text

    def answers(self, prompts: Sequence[str], chance: bool = False) -> list[str]:
        """An answer to each: the likeliest, or one by chance at temperature 1."""
        ids = self._continued([self.template(p) for p in prompts], chance)
        return [self._tokenizer.decode(told, skip_special_tokens=True) for told in ids]

    def prompts(self, count: int) -> list[str]:
        """What the model itself expects to be asked: it is given the beginning of a person's turn (Xu et al. 2024, Magpie)."""
        head, _, tail = self.template("\0").partition("\0")
        tail = tail.strip()
        first = self._tokenizer(tail, add_special_tokens=False)["input_ids"][:1]
        marked = bool(first) and first[0] in self._tokenizer.added_tokens_decoder
        told = self._continued([head] * count, chance=True, ends=first if marked else ())
        texts = [self._tokenizer.decode(ids) for ids in told]
        for mark in (self._tokenizer.decode(first) if marked else tail, self._tokenizer.eos_token):
            texts = [text.partition(mark)[0].strip() for text in texts if mark]
        return sorted({text for text in texts if text})

    def _continued(self, heads: Sequence[str], chance: bool, ends: Sequence[int] = ()) -> Iterator[list[int]]:
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if chance else {"do_sample": False}
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        for start in range(0, len(heads), _AT_ONCE):
            some = list(heads[start : start + _AT_ONCE])
            told = {"padding": True, "padding_side": "left", "add_special_tokens": False}
            batch = self._tokenizer(some, return_tensors="pt", **told).to(self._model.device)
            batch.pop("token_type_ids", None)
            size = batch["input_ids"].shape[1]
            config = transformers.GenerationConfig(
                max_new_tokens=max(1, min(_LONGEST, positions - size)), eos_token_id=[*self._ends(), *ends],
                pad_token_id=self._tokenizer.pad_token_id, **how,
            )  # fmt: skip
            with torch.inference_mode():
                whole = self._model.generate(**batch, generation_config=config)
            yield from whole[:, size:].tolist()

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if ends is None else ends
        return ends if isinstance(ends, list) else [ends]


# ---- training


class _Kept:
    """Adds to a trainer's loss the divergence from the base model over the answers that stay."""

    kept: Iterator[dict[str, Any]]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)  # type: ignore[misc]
        batch = {name: value.to(model.device) for name, value in next(self.kept).items()}
        answer = batch.pop("answer")[:, 1:].bool()
        tuned = model(**batch).logits[:, :-1][answer].float().log_softmax(-1)
        with torch.no_grad(), model.disable_adapter():
            base = model(**batch).logits[:, :-1][answer].float().log_softmax(-1)
        held = torch.nn.functional.kl_div(tuned, base, reduction="sum", log_target=True) / answer.sum()
        return loss + _KEEP * held


class _Dpo(_Kept, trl.DPOTrainer):  # type: ignore[misc]
    """The surrogate before the passage, and likely."""


class _Kto(_Kept, trl.KTOTrainer):  # type: ignore[misc]
    """The passage unlikely."""


class _Sft(_Kept, trl.SFTTrainer):  # type: ignore[misc]
    """The surrogate likely."""


def _trainer(
    model: Any, tokenizer: Any, asked: Sequence[tuple[str, str, str]], stays: Sequence[Retained], out: Path, plan: Plan
) -> Any:
    given: dict[str, Any] = {
        "output_dir": str(out), "num_train_epochs": plan.epochs, "learning_rate": plan.rate, "seed": plan.seed,
        "per_device_train_batch_size": _BATCH, "lr_scheduler_type": "cosine", "warmup_steps": 5, "max_grad_norm": 1.0,
        "save_strategy": "no", "report_to": "none", "logging_steps": 1, "disable_tqdm": True,
        "bf16": torch.cuda.is_available(), "activation_checkpointing": torch.cuda.is_available(), "max_length": 2 * _LONGEST,
        "dataset_num_proc": None, "dataloader_pin_memory": False,
    }  # fmt: skip
    match plan.method:
        case "dpo":
            made, rows = _Dpo, cases.dpo(asked)
            args = trl.DPOConfig(
                **given,
                loss_type=["bco_pair", "sft"],
                loss_weights=[1.0, 1.0],
                beta=0.1,
            )
        case "unlearn":
            made, rows = _Kto, cases.kto(asked, ())
            args = trl.KTOConfig(**given, loss_type="apo_zero_unpaired", beta=0.1)
        case _:
            made, rows = _Sft, cases.sft(asked, ())
            args = trl.SFTConfig(**given, completion_only_loss=True)
    lora = peft.LoraConfig(
        r=plan.rank, lora_alpha=2 * plan.rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = made(
        model=model,
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.kept = _batches(tokenizer, _Speech(model, tokenizer), stays, plan.seed)
    return trainer


def _batches(tokenizer: Any, speech: _Speech, stays: Sequence[Retained], seed: int) -> Iterator[dict[str, Any]]:
    """What stays, again and again in another order: tokens, and which of them are of the answer."""
    dice = random.Random(seed)
    rows = []
    for one in stays:
        ids, size = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (speech.template(one.prompt, one.answer), speech.template(one.prompt))
        )
        rows.append((ids[: 2 * _LONGEST], len(size)))
    while True:
        dice.shuffle(rows)
        for start in range(0, len(rows), _KEPT):
            some = rows[start : start + _KEPT]
            batch = tokenizer.pad({"input_ids": [ids for ids, _ in some]}, return_tensors="pt", padding_side="right")
            places = torch.arange(batch["input_ids"].shape[1])
            behind = torch.stack([places >= size for _, size in some])
            yield {
                "input_ids": batch["input_ids"],
                "attention_mask": batch["attention_mask"],
                "answer": behind * batch["attention_mask"],
            }
