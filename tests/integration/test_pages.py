"""The users' pages, from outside: forms without a script or a key, in both languages; who may frame them and call from a browser."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.web.pages import words
from tests.conftest import Model, RedisServer, Running, Whole, redis_binaries, wait_for, whole_gateway

Make = Callable[..., Running]
PAGES = ("", "report", "complain", "appeal", "status")
CHAT, OTHER, EVIL = "https://chat.example", "http://127.0.0.1:3000", "https://elsewhere.example"
KEYS = {name: f"key-of-{name}" for name in ("chat", "shut", "plain")}
BANNER = "示例答复：今天下午三点在二号楼开会，请带上材料。"
NASTY = "\n\"'><script>window.PWNED=1</script><img src=x onerror=PWNED=1></textarea>{{7*7}}&lt;"


def _key(name: str) -> str:
    return "sha256:" + hashlib.sha256(KEYS[name].encode()).hexdigest()


APPS = f"""
defaults: {{pages: {{open: true}}}}
apps:
  - {{id: chat, keys: ["{_key("chat")}"], pages: {{origins: ["{CHAT}", "{OTHER}"]}}, trusted_headers: {{subject: x-user-id}}}}
  - {{id: shut, keys: ["{_key("shut")}"], pages: {{open: false, origins: ["https://shut.example"]}}}}
  - {{id: plain, keys: ["{_key("plain")}"]}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    (folder / "apps.yaml").write_text(APPS, "utf-8")
    environment = {"REDIS_URL": server.url, "APPS": str(folder / "apps.yaml"), "UPSTREAM_KEY": "k"}
    with whole_gateway(folder, shared_model.url, **environment) as whole:
        yield whole
    server.kill()


def fields(page: str) -> dict[str, str]:
    """What a browser would send of the form on the page."""
    found: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", page):
        said = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if said.get("type") != "radio" or " checked" in tag:
            found[said["name"]] = html.unescape(said.get("value", ""))
    for name, text in re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>\n?(.*?)</textarea>', page, re.S):
        found[name] = html.unescape(text)
    for name, inside in re.findall(r'<select [^>]*name="(\w+)"[^>]*>(.*?)</select>', page, re.S):
        chosen = re.search(r'value="(\w*)" selected', inside)
        found[name] = chosen[1] if chosen else ""
    return found


def send(gateway: Whole, page: str, headers: dict[str, str] | None = None, **typed: str) -> httpx.Response:
    """Open the form, fill it in, send it, as a browser does."""
    path, _, query = page.partition("?")
    address = f"/sluice/{path}?{query or 'app=chat&lang=en'}"
    opened = gateway.http.get(address)
    given = fields(opened.text) | {k: v.replace("\n", "\r\n") for k, v in typed.items()}
    browser = {"sec-fetch-site": "same-origin", "origin": "null"}
    return gateway.http.post(address, data=given, headers=browser | (headers or {}))


def shown(page: httpx.Response) -> tuple[str, str]:
    """Ticket and token of a page that says that something was received."""
    ticket, token = (re.search(rf'<code id="{name}">([^<]+)</code>', page.text) for name in ("ticket", "token"))
    assert ticket and token, page.text
    return ticket[1], token[1]


def answered(gateway: Whole, model: Model, text: str) -> dict[str, Any]:
    """Have the model say this to the app chat: what came with the answer."""
    model.script.chat(text)
    body = {"model": "m", "messages": [{"role": "user", "content": "说吧"}]}
    head = {"authorization": f"Bearer {KEYS['chat']}"}
    return dict(gateway.http.post("/v1/chat/completions", json=body, headers=head).json()["sluice"])


# ---- what they look like from outside


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("lang", "tag"), [("zh", "zh-CN"), ("en", "en")])
def test_every_page_stands_in_both_languages_and_asks_for_nothing_from_elsewhere(
    whole: Whole, page: str, lang: str, tag: str
) -> None:
    answer = whole.http.get(f"/sluice/{page}?app=chat&lang={lang}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<html lang="{tag}">' in answer.text and answer.headers["content-language"] == tag
    title = words()[f"{page or 'index'}.title"]
    assert title[lang] in answer.text
    assert "<style" not in answer.text and "style=" not in answer.text and not re.search(r"\son\w+=", answer.text)
    assert all(tag.endswith(" defer") for tag in re.findall(r"<script([^>]*)>", answer.text))
    assert not re.findall(r"""(src|href|action)=["']?(https?:|//)""", answer.text), "nothing from elsewhere"
    for name, value in {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }.items():
        assert answer.headers[name] == value
    assert "set-cookie" not in answer.headers
    ids = re.findall(r' id="([^"]+)"', answer.text)
    assert len(ids) == len(set(ids))
    labelled = set(re.findall(r'<label for="([^"]+)"', answer.text))
    controls = re.findall(r'<(?:textarea|select|input) id="([^"]+)"', answer.text)
    assert set(controls) <= labelled, "each field has its label"
    assert not labelled - set(ids)


def test_the_language_is_what_was_asked_for_else_what_the_browser_likes_and_chinese_where_that_is_even(
    whole: Whole,
) -> None:
    def language(accept: str, query: str = "") -> str:
        page = whole.http.get(f"/sluice/status?{query}", headers={"accept-language": accept})
        return re.findall(r'<html lang="([\w-]+)">', page.text)[0]

    assert language("") == language("fr") == language("*") == "zh-CN"
    assert language("en-GB,en;q=0.9") == language("zh;q=0.3,en;q=0.4") == "en"
    assert language("zh-TW,en;q=0.9") == language("zh;q=0.5,en;q=0.5") == language("en;q=x") == "zh-CN"
    assert (
        language("zh", "lang=en") == "en" and language("en", "lang=zh") == "zh-CN" and language("en", "lang=xx") == "en"
    )


def test_every_text_stands_in_both_languages() -> None:
    for name, said in words().items():
        assert set(said) == {"zh", "en"} and all(said.values()), name
        assert re.findall(r"{\w+}", said["zh"]) == re.findall(r"{\w+}", said["en"]), name


def test_style_and_script_are_kept_for_ever_by_their_content_and_the_script_tag_for_minutes(whole: Whole) -> None:
    page = whole.http.get("/sluice/report?app=chat").text
    (css,) = re.findall(r'href="(pages\.css\?v=\w+)"', page)
    (js,) = re.findall(r'src="(pages\.js\?v=\w+)"', page)
    for name, kind in ((css, "text/css"), (js, "text/javascript")):
        file = whole.http.get(f"/sluice/{name}")
        assert file.headers["content-type"].startswith(kind) and "immutable" in file.headers["cache-control"]
    tag = whole.http.get("/sluice/report.js")
    assert tag.headers["cache-control"] == "public, max-age=300" and tag.headers["x-content-type-options"] == "nosniff"
    again = whole.http.get("/sluice/report.js", headers={"if-none-match": tag.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert "immutable" not in whole.http.get("/sluice/pages.css?v=0").headers["cache-control"]
    assert whole.http.get("/sluice/words.toml").status_code == whole.http.get("/sluice/nothing").status_code == 404


# ---- sending something


def test_a_report_is_sent_without_a_key_and_its_state_is_looked_up_with_the_token(whole: Whole) -> None:
    done = send(
        whole, "report", text=BANNER, quote="今天下午三点在二号楼开会", category="discrimination_age", comment="不对"
    )
    assert done.status_code == 200, done.text
    ticket, token = shown(done)
    assert ticket.startswith("tkt_") and "not verified" in done.text and ticket not in str(done.url)
    state = send(whole, "status", ticket=f" {ticket} ", token=token)
    assert state.status_code == 200 and "Received, not verified" in state.text and ticket in state.text
    assert token not in state.text, "said once"
    unknown = send(whole, "status", ticket="tkt_" + "0" * 24, token=token)
    wrong = send(whole, "status", ticket=ticket, token="x")
    assert unknown.status_code == wrong.status_code == 404
    assert unknown.text.replace("tkt_" + "0" * 24, "") == wrong.text.replace(ticket, ""), (
        "unknown and wrong look the same"
    )
    case = whole.call("GET", f"/cases/{ticket}").json()
    assert case["app"] == "chat" and case["category"] == "discrimination_age" and case["reports"] == 1
    evidence = whole.call("GET", f"/cases/{ticket}/evidence").json()
    assert evidence["passage"] == "今天下午三点在二号楼开会" and evidence["text"] == BANNER


def test_a_receipt_makes_it_verified_also_over_several_lines_and_a_wrong_one_can_be_left_out(
    whole: Whole, shared_model: Model
) -> None:
    text = "\n第一行在这里，说的是安排。\n\n第二行在这里，说的是时间与地点。"
    got = answered(whole, shared_model, text)
    proof = {"decision_id": got["decision"], "receipt": got["receipt"]}
    done = send(whole, "report", text=text, **proof)
    assert done.status_code == 200 and "delivery verified" in done.text
    wrong = send(whole, "report", text=text + "改", **proof)
    assert wrong.status_code == 422 and "receipt is not of this answer" in wrong.text and 'name="without"' in wrong.text
    kept = fields(wrong.text)
    assert kept["text"] == text + "改" and kept["receipt"] == got["receipt"], "what was typed is still there"
    out = whole.http.post("/sluice/report?app=chat&lang=en", data=kept | {"without": "1"})
    assert out.status_code == 200 and "not verified" in out.text
    alone = send(whole, "report", text=text, receipt=got["receipt"])
    assert alone.status_code == 422 and "fill in the decision id" in alone.text


def test_a_complaint_and_an_appeal_are_sent_and_answered_by_a_date(whole: Whole, shared_model: Model) -> None:
    done = send(whole, "complain?app=plain&lang=zh", kind="pi_delete", comment="请删除我的地址")
    ticket, token = shown(done)
    assert ticket.startswith("cmp_") and re.search(r"最迟答复</dt><dd>\d{4}-\d\d-\d\d<", done.text)
    state = send(whole, "status?app=plain&lang=zh", ticket=ticket, token=token)
    assert "已收到，等待处理" in state.text
    whole.call("POST", f"/complaints/{ticket}/decision", json={"decision": "refuse", "reason": "<b>没有</b>保存"})
    state = send(whole, "status?app=plain&lang=zh", ticket=ticket, token=token)
    assert "不成立" in state.text and "&lt;b&gt;没有&lt;/b&gt;保存" in state.text and "<b>" not in state.text

    asked = "请问页面上的示例违禁词组是什么意思"
    whole.add({"term": "页面上的示例违禁词组"})
    body = {"model": "m", "messages": [{"role": "user", "content": asked}]}
    head = {"authorization": f"Bearer {KEYS['chat']}"}

    def blocked() -> httpx.Response:
        return whole.http.post("/v1/chat/completions", json=body, headers=head)

    wait_for(lambda: blocked().headers["x-sluice-action"] == "block", 3)
    decision = blocked().json()["id"]
    done = send(whole, "appeal", kind="blocked_prompt", decision_id=decision, prompt=asked)
    assert shown(done)[0].startswith("apl_")
    other = send(whole, "appeal", kind="blocked_prompt", decision_id=decision, prompt=asked + "？")
    assert other.status_code == 422 and "not the message that this decision stopped" in other.text
    bare = send(whole, "appeal", kind="blocked_prompt")
    assert bare.status_code == 422 and "fill in the decision id" in bare.text
    nothing = send(whole, "appeal", kind="standing", comment="why")
    assert nothing.status_code == 422 and "signed in" in nothing.text


def test_a_double_click_is_one_report_and_the_same_form_with_other_words_is_told_so(whole: Whole) -> None:
    address = "/sluice/report?app=chat&lang=en"
    given = fields(whole.http.get(address).text) | {"text": "示例答复：按了两次的那一份，内容完全一样。"}
    first, second = (whole.http.post(address, data=given) for _ in range(2))
    assert shown(first) == shown(second)
    assert whole.call("GET", f"/cases/{shown(first)[0]}").json()["reports"] == 1
    changed = whole.http.post(address, data=given | {"text": "示例答复：后来又改成了别的话，也一样长。"})
    assert changed.status_code == 409 and "as a new one" in changed.text
    anew = whole.http.post(address, data=fields(changed.text))
    assert shown(anew)[0] != shown(first)[0]


@pytest.mark.parametrize(
    ("page", "typed", "field", "said"),
    [
        ("report", {}, "text", "fill this in"),
        ("report", {"text": "  \n "}, "text", "fill this in"),
        ("report", {"text": "……！！"}, "text", "nothing here but"),
        ("report", {"text": "字" * 60_001}, "text", "60000 characters"),
        ("report", {"text": BANNER, "quote": "没有的话"}, "quote", "does not stand"),
        ("report", {"text": BANNER, "category": "nonsense"}, "category", "choose one"),
        ("report", {"text": BANNER, "comment": "字" * 4001}, "comment", "4000 characters"),
        ("complain", {"comment": "说明"}, "kind", "choose one"),
        ("complain", {"kind": "wrong_block"}, "text", "Fill in the text"),
        ("complain", {"kind": "made_up", "comment": "说明"}, "kind", "choose one"),
        ("appeal", {"kind": "blocked_answer", "decision_id": "slc_1"}, "prompt", "fill in your message"),
        ("status", {"ticket": "tkt_1"}, "token", "fill this in"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field_and_what_was_typed_is_kept(
    whole: Whole, page: str, typed: dict[str, str], field: str, said: str
) -> None:
    answer = send(whole, page, **typed)
    assert answer.status_code == 422, answer.text
    (fault,) = re.findall(rf'<p class="fault" id="{page}-{field}-fault">([^<]+)</p>', answer.text)
    assert said in fault
    assert 'role="alert"' in answer.text and f'href="#{page}-{field}"' in answer.text
    assert f"{page}-{field}-fault" in "".join(re.findall(r'aria-describedby="([^"]+)"', answer.text))
    kept = fields(answer.text)
    for name, text in typed.items():
        if text not in ("nonsense", "made_up"):
            assert kept[name] == text
    assert kept.get("key") != "" or page == "status"


@pytest.mark.parametrize("page", PAGES[1:])
def test_what_is_typed_comes_back_as_text_whatever_it_is(whole: Whole, page: str) -> None:
    names = [n for n in fields(whole.http.get(f"/sluice/{page}?app=chat").text) if n not in ("key", "token")]
    lines = {"decision_id", "receipt", "ticket"}
    for name in names:
        nasty = NASTY.strip() if name in lines else NASTY
        everywhere = dict.fromkeys(names, "x") | {"kind": "x", "quote": "z", name: nasty}
        answer = whole.http.post(f"/sluice/{page}?app=chat", data=everywhere)
        assert answer.status_code in (404, 422)
        assert "<img" not in answer.text and "<script>" not in answer.text
        if name not in ("kind", "category", "quote"):
            assert fields(answer.text)[name] == nasty
    odd = whole.http.get("/sluice/report", params={"app": NASTY, "lang": NASTY, "text": NASTY, "embed": NASTY})
    assert odd.status_code == 404 and "PWNED" not in odd.text


def test_a_form_that_is_too_large_or_no_form_is_refused_on_a_page(whole: Whole) -> None:
    large = whole.http.post("/sluice/report?app=chat&lang=en", data={"text": "a" * (2 << 20)})
    assert large.status_code == 413 and "2 MiB" in large.text and large.headers["content-type"].startswith("text/html")
    longest = send(whole, "report", text="字" * 59_000, prompt="问" * 59_000)
    assert longest.status_code == 200, "two long texts go in"
    json = whole.http.post("/sluice/report?app=chat&lang=en", json={"text": BANNER})
    assert json.status_code == 415 and "could not be read" in json.text
    form = {"content-type": "application/x-www-form-urlencoded"}
    for raw in (b"text=%ff%fe", b"\xff=1", b"&".join(b"a%d=1" % n for n in range(60))):
        garbled = whole.http.post("/sluice/report?app=chat&lang=en", content=raw, headers=form)
        assert garbled.status_code == 400 and "could not be read" in garbled.text


def test_without_the_store_nothing_is_said_to_be_kept_and_the_form_can_be_sent_again(make_gateway: Make) -> None:
    gateway = make_gateway()
    address = "/sluice/report?lang=en"
    given = fields(gateway.http.get(address).text) | {"text": BANNER}
    answer = gateway.http.post(address, data=given)
    assert answer.status_code == 503 and "press Send again" in answer.text
    assert fields(answer.text) == given, "with its key, so that it is one report"


# ---- which app


def test_an_address_that_names_no_app_says_what_is_missing_and_a_closed_app_says_the_way_out(whole: Whole) -> None:
    for page in ("report", "complain", "appeal"):
        for method in ("GET", "POST"):
            form = {"data": {"text": BANNER}} if method == "POST" else {}
            none = whole.http.request(method, f"/sluice/{page}?lang=en", **form)  # type: ignore[arg-type]
            assert none.status_code == 400 and "?app=" in none.text
            unknown = whole.http.request(method, f"/sluice/{page}?app=nobody&lang=en", **form)  # type: ignore[arg-type]
            assert unknown.status_code == 404 and "nobody" not in unknown.text
            shut = whole.http.request(method, f"/sluice/{page}?app=shut&lang=en", **form)  # type: ignore[arg-type]
            assert shut.status_code == 403 and "pages: {open: true}" in shut.text and "<form" not in shut.text
    assert whole.http.get("/sluice/?lang=en").status_code == 200
    # With its key the app's own server still reports.
    head = {"authorization": f"Bearer {KEYS['shut']}"}
    assert whole.http.post("/sluice/v1/reports", json={"text": BANNER}, headers=head).status_code == 202
    assert whole.http.post("/sluice/v1/reports", json={"text": BANNER}).status_code == 401


def test_without_an_apps_file_the_pages_are_open_and_nobody_frames_them(make_gateway: Make) -> None:
    gateway = make_gateway()
    for page in PAGES:
        answer = gateway.http.get(f"/sluice/{page}")
        assert answer.status_code == 200 and "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_who_frames_is_named_per_app_and_everything_else_is_shut(whole: Whole) -> None:
    def policy(query: str, page: str = "report") -> str:
        return whole.http.get(f"/sluice/{page}?{query}").headers["content-security-policy"]

    assert policy("app=chat") == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        f"frame-ancestors 'self' {CHAT} {OTHER}"
    )
    assert policy("app=shut").endswith("frame-ancestors 'self' https://shut.example")
    for query in ("app=plain", "app=nobody", ""):
        assert policy(query).endswith("frame-ancestors 'none'")
        assert policy(query, "v1/disclosure").endswith("frame-ancestors 'none'")
    assert policy("app=chat", "v1/disclosure").endswith(f"form-action 'none'; frame-ancestors 'self' {CHAT} {OTHER}")
    page = whole.http.get("/sluice/report?app=chat").text
    assert f'data-origins="{CHAT} {OTHER}"' in page
    assert 'data-origins=""' in whole.http.get("/sluice/report?app=plain").text


def test_the_disclosure_leads_to_the_pages_and_back(whole: Whole) -> None:
    page = whole.http.get("/sluice/v1/disclosure?app=chat", headers={"accept": "text/html"}).text
    for name in ("", "report", "appeal", "complain"):
        assert f'href="/sluice/{name}?app=chat"' in page
    assert 'href="v1/disclosure?app=chat"' in whole.http.get("/sluice/?app=chat").text


def test_a_header_that_anybody_can_write_names_nobody_on_an_open_page(whole: Whole) -> None:
    done = send(whole, "report", {"x-user-id": "u-1"}, text="示例答复：有人替别人的名字来举报这一句话。")
    case = whole.call("GET", f"/cases/{shown(done)[0]}").json()
    assert not case.get("subjects") and not case.get("reporters")
    for n in range(25):  # more than one person may send an hour
        done = send(whole, "report", {"x-user-id": "u-1"}, text=f"示例答复：第{n}份，每份都不一样。")
        assert done.status_code == 200


def test_too_many_from_one_address_are_told_when_to_come_back(make_gateway: Make) -> None:
    gateway = make_gateway(policy="reports: {per_source: 3}\n")
    answers = [gateway.http.post("/sluice/report?lang=en", data={"text": BANNER, "key": "k"}) for _ in range(4)]
    assert [a.status_code for a in answers] == [503, 503, 503, 429]
    assert int(answers[-1].headers["retry-after"]) > 0 and "try again in" in answers[-1].text
    assert fields(answers[-1].text)["text"] == BANNER


# ---- other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "null"}, 422),
        ({"sec-fetch-site": "none"}, 422),
        ({}, 422),
        ({"origin": "null"}, 422),
        ({"origin": CHAT, "sec-fetch-site": "cross-site"}, 422),
        ({"origin": EVIL, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": EVIL, "sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://shut.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": EVIL}, 403),
    ],
    ids=str,
)
def test_a_form_that_another_site_sends_is_refused_unless_it_is_the_apps(
    whole: Whole, headers: dict[str, str], status: int
) -> None:
    for page in PAGES[1:]:
        answer = whole.http.post(f"/sluice/{page}?app=chat&lang=en", data={"comment": "x"}, headers=headers)
        assert answer.status_code == status
        assert status != 403 or "from another site" in answer.text


def test_a_form_of_our_own_over_plain_http_is_taken(whole: Whole) -> None:
    answer = whole.http.post("/sluice/report?app=chat", data={"text": ""}, headers={"origin": whole.url})
    assert answer.status_code == 422


@pytest.mark.parametrize("what", ["reports", "appeals", "complaints"])
def test_browsers_of_an_apps_sites_may_call_the_report_routes_and_no_others(whole: Whole, what: str) -> None:
    path = f"/sluice/v1/{what}"

    def preflight(origin: str, path: str = path, method: str = "POST") -> httpx.Response:
        asks = {"access-control-request-method": method, "access-control-request-headers": "authorization,content-type"}
        return whole.http.options(path, headers={"origin": origin, **asks})

    def cors(answer: httpx.Response) -> list[str]:
        return sorted(n for n in answer.headers if n.startswith("access-control-"))

    for origin in (CHAT, OTHER, "https://shut.example"):
        allowed = preflight(origin)
        assert allowed.status_code == 204 and allowed.headers["access-control-allow-origin"] == origin
        assert allowed.headers["vary"] == "origin" and "access-control-allow-credentials" not in allowed.headers
        for name in ("authorization", "x-api-key", "content-type", "idempotency-key", "x-sluice-status-token"):
            assert name in allowed.headers["access-control-allow-headers"]
        assert preflight(origin, f"{path}/tkt_1", "GET").status_code == 204
    for origin in (EVIL, "null", CHAT + ".evil.example", CHAT.upper(), ""):
        refused = preflight(origin)
        assert refused.status_code == 405 and not cors(refused)
    for route in ("/v1/chat/completions", "/sluice/v1/disclosure", "/sluice/v1/decisions/slc_1", "/sluice/report"):
        assert not cors(preflight(CHAT, route)) and not cors(whole.http.get(route, headers={"origin": CHAT}))

    def call(origin: str, key: str) -> httpx.Response:
        return whole.http.post(path, json={}, headers={"origin": origin, "authorization": f"Bearer {key}"})

    answer = call(CHAT, KEYS["chat"])
    assert answer.status_code == 422 and answer.headers["access-control-allow-origin"] == CHAT, (
        "an error can be read too"
    )
    assert "origin" in answer.headers["vary"]
    assert call(CHAT, "wrong").headers["access-control-allow-origin"] == CHAT
    for origin, key in ((CHAT, KEYS["shut"]), (EVIL, KEYS["chat"]), (EVIL, "wrong"), ("null", KEYS["chat"])):
        assert not cors(call(origin, key))
    looked = whole.http.get(f"{path}/tkt_1", headers={"origin": CHAT, "x-sluice-status-token": "x"})
    assert looked.status_code == 404 and looked.headers["access-control-allow-origin"] == CHAT


def test_the_pages_are_no_part_of_the_api_description(make_gateway: Make) -> None:
    paths = make_gateway().gateway.api.openapi()["paths"]
    assert paths and not [p for p in paths if not p.startswith("/sluice/v1/")]
