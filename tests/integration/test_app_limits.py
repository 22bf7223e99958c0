"""Apps from outside: what each may use, keys that come and go, and what an app does not say it has from the defaults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.apps import load
from app.errors import SettingsError
from tests.conftest import Model, RedisServer, Running, wait_for, whole_gateway

Make = Callable[..., Running]


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def file(*rows: dict[str, Any], **defaults: Any) -> str:
    return json.dumps({"defaults": defaults, "apps": list(rows)})


def ask(where: Any, key: str, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
    if path == "/v1/moderations":
        body = {"input": "你好"}
    elif path.startswith("/sluice"):
        body = {"text": "举报的内容在这里"}
    return where.http.post(path, json=body | more, headers={"Authorization": f"Bearer {key}"})


def test_a_key_opens_what_it_was_given_for_and_says_what_that_is(make_gateway: Make) -> None:
    keys = [
        hashed("all"),
        {"sha256": hashed("gen"), "scopes": ["generate"]},
        {"sha256": hashed("mod"), "scopes": ["moderate"]},
    ]
    running = make_gateway(apps=file({"id": "web", "keys": keys}))
    routes = ("/v1/chat/completions", "/v1/moderations", "/sluice/v1/reports")
    got = {key: [ask(running, key, route).status_code for route in routes] for key in ("all", "gen", "mod")}
    # Without a store a report is a 503, which is past the door.
    assert got == {"all": [200, 200, 503], "gen": [200, 403, 403], "mod": [403, 200, 403]}
    error = ask(running, "gen", "/v1/moderations").json()["error"]
    assert error["code"] == "key_scope" and "generate" in error["message"]


def test_keys_rotate_without_a_restart_and_an_expired_one_says_so(make_gateway: Make) -> None:
    running = make_gateway(apps=file({"id": "web", "keys": [hashed("old")]}))
    path = running.gateway.settings.apps
    assert path is not None and ask(running, "old").status_code == 200 and ask(running, "new").status_code == 401
    path.write_text(file({"id": "web", "keys": [{"sha256": hashed("old"), "expires": "2026-01-31"}, hashed("new")]}))
    wait_for(lambda: ask(running, "new").status_code == 200, 5)
    expired = ask(running, "old")
    assert (expired.status_code, expired.json()["error"]["code"]) == (401, "expired_api_key")
    path.write_text("apps: [{id: web, keys: [wrong]}]")
    path.touch()
    wait_for(lambda: ask(running, "new").status_code == 200, 3)
    path.write_text("apps: [{id: web}]")  # would let everybody in
    threading.Event().wait(1.5)
    assert ask(running, "nobody").status_code == 401


def test_an_app_has_from_the_defaults_what_it_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "apps.yaml"
    path.write_text(
        file(
            {"id": "a", "keys": [hashed("a")]},
            {"id": "b", "keys": [hashed("b")], "limits": {"choices": 2}, "trusted_headers": {"conversation": "x-t"}},
            limits={"per_minute": 7, "concurrent": 3},
            trusted_headers={"subject": "X-User"},
            proxies=["10.0.0.0/8"],
        )
    )
    a, b = sorted(load(path).all, key=lambda app: app.id)
    assert (a.limits.per_minute, a.limits.concurrent, a.limits.choices) == (7, 3, 8)
    assert (b.limits.per_minute, b.limits.concurrent, b.limits.choices) == (7, 3, 2)
    assert (b.subject_header, b.conversation_header, bool(b.proxies)) == ("x-user", "x-t", True)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"limits": {"per_minute": -1}}, "limits.per_minute"),
        ({"limits": {"per_hour": 1}}, "limits.per_hour"),
        ({"proxies": ["10.0.0.1/8"]}, "proxies"),
        ({"keys": [{"sha256": hashed("k"), "expires": "soon"}]}, "expires"),
        ({"keys": [{"sha256": hashed("k"), "scopes": ["everything"]}]}, "scopes"),
        ({"keys": [{"sha256": hashed("k"), "scopes": []}]}, "scopes"),
    ],
)
def test_a_wrong_limit_or_key_is_refused_by_field(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    path = tmp_path / "apps.yaml"
    path.write_text(file({"id": "web", **given}))
    with pytest.raises(SettingsError, match=named):
        load(path)


def test_a_request_beyond_an_apps_limits_is_told_which(make_gateway: Make) -> None:
    limits = {"per_minute": 5, "choices": 2, "max_tokens": 100}
    running = make_gateway(apps=file({"id": "web", "keys": [hashed("k")], "limits": limits}))
    assert ask(running, "k", n=3).json()["error"]["param"] == "n"
    assert ask(running, "k", max_tokens=101).json()["error"]["param"] == "max_tokens"
    assert ask(running, "k", max_completion_tokens=5000).json()["error"]["param"] == "max_completion_tokens"
    assert [ask(running, "k").status_code for _ in range(3)] == [200, 200, 429]
    refused = ask(running, "k")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded" and 1 <= int(refused.headers["retry-after"]) <= 60


def test_with_an_apps_file_there_are_limits_though_none_are_said(make_gateway: Make) -> None:
    running = make_gateway(apps=file({"id": "web", "keys": [hashed("k")]}))
    (app,) = running.gateway.apps.all
    assert (app.limits.per_minute, app.limits.concurrent) == (600, 64)
    assert ask(running, "k", n=9).status_code == 400


def test_replicas_count_together(redis_server: RedisServer, model: Model, tmp_path: Path) -> None:
    apps = tmp_path / "apps.yaml"
    apps.write_text(file({"id": "web", "keys": [hashed("k")], "limits": {"per_minute": 40}}))
    settings = {"REDIS_URL": redis_server.url, "APPS": str(apps)}
    with (
        whole_gateway(tmp_path / "a", model.url, **settings) as a,
        whole_gateway(tmp_path / "b", model.url, **settings) as b,
    ):
        got = []
        for _ in range(30):
            got += [ask(a, "k").status_code, ask(b, "k").status_code]
            threading.Event().wait(0.03)
        # A turn of the minute between them begins the window anew; nothing is let in twice the limit.
        assert got.count(429) >= 5 and got.count(200) <= 60
        redis_server.kill()
        assert ask(a, "k").status_code in (200, 429), "without the store each counts for itself"


def test_so_many_at_once_and_no_more(make_gateway: Make, model: Model) -> None:
    running = make_gateway(apps=file({"id": "web", "keys": [hashed("k")], "limits": {"concurrent": 2}}))
    model.script.chat("慢慢说。")
    assert model.script.stream is not None
    model.script.stream.insert(1, 1.5)
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(ask(running, "k", stream=True).status_code)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [200, 200, 429, 429]
    assert ask(running, "k").status_code == 200, "and afterwards there is room again"


def test_one_user_beyond_their_pace_takes_nothing_from_the_app(make_gateway: Make) -> None:
    row = {"id": "web", "keys": [hashed("k")], "limits": {"per_minute": 20}, "trusted_headers": {"subject": "x-user"}}
    running = make_gateway("pace: 3", apps=file(row))

    def say(user: str) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
        return running.http.post(
            "/v1/chat/completions", json=body, headers={"Authorization": "Bearer k", "x-user": user}
        ).status_code

    assert [say("greedy") for _ in range(40)].count(200) == 3
    assert say("another") == 200


def test_a_worker_that_was_full_elsewhere_lets_in_again_when_it_is_not(redis_server: RedisServer) -> None:
    import asyncio

    from app.errors import RequestError
    from app.limits import Meter
    from app.store.client import Store

    async def run() -> None:
        store = Store(redis_server.url, "d")
        one, two = Meter(store, "one"), Meter(store, "two")
        await one.start()
        await two.start()
        with one.inside("web", 1):
            with two.inside("web", 1):
                pass  # what the others do it learns when it is first asked
            await asyncio.sleep(0.7)
            with pytest.raises(RequestError), two.inside("web", 1):
                pass
        await asyncio.sleep(1.0)
        with two.inside("web", 1):
            pass
        await one.stop()
        await two.stop()
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("wanted", [100_000.0, "100000", True, 101])
def test_a_limit_of_tokens_is_not_talked_around(make_gateway: Make, wanted: Any) -> None:
    running = make_gateway(apps=file({"id": "web", "keys": [hashed("k")], "limits": {"max_tokens": 100}}))
    assert ask(running, "k", max_tokens=wanted).json()["error"]["param"] == "max_tokens"
