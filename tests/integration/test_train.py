"""`sluice train` on a small folder of data: the same files give the same model, which does what it was taught; bad data is named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from app import modelfile
from app.cli import main
from app.detectors import classifier
from app.text import fold
from app.training import pairset, sources
from app.types import Scope

GOOD = "今天河面很静天气不错我们去散步看书写字喝茶聊天做饭洗碗读报听雨种花"
BAD = "坏词恶语毒话狠招歪门邪道"
SCOPE = Scope("default", "answer")


def sentence(dice: random.Random, bad: bool) -> str:
    words = [dice.choice(GOOD) + dice.choice(GOOD) for _ in range(8)]
    if bad:
        words[dice.randrange(8)] = BAD[:2] + dice.choice(BAD)
    return "，".join(words) + "。"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set as a file of a few rows."""
    folder, dice = tmp_path_factory.mktemp("data"), random.Random(1)
    kinds = {"SWSR": "discrimination_gender", "COLD": "discrimination_race", "HED-COLD": "discrimination_region"}
    for source, (name, _) in sources.SOURCES.items():
        rows = [
            {
                "text": sentence(dice, n % 2 == 1),
                "label": n % 2,
                "category": kinds.get(source, "violence"),
                "lang": "zh",
                "source": "x y",
            }
            for n in range(60)
        ]
        rows.append({"text": "说不准的一句话", "label": 2, "category": "violence", "lang": "zh", "source": "x y"})
        (folder / name).write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    lines = ["file\tlicence", *(f"{name}\tMIT" for name, _ in sources.SOURCES.values())]
    (folder / "datasets_manifest.tsv").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, dice = tmp_path_factory.mktemp("pairs"), random.Random(2)
    for category in ("violence", "abuse_spam"):
        rows = ["\t".join(sources.COLUMNS)]
        for n in range(30):
            for lang in ("zh", "en"):
                rows.append(
                    "\t".join((f"a{n:03d}", lang, "say", "everyday", sentence(dice, True), sentence(dice, False)))
                )
        (folder / f"{category}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def train(data: Path, pairs: Path, out: Path) -> int:
    return main(["train", "--data", str(data), "--pairs", str(pairs), "--out", str(out / "grams")])


@pytest.fixture(scope="module")
def trained(data: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one trained on these."""
    out = tmp_path_factory.mktemp("trained")
    assert train(data, pairs, out) == 0
    return out


def test_article_7_a_model_says_what_it_was_made_from(trained: Path) -> None:
    file = modelfile.read(trained / "grams")
    assert isinstance(file, modelfile.GramsFile)
    made = {source.name: source for source in file.sources}
    assert set(made) == {*sources.SOURCES, "matched pairs", "everyday texts"}
    assert (made["COLD"].licence, made["COLD"].texts, made["COLD"].violating) == ("MIT", 60, 30)
    assert made["COLD"].sha256 is not None and made["matched pairs"].violating * 2 == made["matched pairs"].texts == 240


def test_the_same_data_gives_the_same_model_which_does_what_it_was_taught(
    data: Path, pairs: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train(data, pairs, tmp_path / "two") == 0
    said = json.loads(capsys.readouterr().out)
    first, second = ((folder / "grams" / "weights.npz").read_bytes() for folder in (trained, tmp_path / "two"))
    assert first == second
    scorer = classifier.load(trained)
    assert scorer.version == said["version"]
    dice = random.Random(3)
    told = {bad: [scorer.scores([fold(sentence(dice, bad))])["violence"] for _ in range(20)] for bad in (True, False)}
    assert min(told[True]) > max(told[False])
    card = (trained / "grams" / "CARD.md").read_text("utf-8")
    assert said["version"] in card and "Where it fails" in card and "MIT" in card
    assert not any(word in card for word in ("坏词", "河面")), "no text of a data set stands in a card"
    assert said["figures"]["violence zh"]["auc"] > 0.9


def test_the_passages_of_confirmed_cases_are_learned_from_too(
    data: Path, pairs: Path, trained: Path, tmp_path: Path
) -> None:
    word = "从未见过的词"
    samples = [
        {"case": f"case_{n}", "category": "violence", "language": "zh", "prompt": f"问{n}", "variants": [], "surrogate": "不说",
         "passage": f"{word}，第{n}次说起，{word}，还有别的。"}
        for n in range(12)
    ]  # fmt: skip
    source = tmp_path / "samples.jsonl"
    source.write_text("\n".join(json.dumps(s, ensure_ascii=False) for s in samples), "utf-8")
    out = tmp_path / "with" / "grams"
    given = ["train", "--data", str(data), "--pairs", str(pairs), "--out", str(out), "--confirmed", str(source)]
    assert main(given) == 0
    told = [
        classifier.load(folder).scores([fold(f"又说{word}，{word}。")])["violence"]
        for folder in (tmp_path / "with", trained)
    ]
    assert told[0] > 0.5 > told[1]
    assert "confirmed cases | `sluice case export` | 12" in (out / "CARD.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("cold_zh.jsonl", "{", "not JSON lines"),
        ("cold_zh.jsonl", '{"text": "x"}', "line 1: needs text, label, category and lang"),
        ("laws_zh_benign.jsonl", None, "cannot be read"),
    ],
)
def test_bad_data_is_named_by_file_and_line(
    data: Path, pairs: Path, tmp_path: Path, name: str, line: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (data / name).read_bytes()
    try:
        (data / name).unlink()
        if line is not None:
            (data / name).write_text(line, "utf-8")
        assert train(data, pairs, tmp_path) == 2
        err = capsys.readouterr().err
        assert name in err and said in err and not (tmp_path / "grams").exists()
    finally:
        (data / name).write_bytes(whole)


def test_a_pair_without_a_half_is_named_by_file_line_and_column(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["\t".join(sources.COLUMNS), "a001\tzh\tsay\tnews\t甲\t"]
    (tmp_path / "violence.tsv").write_text("\n".join(rows), "utf-8")
    assert train(data, tmp_path, tmp_path / "out") == 2
    assert "violence.tsv, line 2: harmless" in capsys.readouterr().err


def test_the_shipped_pairs_are_many_varied_and_of_categories_that_text_decides() -> None:
    from app.settings import packaged
    from app.training.fit import CATEGORIES

    folder = packaged("models") / "grams" / "pairs"
    sets = {(s.category, s.lang): s for s in pairset.described(sources.pairs(folder))}
    assert {category for category, _ in sets} == set(CATEGORIES) and len(CATEGORIES) == 34
    for (category, lang), s in sets.items():
        assert s.pairs >= 60 and s.template <= 0.05 and s.alike < 0.02, (category, lang, s)
    assert "sexual_minors" not in CATEGORIES
