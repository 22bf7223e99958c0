"""The apps file: refused whole with the field at fault, requests identified by key, users known by pseudonym only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.apps import UNLIMITED, App, Apps, load
from app.errors import RequestError, SettingsError
from app.keys import Keys

KEYS = Keys("k1:" + "s" * 32)


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


ONE, TWO, THREE = hashed("key-one"), hashed("key-two"), hashed("key-three")
TWO_APPS = f"""
apps:
  - {{id: web, keys: ["{ONE}", "{TWO}"], trusted_headers: {{subject: X-User-Id}}}}
  - {{id: kids, keys: ["{THREE}"], policy: strict}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "apps.yaml"
    path.write_text(TWO_APPS, "utf-8")
    return path


@pytest.fixture
def apps(file: Path) -> Apps:
    return load(file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "apps"),
        ("[]", "mapping"),
        ("apps: []", "apps"),
        ("apps: {web: {}}", "apps"),
        ("apps: [{id: web}]\nappz: 1", "appz"),
        ("apps: [{}]", "apps.0.id"),
        ("apps: [{id: Web}]", "apps.0.id"),
        ("apps: [{id: ''}]", "apps.0.id"),
        ("apps: [{id: 'a b'}]", "apps.0.id"),
        ("apps: [{id: 7}]", "apps.0.id"),
        (f"apps: [{{id: {'a' * 64}}}]", "apps.0.id"),
        ("apps: [{id: web, key: canary}]", "apps.0.key"),
        ("apps: [{id: web, keys: canary}]", "apps.0.keys"),
        ("apps: [{id: web, policy: [canary]}]", "apps.0.policy"),
        ("apps: [{id: web, trusted_headers: {user: X-User}}]", "trusted_headers.user"),
        ("apps: [{id: web, trusted_headers: {subject: [canary]}}]", "trusted_headers.subject"),
        ("apps: [{id: web, keys: [canary]}]", "apps.web.keys"),
        ("apps: [{id: web, keys: ['sha256:canary']}]", "apps.web.keys"),
        (f"apps: [{{id: web, keys: ['{ONE.upper()}']}}]", "apps.web.keys"),
        (f"apps: [{{id: web, keys: ['{ONE[:-1]}']}}]", "apps.web.keys"),
        (f"apps: [{{id: web, keys: ['{ONE[7:]}']}}]", "apps.web.keys"),
        (f"apps: [{{id: web, keys: ['{ONE}']}}, {{id: web, keys: ['{TWO}']}}]", "'web' stands twice"),
        (f"apps: [{{id: web, keys: ['{ONE}']}}, {{id: kids, keys: ['{ONE}']}}]", "apps.kids.keys: one key names two"),
        (f"apps: [{{id: web, keys: ['{ONE}']}}, {{id: kids}}]", "each needs at least one key"),
        ("apps: [{id: web}, {id: kids}]", "each needs at least one key"),
        ("apps: [{id: web, id: kids}]", "'id' stands twice"),
        ("apps: [{id: 'web", "line 1"),
        ("apps:\n  - id: web\n bad", "line"),
    ],
)
def test_a_wrong_file_is_refused_by_field_and_nothing_of_a_key_is_repeated(file: Path, text: str, named: str) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(SettingsError) as refused:
        load(file)
    assert str(refused.value).startswith("SLUICE_APPS: ")
    assert named in str(refused.value)
    assert "canary" not in str(refused.value)
    assert ONE[7:-1] not in str(refused.value).lower()


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^SLUICE_APPS: .*none\.yaml cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-of-the-model"}, {"x-api-key": "anything"}])
def test_without_a_file_everybody_is_the_default_app(headers: dict[str, str]) -> None:
    apps = load(None)
    assert not apps.keyed
    assert apps.identify(headers) == App("default", "default", limits=UNLIMITED, open=True)


def test_one_app_without_keys_is_everybody(file: Path) -> None:
    file.write_text("apps: [{id: web, policy: strict}]", "utf-8")
    apps = load(file)
    assert not apps.keyed
    assert apps.identify({"authorization": "Bearer x"}) == App("web", "strict")


@pytest.mark.parametrize(
    ("headers", "app"),
    [
        ({"authorization": "Bearer key-one"}, "web"),
        ({"authorization": "bearer key-two"}, "web"),
        ({"x-api-key": "key-three"}, "kids"),
        ({"x-api-key": "key-three", "authorization": "Bearer sk-of-the-model"}, "kids"),
    ],
)
def test_an_app_is_known_by_any_of_its_keys(apps: Apps, headers: dict[str, str], app: str) -> None:
    assert apps.keyed
    assert apps.identify(headers).id == app


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": "Bearer canary"}, {"authorization": "Basic key-one"},
        {"x-api-key": "canary"}, {"x-api-key": ONE}, {"authorization": f"Bearer {ONE[7:]}"}, {"authorization": "Bearer key-one "},
        {"authorization": "Bearer é\udcff"}, {"x-api-key": "canary", "authorization": "Bearer key-one"},
    ],
)  # fmt: skip
def test_a_request_without_a_listed_key_is_refused_and_its_key_not_repeated(
    apps: Apps, headers: dict[str, str]
) -> None:
    with pytest.raises(RequestError) as refused:
        apps.identify(headers)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert "canary" not in refused.value.message and "key-one" not in refused.value.message


