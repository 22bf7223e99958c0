"""`sluice pairs` against a model on a socket: one that refuses a group is found, one that draws for all alike is not, and no answer is
kept unasked."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from app.demo import speech
from tests import scorers
from tests.conftest import ROOT, Model

POLICY = "probes: {terms_allow: true, per_minute: 6000}\n"
SECRET_PHRASE = "回答里的一句独特的话"


class Run(NamedTuple):
    status: int
    err: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text("utf-8")))


class Pairs:
    """The command, in a process of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {
            "SLUICE_UPSTREAM_URL": url,
            "SLUICE_UPSTREAM_KEY": "key-of-the-operator",
            "SLUICE_MODELS": str(scorers.models()),
        }

    def __call__(self, *arguments: str, policy: str = POLICY, out: str = "out") -> Run:
        file = self.folder / "policy.yaml"
        file.write_text(policy, "utf-8")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | self.env
        done = subprocess.run(
            [
                sys.executable, "-m", "app.cli", "pairs", "--model", "m", "--policy", str(file), "--out", str(self.folder / out),
                *arguments,
            ],
            capture_output=True, env=clean, cwd=ROOT, timeout=110,
        )  # fmt: skip
        return Run(done.returncode, done.stderr.decode(), self.folder / out)


@pytest.fixture
def pairs(tmp_path: Path, model: Model) -> Pairs:
    return Pairs(tmp_path, model.url)


def answering(model: Model, refused: str = "", *, chance: float = 0.0) -> None:
    """The model answers at random, alike for all, but declines where the question holds `refused`, and else so often. What it says hangs
    on the question and on how often it was asked, not on what was asked meanwhile."""
    times: Counter[str] = Counter()
    parts = [f"{a}{b}可以考虑" for a in "早中晚先后多" for b in "看学写问听练走记"]

    def reply(path: str, body: dict[str, Any]) -> speech.Answer:
        asked = body["messages"][0]["content"]
        times[asked] += 1
        dice = random.Random(f"{asked}{times[asked]}")
        if (refused and refused in asked) or dice.random() < chance:
            return speech.Answer("很抱歉，我无法为您提供这方面的帮助。")
        return speech.Answer(SECRET_PHRASE + "，" + "，".join(dice.sample(parts, dice.randint(4, 9))) + "。")

    model.script.reply = reply


def test_article_12_a_model_that_refuses_one_group_is_found(model: Model, pairs: Pairs) -> None:
    answering(model, "我是农村居民")
    run = pairs("--attribute", "region", "gender", "--language", "zh", "--answers", "4")
    assert run.status == 1, run.err
    report = run.report
    found = [c for c in report["comparisons"] if c["significant"]]
    refusing = {(c["attribute"], c["article"]) for c in found if c["measure"] == "refused"}
    assert refusing == {("region", "12")}
    whole = next(c for c in found if not c["question"] and c["measure"] == "refused")
    assert whole["values"]["country"] == {"answers": 16, "level": 1.0}
    assert whole["values"]["city"]["level"] == 0 and whole["effect"] == 1
    assert report["values"]["region"]["country"]["refused"] == 16
    page = (run.folder / "report.html").read_text("utf-8")
    assert "农村居民" in page and "显著的差异" in page


def test_article_4_2_a_model_that_refuses_to_speak_of_one_group_is_found(model: Model, pairs: Pairs) -> None:
    answering(model, "friend is a woman")
    run = pairs("--attribute", "gender", "--language", "en", "--answers", "8")
    assert run.status == 1, run.err
    found = [c for c in run.report["comparisons"] if c["significant"]]
    assert {(c["measure"], c["article"], c["question"]) for c in found} >= {("refused", "4(2)", "praise")}
    assert {c["article"] for c in found if c["measure"] == "refused"} == {"4(2)"}


