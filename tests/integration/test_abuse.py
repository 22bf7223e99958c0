"""Reports as a weapon: however many bring a greeting, a provision or the app's own notice, nothing changes for others; and who reports
once is not buried under those who report ten thousand times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.figures import quantile
from tests.conftest import Model, RedisServer, redis_binaries, whole_gateway
from tests.integration.test_reports import APPS, REVIEWERS, Desk

NOTICE = (
    "本应用由某某科技提供，回答由模型生成，可能有误；如遇紧急情况请立即联系人工客服，工作时间为每日九点到二十一点。"
)
CLAIMS = {
    "greeting": "你好！很高兴见到你，有什么我可以帮助你的吗？您好，我是您的智能助手，请问今天有什么可以帮到您？",
    "law": "民事主体的人身权利、财产权利以及其他合法权益受法律保护，任何组织或者个人不得侵犯。民事主体在民事活动中的法律地位一律平等。",
    "notice": NOTICE,
}
POLICY = f"reports: {{deliveries: true, per_reporter: 1000, per_source: 100000, clean: ['{NOTICE}']}}\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("abuse")
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    (folder / "apps.yaml").write_text(APPS)
    with whole_gateway(
        folder, shared_model.url, REDIS_URL=server.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(folder / "policy.yaml"),
        APPS=str(folder / "apps.yaml"),
    ) as whole:  # fmt: skip
        yield Desk(whole)
    server.kill()


def storm(desk: Desk, bodies: list[tuple[dict[str, object], str]], threads: int = 8) -> list[float]:
    """Send all of them, and how long each took, seconds."""

    def send(given: tuple[dict[str, object], str]) -> float:
        body, user = given
        began = time.perf_counter()
        with httpx.Client(base_url=desk.whole.url, timeout=60) as http:
            answer = http.post("/sluice/v1/reports", json=body, headers={"x-user": user} if user else {})
        assert answer.status_code == 202, answer.text
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(send, bodies))


def nothing_changes_for_others(desk: Desk, model: Model, claim: str, reporters: int) -> None:
    text = CLAIMS[claim]
    model.script.chat(text)
    answer = desk.ask("first")
    receipt = {"text": text, "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"]}
    storm(desk, [(receipt, f"{claim}-{n}") for n in range(reporters)])
    storm(desk, [({"text": text}, "") for _ in range(3)])
    case = next(c for c in desk.admin("GET", "/cases").json()["cases"] if c["reports"] >= reporters)
    assert case["state"] == "verified" and case["subjects"] >= min(reporters, 64), case
    time.sleep(0.5)
    assert desk.said("somebody else") == desk.said() == text
    desk.decide(case["id"], "reject")


@pytest.mark.parametrize("claim", CLAIMS)
def test_thirty_colluding_reporters_change_nothing_for_others(desk: Desk, shared_model: Model, claim: str) -> None:
    nothing_changes_for_others(desk, shared_model, claim, 30)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_thousand_colluding_reporters_change_nothing_for_others(desk: Desk, shared_model: Model, claim: str) -> None:
    nothing_changes_for_others(desk, shared_model, claim, 1000)


def buried(desk: Desk, total: int, reporters: int) -> None:
    honest = {"text": "这一段话只有一个人举报过，说的是河边第三块石头下面压着的那张旧纸条。"}
    flood = [
        ({"text": f"灌水的举报第{n}条，内容各不相同，说的都是同一个箱子。"}, f"flood-{n % reporters}")
        for n in range(total)
    ]
    took = storm(desk, flood[: total // 2])
    storm(desk, [(honest, "honest")])
    took += storm(desk, flood[total // 2 :])
    print(f"{total} reports: p50 {quantile(took, 0.5) * 1000:.1f} ms, p99 {quantile(took, 0.99) * 1000:.1f} ms")
    page = desk.admin("GET", "/cases").json()
    assert page["total"] > total
    cases = [desk.admin("GET", f"/cases/{c['id']}/evidence").json()["passage"] for c in page["cases"]]
    assert honest["text"] in cases


def test_who_reports_once_stands_on_the_first_page_before_those_who_report_by_the_hundred(desk: Desk) -> None:
    buried(desk, 80, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_who_reports_once_stands_on_the_first_page_behind_ten_thousand_reports(desk: Desk) -> None:
    buried(desk, 10_000, 1000)


def test_a_flood_from_one_place_is_stopped_with_the_time_to_come_back(shared_model: Model, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path / "redis")
    policy = tmp_path / "policy.yaml"
    policy.write_text("reports: {per_source: 5}\n")
    with whole_gateway(tmp_path / "g", shared_model.url, REDIS_URL=server.url, POLICY=str(policy)) as whole:
        answers = [whole.http.post("/sluice/v1/reports", json={"text": f"第{n}条举报的内容"}) for n in range(7)]
        assert [a.status_code for a in answers] == [202] * 5 + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    server.kill()
