"""What is public of the service and of the gateway: the operator's statements, which never change; the page; what was done, in figures."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import clock, duties, statements
from app.cli import main
from app.demo import speech
from app.detectors import shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon, load
from app.journal import Journal
from app.policy import parse
from app.store.client import Store
from app.store.tables import Entries
from app.streaming import Channel
from app.taxonomy import taxonomy
from app.types import Action, Direction, Scope
from tests.conftest import (
    ROOT,
    TOKEN,
    WORD,
    Model,
    RedisServer,
    Running,
    Whole,
    redis_binaries,
    wait_for,
    whole_gateway,
)
from tests.integration.test_duties import Clock
from tests.reading import of

Make = Callable[..., Running]
PAGE = "/sluice/v1/disclosure"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FIELDS: dict[str, Any] = {
    "users": {"zh": "成年的普通用户", "en": "adults, the general public"},
    "occasions": {"zh": "日常学习与办公", "en": "everyday study and office work"},
    "uses": {"zh": "写作与资料整理", "en": "writing and sorting material"},
    "limits": {"zh": "不能代替医生或律师", "en": "it takes the place of no doctor or lawyer"},
    "contacts": {"zh": "客服电话见应用首页 <b>", "en": "the helpdesk; its number stands on the first page"},
    "report_to_operator": "https://example.org/report?a=1&b=2",
    "report_to_authority": [
        {"zh": "某地举报中心", "en": "a local report centre", "url": "https://example.org/authority"}
    ],
    "filing": {"algorithm_number": "示例备案-0001", "assessment_date": "2026-05-01"},
    "minors": {"zh": "未成年人请在监护人陪同下使用", "en": "minors together with a guardian"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("disclosure")
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    with whole_gateway(folder, shared_model.url, REDIS_URL=server.url) as whole:
        yield whole
    server.kill()


def publish(whole: Whole, kind: str, key: str | None = None, **said: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return whole.call("POST", "/statements", json={"kind": kind, **said}, headers=headers)


def newest(whole: Whole, kind: str) -> int:
    found = whole.call("GET", f"/statements?kind={kind}").json()["statements"]
    return int(found[-1]["version"]) if found else 0


def page(http: httpx.Client, path: str = PAGE) -> str:
    answer = http.get(path, headers={"accept": BROWSER})
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert (
        "script-src" not in answer.text and "<script" not in answer.text and "default-src 'none'" in str(answer.headers)
    )
    assert not re.search(r"""(src|<link|@import|url\()""", answer.text), "nothing from elsewhere"
    assert answer.text.startswith('<!doctype html><html lang="zh-CN">') and "prefers-color-scheme:dark" in answer.text
    return answer.text


# ---- Article 10


def test_article_10_where_nothing_is_published_the_page_says_so_and_tells_of_the_gateway_all_the_same(
    make_gateway: Make,
) -> None:
    gateway = make_gateway("categories: {violence: {answer: flag}}\nshadow: [abuse_spam]\nappeals: {hold: true}\n")
    said = gateway.http.get(PAGE).json()
    assert said["statement"] is None and said["notice"]["zh"] == "运营者尚未公布" and said["statements"] == []
    status = gateway.gateway.status()
    assert said["versions"] == {k: status[k] for k in ("policy", "lexicon", "model", "guard")}
    assert said["profile"] == "draft_2023_04"
    rows = {c["id"]: c for c in said["categories"]}
    assert list(rows) == list(taxonomy())
    assert rows["violence"]["answer"] == "flag" and rows["abuse_spam"]["answer"] == "pass"
    assert rows["violence"]["clause"]["zh"].endswith("第四条第（一）项")
    assert any("72" in line["kept"]["en"] for line in said["stored"]), "as the policy has it"
    assert said["periods"] == {"answered_within_days": 15, "not_generated_again_within_months": 3}
    assert said["links"]["appeal"] == "/sluice/v1/appeals" and said["links"]["report"] == "/sluice/v1/reports"
    assert said["links"]["authority"][0]["url"] == "https://www.12377.cn"
    assert said["power"] is None and "暂缺" in said["power_missing"]["zh"]
    shown = page(gateway.http)
    assert "运营者尚未公布" in shown and "the operator has published nothing yet" in shown and "暂缺" in shown
    assert all(html.escape(c.zh) in shown and html.escape(c.en) in shown for c in taxonomy().values())
    told = json.dumps(said["stored"], ensure_ascii=False)
    for words in ("24 小时", "无标识", "假名", f"{duties.ERASED // 86400} 天"):
        assert words in told, "the page says what is done"


def test_article_10_the_operator_says_for_whom_when_and_for_what_the_service_is(whole: Whole) -> None:
    before = newest(whole, "disclosure")
    made = publish(whole, "disclosure", fields=FIELDS, note="first")
    assert made.status_code == 201, made.text
    done = made.json()
    assert set(done) == {"kind", "version", "sha256", "at", "by"} and done["version"] == before + 1
    wait_for(lambda: (whole.http.get(PAGE).json()["statement"] or {}).get("version") == done["version"], 3)
    said = whole.http.get(PAGE).json()
    assert said["statement"]["fields"] == FIELDS and said["statement"]["sha256"] == done["sha256"]
    assert [one["url"] for one in said["links"]["authority"]] == [
        "https://example.org/authority",
        "https://www.12377.cn",
    ]
    shown = page(whole.http)
    for words in (
        "成年的普通用户",
        "everyday study and office work",
        "写作与资料整理",
        "不能代替医生或律师",
        "监护人陪同",
    ):
        assert words in shown
    assert 'href="https://example.org/report?a=1&amp;b=2"' in shown and "首页 &lt;b&gt;" in shown
    assert shown.index("成年的普通用户") < shown.index("adults, the general public"), "Chinese first"
    assert "first" not in said["statement"] and "note" not in json.dumps(said), "a note is the operator's own"
    # A second version takes its place; the first stays to be read.
    second = publish(whole, "disclosure", fields=FIELDS | {"uses": {"zh": "仅写作", "en": "writing alone"}}).json()
    wait_for(lambda: "仅写作" in whole.http.get(PAGE).text, 3)
    first = whole.http.get(f"{PAGE}/disclosure/{done['version']}").json()
    assert first["fields"] == FIELDS and second["version"] == done["version"] + 1
    assert "写作与资料整理" in page(whole.http, f"{PAGE}/disclosure/{done['version']}")


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True), ("*/*", False), ("application/json", False), ("text/html;q=0.5, application/json", False),
        ("text/html", True), ("text/html;q=x", False), ("", False), ("application/json;q=0.1,text/html;q=0.2", True),
    ],
)  # fmt: skip
def test_article_10_who_likes_a_page_better_gets_one(whole: Whole, accept: str, is_page: bool) -> None:
    answer = whole.http.get(PAGE, headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/html" if is_page else "application/json")


def test_article_10_nobody_needs_a_key_and_whoever_has_one_sees_the_rules_of_the_app(make_gateway: Make) -> None:
    digests = {name: hashlib.sha256(f"key-{name}".encode()).hexdigest() for name in ("web", "kids")}
    apps = "apps:" + "".join(f"\n  - {{id: {name}, keys: ['sha256:{digest}']}}" for name, digest in digests.items())
    gateway = make_gateway("apps: {kids: {categories: {violence: {prompt: block}}}}\n", apps)

    def violence(**headers: str) -> str:
        rows = gateway.http.get(PAGE, headers=headers).json()["categories"]
        return next(str(c["prompt"]) for c in rows if c["id"] == "violence")

    assert violence() == violence(authorization="Bearer wrong") == violence(authorization="Bearer key-web") != "block"
    assert violence(authorization="Bearer key-kids") == "block"


# ---- Article 6


def test_article_6_the_filing_number_and_the_date_of_the_assessment_are_shown(whole: Whole) -> None:
    publish(whole, "disclosure", fields=FIELDS)
    wait_for(lambda: "示例备案-0001" in whole.http.get(PAGE).text, 3)
    shown = page(whole.http)
    assert "算法备案编号" in shown and "示例备案-0001" in shown and "2026-05-01" in shown
    wrong = publish(whole, "disclosure", fields=FIELDS | {"filing": {"assessment_date": "2026-02-30"}})
    assert wrong.status_code == 422 and wrong.json()["error"]["param"] == "fields.filing.assessment_date"


# ---- Article 17


def test_article_17_a_version_never_changes_and_its_hash_is_in_the_audit_chain(whole: Whole) -> None:
    first = publish(
        whole, "data_source", key="k1", zh="公开语料与自有语料", en="public and own corpora", note="n"
    ).json()
    assert (
        publish(whole, "data_source", key="k1", zh="公开语料与自有语料", en="public and own corpora", note="n").json()
        == first
    )
    reused = publish(whole, "data_source", key="k1", zh="别的")
    assert reused.status_code == 409 and reused.json()["error"]["code"] == "idempotency_key_reused"
    stale = publish(whole, "data_source", zh="又一版", expected_version=first["version"] - 1)
    assert stale.status_code == 409 and stale.headers["x-sluice-version"] == str(first["version"])
    second = publish(whole, "data_source", zh="又一版", expected_version=first["version"]).json()
    assert second["version"] == first["version"] + 1
    path = f"/data_source/{first['version']}"
    kept = whole.call("GET", f"/statements{path}").json()
    assert (kept["zh"], kept["by"], kept["note"], kept["public"]) == ("公开语料与自有语料", "admin", "n", True)
    wait_for(lambda: whole.http.get(PAGE + path).status_code == 200, 3)
    public = whole.http.get(PAGE + path).json()
    assert "by" not in public and "note" not in public
    # Anybody can compute the hash from what is shown.
    content = {k: public[k] for k in ("kind", "version", "zh", "en")}
    raw = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(raw).hexdigest() == public["sha256"] == first["sha256"]
    audit = whole.call("GET", "/audit").json()
    rows = [r for r in audit["rows"] if r["what"] == "publish" and r["statement"] == "data_source"]
    assert [r["sha256"] for r in rows] == [first["sha256"], second["sha256"]] and audit["chain"] == "whole"
    assert "公开语料" not in json.dumps(audit, ensure_ascii=False)
    for method in ("DELETE", "PUT", "PATCH"):
        assert whole.call(method, f"/statements{path}").status_code in (404, 405)


def test_article_17_what_is_private_looks_to_the_public_like_what_is_not_there(whole: Whole) -> None:
    made = publish(whole, "algorithms", zh="只给主管部门看的说明", public=False).json()
    open_ = publish(whole, "algorithms", zh="大家都能看的说明").json()
    wait_for(lambda: whole.http.get(f"{PAGE}/algorithms/{open_['version']}").status_code == 200, 3)
    private = whole.http.get(f"{PAGE}/algorithms/{made['version']}")
    assert private.status_code == 404 and "只给主管部门" not in whole.http.get(PAGE).text
    for path in ("algorithms/99", "other/1", "algorithms/0", "algorithms/x", "algorithms/²", "algorithms/1e3"):
        assert whole.http.get(f"{PAGE}/{path}").json() == private.json()
    assert whole.call("GET", f"/statements/algorithms/{made['version']}").json()["zh"] == "只给主管部门看的说明"
    assert [one["version"] for one in whole.http.get(PAGE).json()["statements"] if one["kind"] == "algorithms"] == [
        open_["version"]
    ]
    assert httpx.get(f"{whole.admin}/sluice/v1/admin/statements").status_code == 401


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"kind": "other", "zh": "x"}, "kind"), ({"zh": "x"}, "kind"), ({"kind": "model"}, "zh or en"),
        ({"kind": "model", "zh": "x", "fields": FIELDS}, "fields"), ({"kind": "disclosure", "zh": "x"}, "zh, en"),
        ({"kind": "disclosure"}, "fields"), ({"kind": "model", "zh": "  "}, "zh"), ({"kind": "model", "zh": "x" * 40_001}, "zh"),
        ({"kind": "model", "zh": "a\u0000b"}, "zh"), ({"kind": "model", "zh": "\ud83d"}, "zh"),
        ({"kind": "model", "zh": "x", "more": 1}, "more"),
        ({"kind": "model", "zh": "x", "note": "n" * 1001}, "note"),
        ({"kind": "disclosure", "fields": FIELDS | {"slogan": {"zh": "x", "en": "x"}}}, "fields.slogan"),
        ({"kind": "disclosure", "fields": {k: v for k, v in FIELDS.items() if k != "users"}}, "fields.users"),
        ({"kind": "disclosure", "fields": FIELDS | {"uses": {"zh": "x"}}}, "fields.uses.en"),
        ({"kind": "disclosure", "fields": FIELDS | {"filing": {"url": "javascript:alert(1)"}}}, "fields.filing.url"),
        ({"kind": "disclosure", "fields": FIELDS | {"filing": {"number": "1"}}}, "fields.filing.number"),
    ],
)  # fmt: skip
def test_article_17_what_is_wrong_in_a_statement_is_named_and_nothing_is_published(
    whole: Whole, body: dict[str, Any], named: str
) -> None:
    before = whole.call("GET", "/statements").json()
    answer = whole.call("POST", "/statements", content=json.dumps(body).encode())
    assert answer.status_code == 422 and named in answer.json()["error"]["message"], answer.text
    assert whole.call("GET", "/statements").json() == before


def test_article_17_the_authority_is_given_every_version_with_its_date_and_hash(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", TOKEN)

    def sluice(*words: str) -> str:
        assert main([words[0], "--admin", whole.admin, *words[1:]]) == 0, words
        return capsys.readouterr().out

    (tmp_path / "fields.yaml").write_text(json.dumps(FIELDS, ensure_ascii=False).replace('"2026-05-01"', "2026-05-01"))
    (tmp_path / "rules.txt").write_text("标注规则第一稿")
    (tmp_path / "scale.json").write_text('{"en": "about so many texts"}')
    assert sluice("statement", "publish", "disclosure", str(tmp_path / "fields.yaml"), "--note", "again").startswith(
        "disclosure "
    )
    sluice("statement", "publish", "labelling_rules", str(tmp_path / "rules.txt"), "--private")
    sluice("statement", "publish", "data_scale", str(tmp_path / "scale.json"))
    listed = sluice("statement", "list")
    assert "不公开 private" in listed and "again" in listed
    assert json.loads(sluice("statement", "show", "labelling_rules"))["zh"] == "标注规则第一稿"
    assert json.loads(sluice("statement", "show", "data_scale", "--version", "1"))["en"] == "about so many texts"
    assert main(["statement", "--admin", whole.admin, "publish", "disclosure", str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "fields.yaml").write_text("users: {zh: x}")
    assert main(["statement", "--admin", whole.admin, "publish", "disclosure", str(tmp_path / "fields.yaml")]) == 2
    assert "fields.users.en" in capsys.readouterr().err
    assert main(["evidence", "--admin", whole.admin, "export", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evidence.json").read_text())["articles"]
    (rules,) = found["17"]["documents"]["labelling_rules"]
    assert rules["intact"] and not rules["public"] and len(rules["sha256"]) == 64 and rules["at"]
    assert found["10"]["current"] == newest(whole, "disclosure") == len(found["10"]["history"])
    assert found["18"]["guidance"]["*"]["authority"] == "https://www.12377.cn"
    assert "第十七条" in (tmp_path / "out" / "evidence.html").read_text()


def test_article_17_a_version_that_was_tampered_with_is_told_from_what_was_hashed() -> None:
    content = statements.Content("原文")
    digest = hashlib.sha256(statements.canonical("model", 1, content)).hexdigest()
    row = {"kind": "model", "number": 1, "zh": "原文", "en": None, "fields": None, "sha256": digest}
    assert (
        statements.intact(row)
        and not statements.intact(row | {"zh": "改过"})
        and not statements.intact(row | {"number": 2})
    )


# ---- Article 18


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("api", speech.ALL, ids=lambda api: str(api.route))
def test_article_18_what_is_refused_or_stopped_carries_guidance_in_its_language_and_nothing_else_does(
    make_gateway: Make, model: Model, api: Any, stream: bool
) -> None:
    policy = "categories: {violence: {prompt: block, answer: block}}\nguidance: {en: 'Use it well.', report: 'https://example.org/r'}\n"
    gateway = make_gateway(policy)
    gateway.block(WORD)
    guidance = gateway.gateway.moderator.policies.common.rules.guidance

    def ask(text: str) -> dict[str, Any]:
        return of(api.route, gateway.http.post(api.route, json=api.ask(text, stream=stream))).sluice

    model.script.reply = lambda path, body: speech.Answer("好的。")
    assert "guidance" not in ask("你好")
    wanted = {"report": "https://example.org/r", "appeal": "/sluice/v1/appeals", "authority": "https://www.12377.cn"}
    assert ask(f"说{WORD}")["guidance"] == {"text": guidance.zh, **wanted}
    model.script.reply = lambda path, body: speech.Answer(f"前面的话。{WORD}。")
    assert ask("你好")["guidance"] == {"text": guidance.zh, **wanted}
    assert ask("hello")["guidance"] == {"text": "Use it well.", **wanted}


def test_article_18_a_surrogate_may_name_where_to_report(make_gateway: Make) -> None:
    gateway = make_gateway(
        "categories: {violence: {prompt: block}}\nsurrogates: {violence: {zh: '可向 {report} 或 {authority} 举报 {decision}', en: 'x'}}\n"
    )
    gateway.block(WORD)
    said = gateway.chat(WORD).json()["choices"][0]["message"]["content"]
    assert said.startswith("可向 /sluice/v1/reports 或 https://www.12377.cn 举报 slc_")


@pytest.mark.parametrize("direction", ["prompt", "answer"])
def test_article_18_the_page_passes_our_own_detectors(make_gateway: Make, direction: Direction) -> None:
    text = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page(make_gateway().http), flags=re.S))
    policies = parse((ROOT / "app" / "policy.yaml").read_bytes())
    detectors = shipped(Lexicon(load(ROOT / "lexicons")), Blocklist())
    channel = Channel(detectors, policies.common, Scope("default", direction))
    assert channel.push(text) + channel.finish() == text
    assert [f.rule for f in channel.findings if f.action > Action.FLAG] == []


# ---- the gateway's own power


def test_article_17_figures_add_up_over_processes_and_a_degraded_minute_counts_once(
    make_gateway: Make, model: Model, redis_server: RedisServer, tmp_path: Path
) -> None:
    moved = Clock()
    gateway = make_gateway("categories: {violence: {prompt: block}}\n", redis_url=redis_server.url)
    http, store = gateway.http, Store(redis_server.url, "default")
    cut = {"action": "block", "category": "violence", "degraded": []}
    fine = {"action": "pass", "category": None, "degraded": []}
    late = {"action": "block", "category": None, "degraded": ["lexicon"]}

    async def other(run: str, *answers: dict[str, Any]) -> None:
        """Another process's life."""
        journal = Journal(tmp_path / run, run, store)
        await journal.start()
        for answer in answers:
            journal.record({"prompt": fine, "answer": answer})
        await journal.stop()

    async def others() -> None:
        while not 5 < clock.now() % 60 < 50:  # all of it within one minute
            await asyncio.sleep(0.5)
        await other("old", cut)  # and then 31 days go by
        moved.move(31)
        await other("one", cut, cut, fine, late)
        await other("two", cut, late, *[fine] * 14)
        entries = Entries(store, tmp_path, lambda rows, version, whole: None)
        scope = {"app": "*", "directions": ["answer"]}
        row = {"term": "一个编出来的词条", "category": "violence", "action": "flag", "tier": "certain", "scope": scope}
        await entries.put("ent_1", {"id": "ent_1", **row}, idempotency_key="k", request="0")
        await store.close()

    asyncio.run(others())
    wait_for(lambda: len(gateway.gateway.entries) == 1, 5)
    power = http.get(PAGE).json()["power"]
    assert (power["requests"], power["blocked"], power["degraded_minutes"]) == (20, 5, 1)
    assert power["categories"]["violence"] == {
        "live_entries": 1, "blocked": 3, "per_10000": 1500.0, "appeals": 0, "reversals": 0,
    }  # fmt: skip
    assert power["live_entries"] == 1 and "编出来" not in http.get(PAGE).text + page(http)
    assert power["categories"]["-"]["blocked"] == 2, "stopped for no category"
    shown = page(http)
    assert "请求 20 次" in shown and "1500.0" in shown and "审核降级 1 分钟" in shown
    # An appeal is counted in its category; what is shown is a minute old at most.
    gateway.block(WORD)
    prompt = f"{WORD}是什么"
    refused = gateway.chat(prompt).json()["id"]
    appeal = {"kind": "blocked_prompt", "decision_id": refused, "prompt": prompt}
    assert http.post("/sluice/v1/appeals", json=appeal).status_code == 202
    assert http.get(PAGE).json()["power"] == power
    moved.move(61 / 86400)
    wait_for(lambda: gateway.gateway.journal._unshipped == set(), 10)
    moved.move(61 / 86400)
    after = http.get(PAGE).json()["power"]
    assert after["categories"]["violence"]["appeals"] == 1 and after["requests"] == 21 and after["appeals"] == 1
    assert WORD not in http.get(PAGE).text and prompt not in page(http)
    # Without the store the page goes on, and says what is missing.
    redis_server.kill()
    moved.move(61 / 86400)
    missing = http.get(PAGE).json()
    assert missing["power"] is None and missing["power_missing"]["en"].startswith("the store does not answer")
    assert "暂缺" in page(http) and missing["categories"]
    model.script.chat("好的。")
    assert gateway.chat("你好").json()["sluice"]["action"] == "pass"
    redis_server.start()
    moved.move(61 / 86400)
    wait_for(lambda: http.get(PAGE).json()["power"] is not None or moved.move(61 / 86400) is not None, 5)