def test_article_4_2_a_model_that_treats_all_alike_is_not_accused(model: Model, pairs: Pairs) -> None:
    answering(model, chance=0.3)
    run = pairs("--attribute", "region", "gender", "--language", "zh", "--answers", "4")
    assert run.status == 0, run.err
    report = run.report
    assert report["counts"]["significant"] == 0 < report["counts"]["comparisons"]
    assert report["counts"]["asked"] == len(model.script.asked) == (4 + 3) * 7 * 4
    assert report["counts"]["refused"] > 0


def test_article_12_a_filter_of_the_models_own_that_stops_one_group_is_a_refusal(model: Model, pairs: Pairs) -> None:
    def before(body: dict[str, Any]) -> None:
        if "我是老年人" in body["messages"][0]["content"]:
            model.script.plain = (400, {}, orjson.dumps({"error": {"code": "content_filter", "message": "no"}}))
        else:
            model.script.chat("可以先准备材料，再问问银行。")

    model.script.before = before
    run = pairs("--attribute", "age", "--language", "zh")
    assert run.status == 1, run.err
    assert run.report["counts"]["unanswered"] == 0
    assert run.report["values"]["age"]["old"]["refused"] == 20


def test_answers_are_written_nowhere_unless_they_are_asked_for(model: Model, pairs: Pairs) -> None:
    answering(model)
    run = pairs("--attribute", "gender", "--language", "zh", "--answers", "2")
    assert sorted(f.name for f in run.folder.iterdir()) == ["report.html", "report.json"]
    for file in run.folder.iterdir():
        assert SECRET_PHRASE not in file.read_text("utf-8")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SECRET_PHRASE not in run.err
    run = pairs("--attribute", "gender", "--language", "zh", "--answers", "2", "--keep-answers", out="kept")
    kept = run.folder / "answers.jsonl"
    rows = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert len(rows) == 3 * 7 * 2 and all(SECRET_PHRASE in row["answer"] for row in rows)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_model_is_asked_with_the_operators_key_and_the_policys_settings_in_random_order(
    model: Model, pairs: Pairs
) -> None:
    answering(model)
    policy = "probes: {terms_allow: true, per_minute: 6000, temperature: 0.7, max_tokens: 99}\n"
    run = pairs("--attribute", "age", "--language", "en", "--answers", "2", policy=policy)
    assert run.status in (0, 1), run.err
    assert {h["authorization"] for h in model.script.headers} == {"Bearer key-of-the-operator"}
    assert {(b["model"], b["temperature"], b["max_tokens"]) for b in model.script.asked} == {("m", 0.7, 99)}
    texts = [b["messages"][0]["content"] for b in model.script.asked]
    assert texts != sorted(texts) and len(set(texts)) == 3 * 7
    assert {"pairs", "policy", "lexicon"} <= set(run.report["versions"])
    assert run.report["named"] == "m" and run.report["version"] == "fp_1"


def test_nothing_is_asked_before_the_models_terms_were_read(model: Model, pairs: Pairs) -> None:
    run = pairs(policy="probes: {terms_allow: false}\n")
    assert run.status == 2 and "probes.terms_allow" in run.err
    assert not model.script.asked and not run.folder.exists()


def test_a_run_that_would_ask_too_much_is_refused(model: Model, pairs: Pairs) -> None:
    run = pairs("--answers", "9")
    assert run.status == 2 and "--most" in run.err
    assert not model.script.asked


def test_an_attribute_that_is_none_is_named(model: Model, pairs: Pairs) -> None:
    run = pairs("--attribute", "shoes")
    assert run.status == 2 and "shoes" in run.err and "gender" in run.err


def test_a_folder_with_something_in_it_is_left_alone(model: Model, pairs: Pairs) -> None:
    (pairs.folder / "out").mkdir()
    (pairs.folder / "out" / "old").write_text("x")
    run = pairs("--attribute", "age")
    assert run.status == 2 and not model.script.asked


def test_a_model_that_says_nothing_is_not_asked_to_the_end(model: Model, pairs: Pairs) -> None:
    model.script.plain = (500, {}, b"{}")
    run = pairs("--attribute", "gender")
    assert run.status == 2 and "SLUICE_UPSTREAM_URL" in run.err
    assert len(model.script.asked) == 20
    assert not list(run.folder.iterdir())
