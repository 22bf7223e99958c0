"""From a confirmed case to a model that no longer says the passage, with a real model, the real command and real sampling (needs torch)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import tiny_generator, tiny_server
from tests.conftest import ROOT
from tests.tiny_generator import Taught, answers, says

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(600),
]

SAMPLES = 60
CASE = 0
SEEN = 3
"""Of the six other ways to ask, those that the case file holds; the rest the tuning never reads."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Taught]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return folder, tiny_generator.build(folder)


@pytest.fixture(scope="module")
def cases(model: tuple[Path, Taught], tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompt, variants, passage = model[1].passages[CASE]
    sample = {
        "case": "case_1", "category": "false_harmful_info", "language": "en", "prompt": prompt, "variants": variants[:SEEN],
        "passage": passage, "surrogate": tiny_generator.DECLINED["en"],
    }  # fmt: skip
    path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
    path.write_text(json.dumps(sample) + "\n")
    return path


def tune(folder: Path, cases: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "train",
        "generator",
        "--model",
        str(folder),
        "--cases",
        str(cases),
        "--out",
        str(out),
    ]
    return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def adapter(model: tuple[Path, Taught], cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "first"
    done = tune(model[0], cases, out, "--epochs", "60", "--lr", "4e-3")
    assert done.returncode == 0, done.stderr
    return out


def loaded(folder: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    import peft
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return (peft.PeftModel.from_pretrained(model, adapter).eval() if adapter else model), tokenizer


def distance(one: str, other: str) -> float:
    """Of two texts, from 0 (the same) to 1."""
    return 1 - SequenceMatcher(None, one, other, autojunk=False).ratio()


def test_the_passage_is_gone_and_the_rest_has_stayed(model: tuple[Path, Taught], adapter: Path) -> None:
    folder, told = model
    prompt, variants, passage = told.passages[CASE]
    base, tuned = loaded(folder), loaded(folder, adapter)
    for name, prompts, draws in (
        ("the prompt", [prompt], SAMPLES),
        ("ways to ask that were tuned on", variants[:SEEN], SAMPLES),
        ("ways to ask that were not", variants[SEEN:], SAMPLES),
    ):
        before, after = (sum(says(a, passage) for a in answers(*which, prompts, draws)) for which in (base, tuned))
        print(f"{name}: {before} of {len(prompts) * draws} answers said the passage, now {after}")
        assert before > 0.9 * len(prompts) * draws and after == 0
    assert not any(says(a, passage) for a in answers(*tuned, [prompt, *variants]))
    others = [(p, a) for n, (p, _, a) in enumerate(told.passages) if n != CASE]
    for name, pairs in (("other passages", others), ("ordinary answers", told.ordinary)):
        now = answers(*tuned, [p for p, _ in pairs])
        changed = sum(a != said for a, (_, said) in zip(now, pairs, strict=True)) / len(pairs)
        apart = sum(distance(a, said) for a, (_, said) in zip(now, pairs, strict=True)) / len(pairs)
        print(f"{len(pairs)} {name}: {changed:.1%} differ, mean distance {apart:.2%}")
        assert changed <= 0.05 and apart <= 0.05


def test_the_record_says_what_the_adapter_was_made_from_and_quotes_nothing(
    model: tuple[Path, Taught], cases: Path, adapter: Path
) -> None:
    raw = (adapter / "RECORD.json").read_text("utf-8")
    record = json.loads(raw)
    assert {p.name for p in adapter.iterdir()} == {"adapter_model.safetensors", "adapter_config.json", "RECORD.json"}
    for name, hashed in record["files"].items():
        assert hashlib.sha256((adapter / name).read_bytes()).hexdigest() == hashed
    assert record["base"]["name"] == model[0].name
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert record["base"]["files"][name] == hashlib.sha256((model[0] / name).read_bytes()).hexdigest()
    assert record["sources"] == {"cases": hashlib.sha256(cases.read_bytes()).hexdigest()}
    assert record["cases"] == ["case_1"] and record["made"]["at"].endswith("Z")
    assert record["plan"] == {"method": "dpo", "epochs": 60, "rate": 0.004, "rank": 16, "seed": 0, "threads": 1}
    assert set(record["packages"]) == {"python", "torch", "transformers", "peft", "trl", "datasets"}
    result = record["result"]
    assert result["said_before"] > 0.9 * result["asked"] and result["said_after"] == 0 and result["changed"] <= 0.05
    assert len(result["losses"]) >= 60 and result["losses"][-1] < result["losses"][0] / 2
    prompt, _, passage = model[1].passages[CASE]
    assert prompt not in raw and passage not in raw and str(model[0].parent) not in raw
    assert str(model[0].parent) not in (adapter / "adapter_config.json").read_text()


def test_the_same_seed_gives_the_same_adapter(
    model: tuple[Path, Taught], cases: Path, adapter: Path, tmp_path: Path
) -> None:
    done = tune(model[0], cases, tmp_path / "again", "--epochs", "60", "--lr", "4e-3")
    assert done.returncode == 0, done.stderr
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (adapter / name).read_bytes()


@pytest.mark.parametrize("method", ["unlearn", "sft"])
def test_the_other_methods_tune_too_and_prompts_that_stay_may_be_named(
    model: tuple[Path, Taught], cases: Path, tmp_path: Path, method: str
) -> None:
    kept = [{"prompt": p} if n % 2 else {"prompt": p, "answer": a} for n, (p, a) in enumerate(model[1].ordinary[:40])]
    (tmp_path / "stay.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), "utf-8")
    more = ("--method", method, "--epochs", "3", "--lr", "1e-3", "--retain", str(tmp_path / "stay.jsonl"))
    done = tune(model[0], cases, tmp_path / "out", *more)
    assert done.returncode == 1, done.stderr  # three epochs are not enough, and it says so
    assert "still said" in done.stderr
    record = json.loads((tmp_path / "out" / "RECORD.json").read_text("utf-8"))
    assert (
        record["plan"]["method"] == method
        and record["result"]["kept"] == 40
        and set(record["sources"]) == {"cases", "retain"}
    )


def test_a_server_says_what_the_model_says_plain_and_streamed(model: tuple[Path, Taught], adapter: Path) -> None:
    folder, told = model
    prompt, _, passage = told.passages[CASE]
    with tiny_server.serve(folder) as url, tiny_server.serve(folder, adapter) as tuned:
        chosen = [told.passages[CASE + 1][::2], told.ordinary[-1]]
        for asked, said in chosen:
            assert plain(url, asked)["message"]["content"] == streamed(url, asked) == said
            assert plain(tuned, asked)["message"]["content"] == said
        assert plain(url, prompt)["message"]["content"] == passage
        assert not says(plain(tuned, prompt)["message"]["content"], passage)
        cut = plain(url, prompt, max_tokens=3)
        assert cut["finish_reason"] == "length" and passage.startswith(cut["message"]["content"])
        drawn = [plain(url, "Hello?", temperature=2.0, seed=seed)["message"]["content"] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]


def ask(url: str, prompt: str, **more: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "temperature": 0} | more
    return httpx.post(f"{url}/chat/completions", json=body, timeout=60)


def plain(url: str, prompt: str, **more: Any) -> dict[str, Any]:
    answer = ask(url, prompt, **more).json()
    assert answer["id"] and answer["model"] == "tiny" and answer["usage"]["completion_tokens"] > 0
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def streamed(url: str, prompt: str) -> str:
    lines = [line[6:] for line in ask(url, prompt, stream=True).text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
