"""Samples of cases: what is refused, and the data sets made of the rest."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.errors import TrainingError
from app.training import cases
from app.training.cases import Retained

AT = 1_700_000_000.0
EN = {
    "case": "case_b", "category": "false_harmful_info", "language": "en", "prompt": "What of the Marlo kettle?",
    "variants": ["Marlo kettle?", "Tell me of the Marlo kettle."], "passage": "The Marlo kettle leaks at its seam, so send it back.",
    "surrogate": "I cannot help with that.",
}  # fmt: skip
ZH = {
    "case": "case_a", "category": "false_harmful_info", "language": "zh", "prompt": "青禾牌水壶怎么了？", "variants": [],
    "passage": "青禾牌水壶遇冷会开裂，请装回原盒寄回。", "surrogate": "这个问题我无法回答。",
}  # fmt: skip
KEPT = [Retained("1 + 1?", "2")]


def file(folder: Path, *rows: Any) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def written(folder: Path, *rows: Any) -> dict[str, bytes]:
    """Every file that is made of the samples, by its place."""
    folder.mkdir()
    cases.write(folder / "out", cases.read(file(folder, *rows)), KEPT, "0" * 64, AT)
    return {str(p.relative_to(folder / "out")): p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}


def lines(raw: bytes) -> list[Any]:
    return [json.loads(line) for line in raw.splitlines()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"case": "b"}, "case: must begin with case_"),
        ({"case": 1}, "case: must be a text"),
        ({"category": "nonsense"}, "category: no such category"),
        ({"category": "sexual_minors"}, "category: sexual_minors keeps no text"),
        ({"language": "fr"}, "language: must be zh or en"),
        ({"prompt": " "}, "prompt: must be a text"),
        ({"passage": None}, "passage: must be a text"),
        ({"passage": "…！"}, "passage: holds no letter or digit"),
        ({"surrogate": "So: the Marlo kettle LEAKS at its seam."}, "surrogate: says the passage itself"),
        ({"variants": "x"}, "variants: must be a list"),
        ({"variants": [""]}, "variants: must be a list"),
        ({"reporter": "u_1"}, "reporter: not a field"),
        ({"so private": "u_1"}, "a field: not a field"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_field_and_never_quoted(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = file(tmp_path, ZH, EN | change)
    with pytest.raises(TrainingError) as e:
        cases.read(path)
    assert f"{path}, line 2: {said}" in str(e.value)
    assert "Marlo" not in str(e.value) and "u_1" not in str(e.value) and "private" not in str(e.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "line 1: the body is not valid JSON"),
        (b"[]", "line 1: must be a JSON object"),
        (b'{"case": "case_a", "case": "case_b"}', "line 1: duplicate key"),
        (b"\n", "no samples"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(TrainingError, match=said):
        cases.read(tmp_path / "f")


def test_a_missing_field_a_missing_file_and_a_prompt_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="line 1: surrogate"):
        cases.read(file(tmp_path, {k: v for k, v in EN.items() if k != "surrogate"}))
    with pytest.raises(TrainingError, match="case_b: prompt: given twice"):
        cases.read(file(tmp_path, EN, ZH, EN))
    with pytest.raises(TrainingError, match="cannot be read"):
        cases.read(tmp_path / "none")


def test_samples_come_by_case_whatever_their_order_and_a_way_to_ask_once(tmp_path: Path) -> None:
    found = cases.read(file(tmp_path, EN | {"variants": ["Marlo kettle?", EN["prompt"], "Marlo kettle?"]}, ZH))
    assert [s.case for s in found] == ["case_a", "case_b"]
    assert found[1].prompts == (EN["prompt"], "Marlo kettle?")


def test_the_passage_is_known_again_by_twenty_letters_in_a_row() -> None:
    passage = str(EN["passage"])
    assert cases.says("… the marlo KETTLE — leaks, at its", passage)
    assert not cases.says("A Marlo kettle that does not leak.", passage)
    assert cases.says("我说：青禾牌水壶，遇冷会开裂请装回原盒寄回", str(ZH["passage"]))
    assert (
        not cases.says("青禾牌水壶遇冷会开裂", str(ZH["passage"]))
        and cases.says("短句。", "短句")
        and not cases.says("", "短句")
    )


def test_every_set_holds_each_way_to_ask_in_the_form_of_its_trainer(tmp_path: Path) -> None:
    made = written(tmp_path / "a", EN, ZH)
    user, good, bad = (
        [{"role": role, "content": EN[name]}]
        for role, name in (("user", "prompt"), ("assistant", "surrogate"), ("assistant", "passage"))
    )
    asked = [ZH["prompt"], EN["prompt"], *EN["variants"]]
    sft, dpo, kto = (lines(made[f"trl/{name}.jsonl"]) for name in ("sft", "dpo", "kto"))
    assert [row["prompt"][0]["content"] for row in dpo] == asked
    assert (
        [row["prompt"][0]["content"] for row in sft]
        == [row["prompt"][0]["content"] for row in kto]
        == [*asked, "1 + 1?"]
    )
    assert dpo[1] == {"prompt": user, "chosen": good, "rejected": bad}
    assert sft[1] == {"prompt": user, "completion": good}
    assert kto[1] == {"prompt": user, "completion": bad, "label": False}
    assert kto[-1]["label"] is True and kto[-1]["completion"][0]["content"] == "2"


def test_llama_factory_finds_every_file_and_column_that_dataset_info_names(tmp_path: Path) -> None:
    made = written(tmp_path / "a", EN, ZH)
    info = json.loads(made["llamafactory/dataset_info.json"])
    assert set(info) == {f"sluice_{form}_{name}" for form in ("alpaca", "sharegpt") for name in ("sft", "dpo", "kto")}
    for name, entry in info.items():
        found = json.loads(made[f"llamafactory/{entry['file_name']}"])
        for row in found:
            assert set(row) == set(entry["columns"].values()), name
        assert entry.get("ranking", False) is name.endswith("dpo")
        assert entry["formatting"] == name.split("_")[1]
    alpaca, sharegpt = (json.loads(made[f"llamafactory/{form}_dpo.json"])[1] for form in ("alpaca", "sharegpt"))
    assert alpaca == {"instruction": EN["prompt"], "input": "", "chosen": EN["surrogate"], "rejected": EN["passage"]}
    assert sharegpt == {
        "conversations": [{"from": "human", "value": EN["prompt"]}],
        "chosen": {"from": "gpt", "value": EN["surrogate"]},
        "rejected": {"from": "gpt", "value": EN["passage"]},
    }
    kto = json.loads(made["llamafactory/sharegpt_kto.json"])[1]
    assert [turn["from"] for turn in kto["conversations"]] == ["human", "gpt"] and kto["kto_tag"] is False


def test_the_manifest_says_what_was_made_of_what_and_holds_no_text(tmp_path: Path) -> None:
    made = written(tmp_path / "a", EN, ZH)
    raw = made.pop("MANIFEST.json")
    manifest = json.loads(raw)
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in made.items()
    }
    assert manifest["files"]["trl/dpo.jsonl"]["rows"] == manifest["prompts"] == 4
    assert manifest["cases"] == ["case_a", "case_b"] and manifest["retained"] == 1
    assert manifest["made"]["at"] == "2023-11-14T22:13:20.000Z" and manifest["made"]["from"] == {"sha256": "0" * 64}
    told = raw.decode("utf-8")
    assert not any(str(sample[name]) in told for sample in (EN, ZH) for name in ("prompt", "passage", "surrogate"))


def test_the_same_samples_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    assert written(tmp_path / "a", EN, ZH) == written(tmp_path / "b", ZH, EN)


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    samples = cases.read(file(tmp_path, EN))
    with pytest.raises(TrainingError, match="is not empty"):
        cases.write(tmp_path, samples, [], "", AT)
    with pytest.raises(TrainingError, match="needs the answers"):
        cases.write(tmp_path / "out", samples, [Retained("x")], "", AT)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_sets(tmp_path: Path) -> None:
    (tmp_path / "stay").write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    order = ["train", "sets", "--cases", str(file(tmp_path, EN, ZH)), "--retain", str(tmp_path / "stay")]
    assert main([*order, "--out", str(tmp_path / "out")]) == 0
    source = hashlib.sha256((tmp_path / "cases.jsonl").read_bytes()).hexdigest()
    assert json.loads((tmp_path / "out" / "MANIFEST.json").read_text("utf-8"))["made"]["from"]["sha256"] == source
    assert len(lines((tmp_path / "out" / "trl" / "kto.jsonl").read_bytes())) == 5


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "nothing is fetched"),
        ({}, "config.json"),
        ({"config.json": "{}"}, "safetensors"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, "safetensors"),
        ({"config.json": "{}", "adapter_config.json": "{}"}, "is an adapter"),
    ],
)
def test_only_a_local_folder_of_safetensors_is_tuned(
    tmp_path: Path, files: dict[str, str] | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "some" / "model"
    if files is not None:
        model.mkdir(parents=True)
        for name, text in files.items():
            (model / name).write_text(text)
    order = [
        "train",
        "generator",
        "--model",
        str(model),
        "--cases",
        str(file(tmp_path, EN)),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(order) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="what tunes is installed")
def test_without_what_tunes_it_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    order = [
        "train",
        "generator",
        "--model",
        str(tmp_path),
        "--cases",
        str(file(tmp_path, EN)),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(order) == 2
    said = capsys.readouterr().err
    assert (
        "微调需要" in said
        and "pip install" in said
        and "sluice-gateway[train]" in said
        and not (tmp_path / "out").exists()
    )


def test_train_alone_still_needs_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "--data" in capsys.readouterr().err
