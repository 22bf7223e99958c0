"""The environment: defaults of the contract, refusals that name the variable, secrets that are never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SettingsError
from app.settings import SCOPES, Admin, Mapped, Settings, admins, loopback, mapped, read, unsafe

DEFAULTS = {
    "UPSTREAM_URL": "http://127.0.0.1:8000/v1",
    "UPSTREAM_KEY": "",
    "UPSTREAM_CONNECT_TIMEOUT": "2.0",
    "UPSTREAM_FIRST_TOKEN_TIMEOUT": "60.0",
    "UPSTREAM_IDLE_TIMEOUT": "30.0",
    "REDIS_REPLICAS": "0",
    "CLEAN": "",
    "ALERT_URL": "",
    "ALERT_KEY": "",
    "HOST": "127.0.0.1",
    "PORT": "8100",
    "OPS_HOST": "127.0.0.1",
    "OPS_PORT": "8101",
    "ADMIN_HOST": "127.0.0.1",
    "ADMIN_PORT": "8102",
    "WORKERS": "1",
    "REDIS_URL": "",
    "DATA_DIR": ".sluice",
    "APPS": "",
    "SURROGATE_UPSTREAM": "",
    "SURROGATE_KEY": "",
    "SURROGATE_MODEL": "",
    "GUARD": "",
    "GUARD_URL": "",
    "GUARD_KEY": "",
    "GUARD_PATH": "",
    "GUARD_THREADS": "1",
    "ANSWER_MAX_CHARACTERS": "4194304",
    "ANSWER_MAX_SECONDS": "3600.0",
    "CLIENT_HEADER_TIMEOUT": "10.0",
    "CLIENT_BODY_TIMEOUT": "60.0",
    "CLIENT_STALL_TIMEOUT": "60.0",
    "MAX_EXCHANGES": "",
    "MEMORY_LIMIT": "",
    "DRAIN_TIMEOUT": "8.0",
    "SECRET_KEY": "",
    "ADMIN_TOKEN": "",
    "CONSOLE_URL": "",
    "OIDC_ISSUER": "",
    "OIDC_CLIENT_ID": "",
    "OIDC_CLIENT_SECRET": "",
    "OIDC_ROLES": "",
}
SECRETS = {
    "UPSTREAM_KEY": "sk-upstream-canary",
    "SURROGATE_KEY": "sk-surrogate-canary",
    "GUARD_KEY": "sk-guard-canary",
    "SECRET_KEY": "k1:canary-canary-canary-canary-canary",
    "ADMIN_TOKEN": "canary-token-of-at-least-thirty-two-characters",
    "REDIS_URL": "redis://:canary@127.0.0.1:6379/0",
    "OIDC_CLIENT_SECRET": "canary-client-secret",
}
UPSTREAM = "http://127.0.0.1:8000"


def env(**values: str) -> dict[str, str]:
    return {"SLUICE_" + name: value for name, value in values.items()}


def reasons(app_keys: bool = False, **values: str) -> list[str]:
    return unsafe(read(env(**values)), app_keys=app_keys)


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_every_default_is_the_contracts(name: str, value: str) -> None:
    assert read({}).shown()["SLUICE_" + name] == value


@pytest.mark.parametrize("name", ["POLICY", "LEXICONS", "MODELS"])
def test_what_ships_with_the_package_is_found_without_a_setting(name: str) -> None:
    assert Path(read({}).shown()["SLUICE_" + name]).exists()


def test_the_settings_are_those_of_the_contract_and_the_stores_name_and_no_others() -> None:
    known = {*DEFAULTS, "POLICY", "LEXICONS", "MODELS", "DEPLOYMENT"}
    assert set(read({}).shown()) == {"SLUICE_" + name for name in known}


@pytest.mark.parametrize("name", [*DEFAULTS, "POLICY", "LEXICONS", "MODELS", "DEPLOYMENT"])
def test_an_empty_value_is_an_unset_one(name: str) -> None:
    assert read(env(**{name: ""})) == read({})


def test_an_empty_value_does_not_excuse_a_wrong_name_in_another() -> None:
    with pytest.raises(SettingsError, match="SLUICE_PROT"):
        read(env(PORT="", PROT="8100"))


@pytest.mark.parametrize("name", ["PROT", "UPSTREAM", "UPSTREAM_URL_", "REDIS", "UPSTREAM.URL", "X"])
def test_an_unknown_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^SLUICE_{name}: no such setting"):
        read(env(**{name: "canary"}))


def test_names_without_the_prefix_are_none_of_our_business() -> None:
    assert read({"PORT": "1", "SLUICEPORT": "x", "MY_SLUICE_PORT": "y"}) == read({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "canary"), ("PORT", "65536"), ("PORT", "-1"), ("PORT", "81.5"), ("OPS_PORT", "canary"), ("ADMIN_PORT", "70000"),
        ("WORKERS", "0"), ("WORKERS", "257"), ("WORKERS", "canary"), ("UPSTREAM_CONNECT_TIMEOUT", "0"),
        ("UPSTREAM_CONNECT_TIMEOUT", "canary"),
        ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "-1"), ("UPSTREAM_IDLE_TIMEOUT", "nan"), ("DEPLOYMENT", "Canary"), ("DEPLOYMENT", "canary{}"),
        ("DEPLOYMENT", "canary\n"), ("DEPLOYMENT", "a" * 41),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_by_name_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^SLUICE_{name}: ") as refused:
        read(env(**{name: value}))
    assert "canary" not in str(refused.value).lower()


def test_every_variable_at_fault_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read(env(PORT="x", WORKERS="0", PROT="1"))
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "SLUICE_PORT",
        "SLUICE_WORKERS",
        "SLUICE_PROT",
    ]


def test_an_option_of_the_command_line_wins_over_the_environment_and_none_is_no_option() -> None:
    assert read(env(PORT="1", HOST="::1"), port=2, host=None).shown() == read(env(PORT="2", HOST="::1")).shown()


def test_a_wrong_option_is_refused_under_its_environment_name() -> None:
    with pytest.raises(SettingsError, match=r"^SLUICE_PORT: "):
        read({}, port="x")


def test_secrets_are_masked_and_everything_else_is_shown() -> None:
    shown = read(env(**SECRETS, HOST="::1")).shown()
    assert {shown["SLUICE_" + name] for name in SECRETS} == {"********"}
    assert shown["SLUICE_HOST"] == "::1"
    assert "canary" not in str(shown)


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read({}).port = 1  # type: ignore[misc]


def test_the_defaults_are_safe() -> None:
    assert unsafe(Settings(), app_keys=False) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:8000/v1", "must be an http or https URL"), ("ftp://127.0.0.1/v1", "must be an http or https URL"),
        ("file:///v1", "must be an http or https URL"), ("http:///v1", "must be an http or https URL"),
        ("http://[::1/v1", "must be an http or https URL"),
        ("http://127.0.0.1:80000/v1", "must be an http or https URL"), (UPSTREAM, "must end in /v1"),
        (UPSTREAM + "/v1/chat/completions", "must end in /v1"), (UPSTREAM + "/v2", "must end in /v1"),
        ("http://user:canary@127.0.0.1:8000/v1", "must carry no credentials"),
        ("http://user@127.0.0.1:8000/v1", "must carry no credentials"),
        ("http://:canary@127.0.0.1:8000/v1", "must carry no credentials"),
        (UPSTREAM + "/v1?key=canary", "must carry no credentials, query"),
        (UPSTREAM + "/v1#canary", "must carry no credentials, query or fragment"),
    ],
)  # fmt: skip
def test_an_upstream_that_cannot_be_meant_is_refused(url: str, reason: str) -> None:
    (refusal,) = reasons(UPSTREAM_URL=url)
    assert refusal.startswith("SLUICE_UPSTREAM_URL ")
    assert reason in refusal
    assert "canary" not in refusal


@pytest.mark.parametrize(
    "url", [UPSTREAM + "/v1", UPSTREAM + "/v1/", "https://example.com/model/v1", "http://[::1]/v1"]
)
def test_an_upstream_as_the_client_takes_it_is_accepted(url: str) -> None:
    assert reasons(UPSTREAM_URL=url) == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"GUARD": "g"}, "SLUICE_GUARD "),
        ({"GUARD": "g", "GUARD_URL": UPSTREAM, "GUARD_PATH": "/canary"}, "SLUICE_GUARD "),
        ({"GUARD_URL": UPSTREAM}, "SLUICE_GUARD "), ({"GUARD_PATH": "/canary"}, "SLUICE_GUARD "),
        ({"GUARD_URL": UPSTREAM, "GUARD_PATH": "/canary"}, "SLUICE_GUARD "),
        ({"GUARD": "g", "GUARD_URL": "127.0.0.1:8000"}, "SLUICE_GUARD_URL "),
        ({"GUARD": "g", "GUARD_URL": "http://user:canary@127.0.0.1"}, "SLUICE_GUARD_URL "),
        ({"GUARD": "g", "GUARD_URL": UPSTREAM + "/hook?key=canary"}, "SLUICE_GUARD_URL "),
    ],
)  # fmt: skip
def test_half_a_guard_is_refused(values: dict[str, str], named: str) -> None:
    (refusal,) = reasons(**values)
    assert refusal.startswith(named) and "canary" not in refusal


@pytest.mark.parametrize(
    "place", [{"GUARD_URL": UPSTREAM + "/v1"}, {"GUARD_URL": UPSTREAM + "/hook"}, {"GUARD_PATH": "/m"}]
)
def test_a_guard_at_one_place_is_accepted_whether_it_is_there_or_not(place: dict[str, str]) -> None:
    assert reasons(GUARD="my-guard_0.6B", **place) == []


@pytest.mark.parametrize("name", ["..", "a/b", "/a", ".a", "a\n", "a" * 61])
def test_a_guards_name_is_that_of_a_folder(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^SLUICE_GUARD: "):
        read(env(GUARD=name, GUARD_PATH="/m"))


@pytest.mark.parametrize("threads", ["0", "257", "canary"])
def test_a_guard_has_some_threads(threads: str) -> None:
    with pytest.raises(SettingsError, match=r"^SLUICE_GUARD_THREADS: "):
        read(env(GUARD_THREADS=threads))


def test_a_guards_address_with_credentials_is_not_shown() -> None:
    assert read(env(GUARD_URL="http://user:canary@127.0.0.1")).shown()["SLUICE_GUARD_URL"] == "********"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
@pytest.mark.parametrize(
    ("kept_private_by", "refused"), [({}, True), ({"app_keys": True}, False), ({"UPSTREAM_KEY": ""}, False)]
)
def test_a_gateway_is_no_open_proxy_on_the_operators_bill(
    host: str, kept_private_by: dict[str, Any], refused: bool
) -> None:
    found = reasons(**({"HOST": host, "UPSTREAM_KEY": "canary"} | kept_private_by))
    assert [("open proxy" in r, "SLUICE_UPSTREAM_KEY" in r, "SLUICE_APPS" in r) for r in found] == (
        [(True, True, True)] if refused else []
    )


def test_a_shared_store_needs_a_secret_that_replicas_share() -> None:
    (reason,) = reasons(REDIS_URL="redis://127.0.0.1:6379/0")
    assert "SLUICE_SECRET_KEY must be set" in reason
    assert reasons(REDIS_URL="redis://127.0.0.1:6379/0", SECRET_KEY="s" * 32) == []


@pytest.mark.parametrize("token", ["", "short", "t" * 31])
def test_an_admin_port_that_others_reach_needs_a_long_token(token: str) -> None:
    (reason,) = reasons(ADMIN_HOST="0.0.0.0", ADMIN_TOKEN=token)
    assert "SLUICE_ADMIN_HOST" in reason and "SLUICE_ADMIN_TOKEN" in reason
    assert reasons(ADMIN_HOST="0.0.0.0", ADMIN_TOKEN="t" * 32) == []


def test_every_reason_is_given_at_once() -> None:
    found = reasons(
        UPSTREAM_URL="x", UPSTREAM_KEY="canary", HOST="0.0.0.0", REDIS_URL="redis://:canary@h", ADMIN_HOST="::"
    )
    assert len(found) == 4
    assert "canary" not in str(found)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_names_are_known(host: str) -> None:
    assert loopback(host)


@given(st.ip_addresses().filter(lambda ip: not ip.is_loopback) | st.text(alphabet="abcxyz.0-", max_size=20))
def test_nothing_else_is_taken_for_loopback(host: object) -> None:
    assert not loopback(str(host))


@pytest.mark.parametrize(
    "token",
    [
        "anna/Review:" + "a" * 32, "anna:" + "a" * 32 + ",", "anna:" + "a" * 32 + ",bert/lists:short", "anna/:" + "a" * 32,
        "anna/review+:" + "a" * 32, "anna/review,lists:" + "a" * 32, "anna/all:" + "a" * 32, "anna:" + "a" * 32 + ",anna:" + "b" * 32,
    ],
)  # fmt: skip
def test_a_list_of_admin_tokens_with_a_mistake_in_it_is_refused_and_not_one_token_for_everything(token: str) -> None:
    with pytest.raises(SettingsError, match="SLUICE_ADMIN_TOKEN") as e:
        admins(token)
    assert "a" * 32 not in str(e.value)


def test_admin_tokens_say_whose_they_are_and_what_they_may_do() -> None:
    assert admins("") == {}
    assert admins("t" * 32) == {"t" * 32: Admin("admin", frozenset(SCOPES))}
    named = admins("anna/review+audit:" + "a" * 32 + ", bert:" + "b:/b" * 8)
    assert named["a" * 32] == Admin("anna", frozenset({"review", "audit"}))
    assert named["b:/b" * 8] == Admin("bert", frozenset(SCOPES))


def test_an_address_that_may_hold_a_secret_is_not_shown() -> None:
    for name, value in (
        ("ALERT_URL", "https://alerts.example/hook/canary"), ("UPSTREAM_URL", "https://m.example/v1?api_key=canary"),
        ("GUARD_URL", "https://canary@g.example/"), ("OIDC_ISSUER", "https://u:canary@id.example"),
        ("CONSOLE_URL", "https://ops.example/console?canary"),
    ):  # fmt: skip
        assert "canary" not in str(read(env(**{name: value})).shown())


OIDC = {
    "OIDC_ISSUER": "https://id.example/realm", "OIDC_CLIENT_ID": "sluice console", "OIDC_ROLES": "groups=a:reviewer",
    "CONSOLE_URL": "https://ops.example/console",
}  # fmt: skip


def test_a_login_with_and_without_a_secret_is_accepted_and_a_consoles_address_alone() -> None:
    assert reasons(**OIDC) == [] and reasons(**OIDC, OIDC_CLIENT_SECRET="s") == []
    assert reasons(CONSOLE_URL=OIDC["CONSOLE_URL"]) == []
    assert (
        reasons(**(OIDC | {"OIDC_ISSUER": "http://127.0.0.1:9/r", "CONSOLE_URL": "http://localhost:8102/console"}))
        == []
    )


@pytest.mark.parametrize("name", OIDC)
def test_half_a_login_is_refused_by_the_half_that_is_missing(name: str) -> None:
    (reason,) = reasons(**(OIDC | {name: ""}))
    assert reason.startswith(f"SLUICE_{name} must be set") and "须设置" in reason and "docs/console.md" in reason


def test_a_clients_secret_alone_is_no_login() -> None:
    found = reasons(OIDC_CLIENT_SECRET="canary")
    assert [reason.split()[0] for reason in found] == ["SLUICE_" + name for name in OIDC] and "canary" not in str(found)


@pytest.mark.parametrize("name", ["OIDC_ISSUER", "CONSOLE_URL"])
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://id.example", "https"), ("http://127.0.0.1.evil.example/canary", "https"), ("id.example/canary", "https"),
        ("ftp://127.0.0.1/canary", "https"), ("https:///canary", "https"), ("https://[::1/canary", "https"),
        ("https://h:0/canary", "https"), ("https://h/canary\nx", "https"), ("https://h/示例canary", "https"),
        ("https://u:canary@h/", "credentials"), ("https://h/?canary", "query"), ("https://h/#canary", "fragment"),
        ("https://h/canary?", "query"),
    ],
)  # fmt: skip
def test_an_address_that_logins_pass_through_can_be_read_by_nobody_else(name: str, address: str, why: str) -> None:
    (reason,) = reasons(**(OIDC | {name: address}))
    assert reason.startswith(f"SLUICE_{name} must") and why in reason and "canary" not in reason


@pytest.mark.parametrize(
    "text",
    ["groups", "groups=", "=a:lead", "groups=a", "groups=a:", "groups=:lead", "groups=a:Lead", "groups=a:admin", "groups=a:lead,"],
)  # fmt: skip
def test_groups_that_give_no_known_role_are_refused_with_an_example(text: str) -> None:
    (reason,) = reasons(**(OIDC | {"OIDC_ROLES": text}))
    assert reason.startswith("SLUICE_OIDC_ROLES: part ") and "reviewer, lead, operator, auditor" in reason


def test_groups_give_roles() -> None:
    assert mapped("groups=a:lead, b c : reviewer,a:auditor,urn:x=y:operator") == Mapped(
        "groups",
        {"a": frozenset({"lead", "auditor"}), "b c": frozenset({"reviewer"}), "urn:x=y": frozenset({"operator"})},
    )


@pytest.mark.parametrize(
    ("name", "value"), [("OIDC_CLIENT_ID", "x" * 201), ("OIDC_CLIENT_ID", "a\nb"), ("OIDC_ISSUER", "x" * 501)]
)
def test_a_clients_name_and_an_issuer_are_short_and_plain(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^SLUICE_{name}: "):
        read(env(**{name: value}))
