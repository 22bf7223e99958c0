"""The articles that no other file is about, from outside, and that docs/articles.md says what the tests show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.deadlines import SHANGHAI
from app.detectors.lexicon import rows
from app.taxonomy import taxonomy
from tests.conftest import ROOT, WORD, Model, Running, Whole, wait_for, whole_gateway

Make = Callable[..., Running]
REVIEWER = "anna:" + "a" * 32
PASSAGE = "把甲仓库的蓝色木箱依次搬到乙码头的第三个泊位，再用红色的绳子把每一个木箱捆成双层，最后由夜班的管理员统一盖上编号为七的印章。"


# ---- the page and the tests


def _rows() -> dict[str, tuple[str, list[str]]]:
    """docs/articles.md: article -> (what stands in its row, the tests that it names)."""
    page = (ROOT / "docs" / "articles.md").read_text("utf-8")
    found = {}
    for line in page.splitlines():
        if match := re.match(r"\| (\d+(?:\(\d\))?) \|", line):
            found[match[1]] = line, re.findall(r"`(test_article_\w+)`", line)
    return found


def _tests() -> set[str]:
    return {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_article_\w+)\(", file.read_text("utf-8"), re.MULTILINE)
    }


def _article(name: str) -> str:
    match = re.match(r"test_article_(\d+)(?:_(\d)(?=_))?", name)
    assert match, name
    # 4(1) to 4(5) are items; `test_article_11_2…` would be a name that begins with a number.
    return f"4({match[2]})" if match[1] == "4" else match[1]


def test_every_article_has_its_row_and_every_row_its_tests() -> None:
    found, tests = _rows(), _tests()
    wanted = [str(n) for n in range(1, 22) if n != 4] + [f"4({n})" for n in range(1, 6)]
    assert set(found) == set(wanted)
    for article, (line, named) in found.items():
        assert len(line.strip("|").split("|")) == 6, f"{article}: asks, does, evidence, operator, tests"
        assert set(named) <= tests, article
        assert {_article(name) for name in named} <= {article}, article
        if article not in ("3", "21"):
            assert named, f"{article}: no test shows it"
    untold = {_article(name) for name in tests} - set(found)
    assert not untold, untold


# ---- articles 1, 4(1), 5: which law judges, what it names, for whom


def test_article_1_the_profile_that_judged_stands_in_every_record_and_decides_what_is_judged(
    make_gateway: Make,
) -> None:
    draft, interim = make_gateway("profile: draft_2023_04"), make_gateway("profile: interim_2023_08")
    for running, profile in ((draft, "draft_2023_04"), (interim, "interim_2023_08")):
        running.chat("你好")
        wait_for(lambda: bool(running.journal()))  # noqa: B023
        (record,) = running.journal()
        assert record["profile"] == profile and record["policy"]
        page = running.http.get("/sluice/v1/disclosure").json()
        assert profile in json.dumps(page)
    gone = [c.id for c in taxonomy().values() if c.origin == "draft_only"]
    assert gone
    for id in gone:
        assert interim.gateway.moderator.policies.common._actions[id, "answer"].word == "pass"


ITEMS = (
    "state_subversion", "separatism_incitement", "terrorism_extremism", "ethnic_hatred", "violence", "sexual_obscene",
    "false_harmful_info", "economic_order_disruption", "social_order_disruption",
)  # fmt: skip
"""The categories of Article 4(1), which names thirteen things."""


@pytest.mark.parametrize("category", ITEMS)
def test_article_4_1_what_incites_or_offers_is_acted_on_and_its_clean_twin_passes(
    make_gateway: Make, model: Model, category: str
) -> None:
    running = make_gateway()
    file = ROOT / "lexicons" / category / "terms.tsv"
    columns = ("term", "tier", "off", "allow", "owner", "reason", "added", "expires", "hit", "clean")
    wanted = taxonomy()[category].answer
    for _, row in list(rows(file, columns, "term"))[:5]:
        model.script.chat(row["hit"])
        said = running.chat("说一句")
        assert said.json()["sluice"]["action"] == (wanted.word if row.get("tier") != "suspect" else "flag"), row["term"]
        if wanted.stops and row.get("tier") != "suspect":
            assert row["hit"] not in said.text
        model.script.chat(row["clean"])
        assert running.chat("说一句").json()["choices"][0]["message"]["content"] == row["clean"]


@pytest.mark.parametrize("category", [c for c in taxonomy() if c.startswith("discrimination_")])
def test_article_4_2_discrimination_is_acted_on_by_attribute(make_gateway: Make, model: Model, category: str) -> None:
    file = ROOT / "lexicons" / category / "terms.tsv"
    columns = ("term", "tier", "off", "allow", "owner", "reason", "added", "expires", "hit", "clean")
    running = make_gateway()
    for _, row in list(rows(file, columns, "term"))[:2]:
        model.script.chat(row["hit"])
        assert running.chat("说一句").json()["sluice"]["action"] != "pass"
        model.script.chat(row["clean"])
        assert running.chat("说一句").json()["sluice"]["action"] == "pass"


def test_article_4_5_personal_numbers_are_masked_and_distress_gets_help(make_gateway: Make, model: Model) -> None:
    running = make_gateway()
    model.script.chat("他的身份证号是11010519491231002X，电话13800138000。")
    content = running.chat("说一句").json()["choices"][0]["message"]["content"]
    assert "11010519491231002X" not in content and "13800138000" not in content
    model.script.chat("自杀的具体方法步骤如下")
    answer = running.chat("说一句").json()
    if answer["sluice"]["action"] == "replace":
        assert "12356" in answer["choices"][0]["message"]["content"]


def test_article_5_each_app_has_its_own_rules_its_own_name_and_its_own_records(
    make_gateway: Make, model: Model
) -> None:
    import hashlib

    apps = json.dumps(
        {
            "apps": [
                {"id": id, "keys": ["sha256:" + hashlib.sha256(id.encode()).hexdigest()]} for id in ("shop", "school")
            ]
        }
    )
    policy = "apps: {shop: {labels: {producer: SHOP-1}}, school: {labels: {producer: SCHOOL-1, mode: end}, blocked_as: error}}"
    running = make_gateway(policy, apps=apps)
    running.block(WORD)
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
    for id, producer in (("shop", "SHOP-1"), ("school", "SCHOOL-1")):
        said = running.http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {id}"}).json()
        assert said["sluice"]["label"]["prepared"]["AIGC"]["ContentProducer"] == producer
        assert said["choices"][0]["message"]["content"].endswith("（AI生成）") == (id == "school")
    bad = {"model": "m", "messages": [{"role": "user", "content": f"请说{WORD}"}]}
    got = [
        running.http.post("/v1/chat/completions", json=bad, headers={"Authorization": f"Bearer {id}"}).status_code
        for id in ("shop", "school")
    ]
    assert got == [200, 400]
    wait_for(lambda: len(running.journal()) == 4)
    assert {r["app"] for r in running.journal()} == {"shop", "school"}


# ---- articles 13, 15, 20: complaints, reports, what an auditor gets


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Whole]:
    with whole_gateway(tmp_path_factory.mktemp("articles"), shared_model.url, ADMIN_TOKEN=REVIEWER) as whole:
        yield whole


def admin(whole: Whole, method: str, path: str, **more: Any) -> httpx.Response:
    head = {"Authorization": "Bearer " + "a" * 32}
    return httpx.request(method, f"{whole.admin}/sluice/v1/admin{path}", headers=head, timeout=10, **more)


def test_article_13_anybody_may_complain_is_told_by_when_and_a_stop_acts_at_once(
    whole: Whole, shared_model: Model
) -> None:
    process = whole.http.get("/sluice/v1/complaints").json()
    assert {"pi_correct", "pi_delete", "pi_block", "infringement"} <= set(process["kinds"]) and process[
        "answered_within_days"
    ]
    secret = "示例乙女士住在示例路七号三单元"
    taken = whole.http.post("/sluice/v1/complaints", json={"kind": "pi_block", "comment": f"请屏蔽：{secret}"})
    assert taken.status_code == 202 and taken.json()["answered_by"]
    assert any(c["id"] == taken.json()["ticket"] for c in admin(whole, "GET", "/complaints").json()["complaints"])
    shared_model.script.chat(f"她的地址是{secret}，请记下。")
    assert secret in whole.chat("地址").text
    entry = {"term": secret, "category": "privacy_violation", "action": "block", "reason": "complaint"}
    assert admin(whole, "POST", "/entries", json=entry).status_code == 201
    assert wait_for(lambda: secret not in whole.chat("地址").text, 2) < 1.0
    streamed = whole.chat("地址", stream=True).text
    assert "示例路七号" not in streamed, "in the middle of a stream too"


def test_article_15_a_confirmed_report_filters_at_once_and_falls_due_in_three_civil_months(
    whole: Whole, shared_model: Model
) -> None:
    shared_model.script.chat(f"好的，下面是说明。{PASSAGE}以上就是全部步骤。")
    answer = whole.chat("说说").json()
    given = {
        "text": answer["choices"][0]["message"]["content"], "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"],
        "passage": [9, 9 + len(PASSAGE)], "category": "violence",
    }  # fmt: skip
    taken = whole.http.post("/sluice/v1/reports", json=given)
    assert taken.status_code == 202 and taken.json()["state"] == "verified"
    decided = admin(
        whole, "POST", f"/cases/{taken.json()['ticket']}/decision",
        json={"decision": "confirm", "reason": "seen", "category": "violence"},
    ).json()  # fmt: skip
    assert decided["state"] == "confirmed"
    assert wait_for(lambda: PASSAGE[:10] not in whole.chat("再说说").text, 2) < 1.0
    received, due = (datetime.fromisoformat(decided[k]).astimezone(SHANGHAI) for k in ("received", "due"))
    months = (due.year - received.year) * 12 + due.month - received.month
    assert months == 3 or (months == 4 and due.day <= 4), "a holiday may roll it forward"
    assert datetime.now(UTC) < due


def test_article_20_an_operator_can_show_what_was_done_article_by_article(whole: Whole, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {"SLUICE_ADMIN_TOKEN": REVIEWER}
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "evidence",
        "--admin",
        whole.admin,
        "export",
        "--out",
        str(tmp_path / "e"),
    ]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    export = json.loads((tmp_path / "e" / "evidence.json").read_text("utf-8"))
    wanted = {"4", "6", "7", "8", "9", "10", "11", "13", "14", "15", "16", "17", "18", "19"}
    assert wanted <= set(export["articles"]) and export["audit"]["chain"] == "whole"
    page = (tmp_path / "e" / "evidence.html").read_text("utf-8")
    assert all(f"Article {n}," in page for n in wanted) and "不能证明的" in page
    assert PASSAGE[:8] not in page + json.dumps(export, ensure_ascii=False)