def test_an_apps_policy_section_is_its_id_unless_it_names_another(apps: Apps) -> None:
    assert apps.identify({"x-api-key": "key-one"}) == App("web", "web", "x-user-id")
    assert apps.identify({"x-api-key": "key-three"}) == App("kids", "strict")


def test_a_user_is_a_pseudonym_that_is_stable_and_holds_nothing_of_the_name() -> None:
    app = App("web", "web", "x-user-id")
    subject = app.subject({"x-user-id": "canary"}, KEYS)
    assert subject is not None
    assert subject == app.subject({"x-user-id": "canary", "user-agent": "other"}, KEYS)
    assert subject.app == "web"
    assert subject.pseudonym.startswith("k1.")
    assert "canary" not in subject.pseudonym


@pytest.mark.parametrize(
    ("app", "user", "keys"),
    [
        (App("web", "web", "x-user-id"), "another", KEYS),
        (App("kids", "web", "x-user-id"), "canary", KEYS),
        (App("web", "web", "x-user-id"), "canary", Keys("k1:" + "t" * 32)),
    ],
)
def test_another_user_or_app_or_key_gives_another_pseudonym(app: App, user: str, keys: Keys) -> None:
    first = App("web", "web", "x-user-id").subject({"x-user-id": "canary"}, KEYS)
    other = app.subject({"x-user-id": user}, keys)
    assert first is not None and other is not None
    assert first.pseudonym != other.pseudonym


@pytest.mark.parametrize(
    ("app", "headers"),
    [
        (App("web", "web"), {"x-user-id": "canary", "": "canary"}),
        (App("web", "web", "x-user-id"), {"x-user": "canary"}),
        (App("web", "web", "x-user-id"), {"x-user-id": ""}),
    ],
)
def test_nobody_is_known_by_a_header_that_is_not_trusted(app: App, headers: dict[str, str]) -> None:
    assert app.subject(headers, KEYS) is None


@pytest.mark.parametrize(
    "origin",
    [
        "*", "https://*.chat.example", "https://canary.example/", "https://canary.example/path", "canary.example", "//canary.example",
        "https://canary.example:443", "http://canary.example:80", "https://canary.example:65536", "https://canary.example:0",
        "https://Canary.example", "https://canary.example.", "https://.canary", "https://canary..example", "https://canary example",
        "https://canary.example; script-src *", "https://canary.example,https://b.example", "https://user@canary.example", "null",
        "ftp://canary.example", "https://[::1]", "https://示例.example", "https://canary.example\n", "https://-canary", "",
        "https://" + "a" * 60 + ".a" * 200, "https://" + "a" * 5000 + "!",
    ],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused_with_the_field_and_the_way_out(file: Path, origin: str) -> None:
    file.write_text(f"apps: [{{id: web, pages: {{origins: [{json.dumps(origin)}]}}}}]", "utf-8")
    with pytest.raises(SettingsError) as refused:
        load(file)
    assert "apps.0.pages.origins" in str(refused.value) and "canary" not in str(refused.value)
    assert "origin" in str(refused.value)


def test_who_has_pages_is_said_per_app_over_the_defaults(file: Path) -> None:
    given = "{open: true, origins: ['https://a.example', 'http://127.0.0.1:3000', 'http://xn--fsq.example:8080']}"
    file.write_text(
        f"defaults: {{pages: {given}}}\napps:\n"
        f"  - {{id: web, keys: ['{ONE}']}}\n  - {{id: kids, keys: ['{TWO}'], pages: {{open: false}}}}\n"
        f"  - {{id: bare, keys: ['{THREE}'], pages: {{origins: []}}}}\n",
        "utf-8",
    )
    apps = load(file)
    web, kids, bare = (apps.named(name) for name in ("web", "kids", "bare"))
    assert web is not None and kids is not None and bare is not None
    assert web.open and web.origins == ("https://a.example", "http://127.0.0.1:3000", "http://xn--fsq.example:8080")
    assert not kids.open and kids.origins == web.origins and bare.open and bare.origins == ()
    assert apps.named("") is None and apps.named("nobody") is None
    only = load(None)
    assert only.named("") is only.named("default") is not None and only.named("").open  # type: ignore[union-attr]
    file.write_text("apps: [{id: web, pages: {frame: 1}}]", "utf-8")
    with pytest.raises(SettingsError, match=r"apps\.0\.pages\.frame: no such key"):
        load(file)
    file.write_text("apps: [{id: web}]", "utf-8")
    assert load(file).named("").open is False  # type: ignore[union-attr]
