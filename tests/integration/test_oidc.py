"""Logging in by OpenID Connect, against a provider on a real socket: whoever it vouches for comes in, with the roles of their groups, and
nobody else; and of a login nothing is written down."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import clock, metrics, oidc
from app.errors import LoginError, SettingsError
from app.oidc import Pending, Person
from app.settings import read
from tests.conftest import ROOT
from tests.integration.test_privacy import logged  # noqa: F401
from tests.provider import CLIENT, CONSOLE, SECRET, SUBJECT, OpenID, agree, dripping, endless, provider, saying, silent
from tests.tokens import Provider, forged

ROLES = "groups=sluice-reviewers:reviewer,sluice-leads:lead,sluice-leads:reviewer,urn:x:audit:auditor"
DISCOVERY = "/.well-known/openid-configuration"


class Door:
    """The console's side, in a loop of its own."""

    def __init__(self, openid: OpenID, **changed: Any) -> None:
        conf: dict[str, Any] = {
            "oidc_issuer": openid.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_roles": ROLES,
            "console_url": CONSOLE,
        }  # fmt: skip
        self.provider = oidc.Provider(read({}, **(conf | changed)))
        self._runner = asyncio.Runner()

    def __enter__(self) -> Door:
        self._runner.run(self.provider.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.provider.stop())
        self._runner.close()

    def begin(self) -> tuple[str, Pending]:
        return self._runner.run(self.provider.begin())

    def finish(self, pending: Pending, query: dict[str, str]) -> Person:
        return self._runner.run(self.provider.finish(pending, query))

    def log_in(self) -> Person:
        """All of it, as a browser does it whose user agrees."""
        address, pending = self.begin()
        return self.finish(pending, agree(address))

    def refusal(self, do: Callable[[], object] | None = None) -> LoginError:
        with pytest.raises(LoginError) as e:
            (do or self.log_in)()
        return e.value

    def together(self, times: int) -> list[tuple[str, Pending] | BaseException]:
        async def begun() -> list[tuple[str, Pending] | BaseException]:
            return await asyncio.gather(*(self.provider.begin() for _ in range(times)), return_exceptions=True)

        return self._runner.run(begun())


@pytest.fixture
def openid() -> Iterator[OpenID]:
    with provider() as made:
        yield made
        assert made.wrong == []


@pytest.fixture
def door(openid: OpenID) -> Iterator[Door]:
    with Door(openid) as made:
        yield made


@pytest.fixture
def turned() -> Callable[[float], None]:
    """Turn the clock on by so many seconds."""
    ahead = [0.0]
    clock.use(lambda: time.time() + ahead[0])

    def turn(seconds: float) -> None:
        ahead[0] += seconds

    return turn


# ---- the good path


@pytest.mark.parametrize("kid", ["r", "e"])
def test_whoever_the_provider_vouches_for_is_logged_in(door: Door, openid: OpenID, kid: str) -> None:
    openid.kid = kid
    assert door.log_in() == Person(f"oidc:{SUBJECT}", "Canary Name", frozenset({"reviewer"}))


def test_every_login_has_a_state_a_nonce_and_a_verifier_of_its_own_that_no_address_gives_away(door: Door) -> None:
    begun = [door.begin() for _ in range(20)]
    secrets = [value for _, pending in begun for value in pending]
    assert len(set(secrets)) == 60 and min(map(len, secrets)) == 43
    for address, pending in begun:
        query = parse_qs(urlsplit(address).query)
        assert query["state"] == [pending.state] and query["nonce"] == [pending.nonce]
        assert pending.verifier not in address and SECRET not in address
        assert query["scope"] == ["openid profile"] and query["tenant"] == ["a b"]
    assert Pending(*json.loads(json.dumps(begun[0][1]))) == begun[0][1]


@pytest.mark.parametrize(
    ("methods", "where"),
    [
        (None, "header"), (["client_secret_basic", "client_secret_post"], "header"), (["client_secret_post"], "form"),
        (["private_key_jwt", "client_secret_post"], "form"),
    ],
)  # fmt: skip
def test_the_client_says_who_it_is_as_the_provider_wants_it(
    openid: OpenID, methods: list[str] | None, where: str
) -> None:
    openid.about = {"token_endpoint_auth_methods_supported": methods}
    with Door(openid) as door:
        door.log_in()
    assert ("client_secret" in openid.forms[0]) == (where == "form")


def test_a_client_without_a_secret_logs_in_by_its_verifier_alone(openid: OpenID) -> None:
    openid.secret = None
    with Door(openid, oidc_client_secret=None) as door:
        door.log_in()
    assert openid.forms[0]["client_id"] == CLIENT


def test_a_provider_that_takes_secrets_in_no_way_we_know_is_named(openid: OpenID) -> None:
    openid.about = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    with Door(openid) as door:
        assert door.refusal().code == "metadata"


def test_groups_are_asked_for_where_the_provider_has_a_scope_of_that_name(openid: OpenID) -> None:
    openid.about = {"scopes_supported": ["openid", "profile", "groups"]}
    with Door(openid) as door:
        assert parse_qs(urlsplit(door.begin()[0]).query)["scope"] == ["openid profile groups"]


# ---- who it is, and what they may do


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"groups": "sluice-reviewers"}, {"reviewer"}), ({"groups": ["sluice-leads"]}, {"lead", "reviewer"}),
        ({"groups": ["x", "urn:x:audit"]}, {"auditor"}), ({"groups": None}, set()), ({"groups": []}, set()),
        ({"groups": "sluice-reviewers sluice-leads"}, set()), ({"groups": ["Sluice-Reviewers"]}, set()),
        ({"groups": [["sluice-leads"], 7, {"sluice-leads": True}]}, set()), ({"groups": {"sluice-leads": True}}, set()),
        ({"groups": None, "roles": ["sluice-leads"]}, set()), ({"groups": ["lead", "reviewer"]}, set()),
    ],
)  # fmt: skip
def test_roles_come_from_the_named_claim_alone(
    door: Door, openid: OpenID, claims: dict[str, Any], roles: set[str]
) -> None:
    openid.person = claims
    assert door.log_in().roles == roles


@pytest.mark.parametrize(
    ("mapping", "claims"),
    [
        ("realm_access.roles=leads:lead", {"realm_access": {"roles": ["leads"]}}),
        ("https://example.test/groups=leads:lead", {"https://example.test/groups": ["leads"]}),
        ("a.b=leads:lead", {"a.b": "leads", "a": {"b": "others"}}),
    ],
)
def test_a_claim_may_stand_in_another_or_have_a_name_with_dots(
    openid: OpenID, mapping: str, claims: dict[str, Any]
) -> None:
    openid.person = claims
    with Door(openid, oidc_roles=mapping) as door:
        assert door.log_in().roles == {"lead"}
        openid.person = {"realm_access": ["leads"], "a": "leads"}
        assert door.log_in().roles == frozenset()


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"name": "示例 甲"}, "示例 甲"), ({"name": None, "preferred_username": "a1"}, "a1"), ({"name": ""}, SUBJECT),
        ({"name": ["x"], "email": "a@example.test"}, "a@example.test"), ({"name": "a\u202eb\n\x00c"}, "a b c"),
        ({"name": "x" * 500}, "x" * 80), ({"name": "\u200b \t"}, SUBJECT),
    ],
)  # fmt: skip
def test_a_name_is_shown_without_what_could_disturb_a_page(
    door: Door, openid: OpenID, claims: dict[str, Any], name: str
) -> None:
    openid.person = claims
    assert door.log_in().name == name


@pytest.mark.parametrize("sub", [None, "", "x" * 256, "a\nb", "a\x00", " a", "a ", "示例", 7, ["a"], "a\u202e"])
def test_a_subject_is_short_plain_text(door: Door, openid: OpenID, sub: Any) -> None:
    openid.mangle = lambda token: rewritten(openid, token, sub=sub)
    assert door.refusal().code == "claims"


@pytest.mark.parametrize("sub", ["a", "x" * 255, "CN=a b,OU=c", "auth|5f7c"])
def test_a_subject_is_the_providers_own(door: Door, openid: OpenID, sub: str) -> None:
    openid.person = {"sub": sub}
    assert door.log_in().subject == "oidc:" + sub


# ---- what is refused


def rewritten(openid: OpenID, token: str, **changed: Any) -> str:
    """The same token, signed as it should be, that says something else besides."""
    import jwt

    claims = jwt.decode(token, options={"verify_signature": False}) | changed
    return jwt.api_jws.encode(json.dumps(claims).encode(), openid.keys.keys["r"], "RS256", {"kid": "r"})


def unsigned(token: str) -> dict[str, Any]:
    import jwt

    return dict(jwt.decode(token, options={"verify_signature": False}))


def _attacks() -> dict[str, tuple[Callable[[OpenID, str], str], str]]:
    def says(**changed: Any) -> Callable[[OpenID, str], str]:
        return lambda openid, token: rewritten(openid, token, **changed)

    def now() -> int:
        return int(clock.now())

    hs = {"alg": "HS256", "typ": "JWT", "kid": "r"}
    return {
        "another login's nonce": (says(nonce="n" * 43), "nonce"),
        "no nonce": (says(nonce=None), "nonce"),
        "a nonce that is no text": (says(nonce=["n"]), "nonce"),
        "another client's": (says(aud="another"), "audience"),
        "for nobody": (says(aud=None), "audience"),
        "for several, and nobody says who asked": (says(aud=[CLIENT, "another"]), "audience"),
        "for several, and another asked": (says(aud=[CLIENT, "another"], azp="another"), "audience"),
        "for us, and another asked": (says(azp="another"), "audience"),
        "another issuer": (says(iss="https://evil.test"), "token_issuer"),
        "an issuer that begins like ours": (lambda o, t: rewritten(o, t, iss=o.issuer + "/"), "token_issuer"),
        "no issuer": (says(iss=None), "token_issuer"),
        "expired": (lambda o, t: rewritten(o, t, iat=now() - 600, exp=now() - 100), "expired"),
        "made long ago": (lambda o, t: rewritten(o, t, iat=now() - 7200, exp=now() + 7200), "expired"),
        "of the future": (lambda o, t: rewritten(o, t, iat=now() + 300, exp=now() + 900), "future"),
        "without an end": (says(exp=None), "claims"),
        "without a beginning": (lambda o, t: rewritten(o, t, iat=0), "claims"),
        "no algorithm": (lambda o, t: forged({"alg": "none", "kid": "r"}, unsigned(t)), "algorithm"),
        "no algorithm, in other letters": (lambda o, t: forged({"alg": "nOnE"}, unsigned(t)), "algorithm"),
        "the public key as a shared one": (lambda o, t: forged(hs, unsigned(t), o.keys.public_pem("r")), "algorithm"),
        "the public key's numbers as a shared one": (
            lambda o, t: forged(hs, unsigned(t), json.dumps(o.keys.key_set("r")["keys"][0]).encode()), "algorithm"
        ),
        "the client's secret as a shared one": (lambda o, t: forged(hs, unsigned(t), SECRET.encode()), "algorithm"),
        "an algorithm that the provider does not name": (lambda o, t: o.keys.token("r", "RS512"), "algorithm"),
        "another key of the same name": (lambda o, t: Provider().token("r", **unsigned(t)), "signature"),
        "a key of its own in the header": (
            lambda o, t: Provider().token("r", header={"jwk": Provider().key_set("r")["keys"][0]}, **unsigned(t)), "signature"
        ),
        "a key nobody lists": (lambda o, t: o.keys.token("r", header={"kid": "../r"}, **unsigned(t)), "unknown_key"),
        "no key's name, where there are several": (lambda o, t: forged({"alg": "RS256"}, unsigned(t), b""), "unknown_key"),
        "an extension nobody understands": (lambda o, t: o.keys.token("r", header={"crit": ["exp"]}), "malformed"),
        "without its signature": (lambda o, t: t.rpartition(".")[0] + ".", "signature"),
        "a signature with something in it": (lambda o, t: t[:-9] + "!" + t[-9:], "malformed"),
        "a signature in other letters": (lambda o, t: t + "==", "malformed"),
        "five parts": (lambda o, t: t + ".a.b", "malformed"),
        "nothing": (lambda o, t: "", "malformed"),
        "far too long": (lambda o, t: rewritten(o, t, groups=["g" * 100] * 700), "malformed"),
    }  # fmt: skip


@pytest.mark.parametrize("attack", _attacks())
def test_an_id_token_that_is_not_of_this_login_is_refused(door: Door, openid: OpenID, attack: str) -> None:
    mangle, code = _attacks()[attack]
    openid.mangle = lambda token: mangle(openid, token)
    before = metrics.LOGINS.labels(code)._value.get()
    refusal = door.refusal()
    assert (refusal.code, refusal.status) == (code, 401)
    assert metrics.LOGINS.labels(code)._value.get() == before + 1
    openid.mangle = lambda token: token
    assert door.log_in().subject


def test_an_id_token_for_several_is_taken_where_we_asked(door: Door, openid: OpenID) -> None:
    openid.person = {"aud": ["another", CLIENT], "azp": CLIENT}
    assert door.log_in().subject


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[OpenID, Door]]:
    with provider() as made, Door(made) as door:
        yield made, door


_letter = st.sampled_from("ABCabcxyz019-_.=+/! \n\x00é")
_change = st.one_of(
    st.tuples(st.just("put"), st.floats(0, 0.9999), _letter),
    st.tuples(st.just("insert"), st.floats(0, 1), _letter),
    st.tuples(st.just("drop"), st.floats(0, 0.9999), st.just("")),
    st.tuples(st.just("cut"), st.floats(0, 0.9999), st.just("")),
    st.tuples(st.just("head"), st.just(0.0), st.sampled_from(["none", "HS256", "ES256", "PS256", "RS512", ""])),
    st.tuples(st.just("claim"), st.just(0.0), st.sampled_from(["sub", "exp", "groups", "nonce", "aud"])),
    st.tuples(st.just("part"), st.sampled_from([0.0, 1.0, 2.0]), st.just("")),
)


def mutated(token: str, other: str, changes: list[tuple[str, float, str]]) -> str:
    """`other`: a good token of another login, parts of which stand in for this one's."""
    from tests.tokens import _b64

    for how, where, what in changes:
        at = int(where * len(token))
        parts = token.split(".")
        match how:
            case "put":
                token = token[:at] + what + token[at + 1 :]
            case "insert":
                token = token[:at] + what + token[at:]
            case "drop":
                token = token[:at] + token[at + 1 :]
            case "cut":
                token = token[:at]
            case "head":
                token = ".".join([_b64(json.dumps({"alg": what, "kid": "r"}).encode()), *parts[1:]])
            case "claim":
                body = _b64(json.dumps({what: "x", "exp": 1 << 33}).encode())
                token = ".".join([parts[0], body, *parts[2:]])
            case "part" if len(parts) == 3:
                parts[int(where)] = other.split(".")[int(where)]
                token = ".".join(parts)
    return token


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kid=st.sampled_from("re"), changes=st.lists(_change, min_size=1, max_size=3))
def test_no_id_token_that_was_changed_on_the_way_is_believed(
    kept: tuple[OpenID, Door], kid: str, changes: list[tuple[str, float, str]]
) -> None:
    openid, door = kept
    openid.kid = kid
    other = openid.keys.token(kid, iss=openid.issuer, aud=CLIENT, sub="another", nonce="n" * 43)

    def mangle(token: str) -> str:
        changed = mutated(token, other, changes)
        return changed if changed != token else ""

    openid.mangle = mangle
    assert door.refusal().status == 401


def test_a_state_that_is_not_this_browsers_ends_nothing_and_asks_nobody(door: Door, openid: OpenID) -> None:
    address, pending = door.begin()
    query = agree(address)
    asked = len(openid.asked)
    for state in ("", "x", query["state"][:-1], query["state"] + "x", "é\udcff", door.begin()[1].state):
        assert door.refusal(lambda s=state: door.finish(pending, query | {"state": s})).code == "state"
    assert door.refusal(lambda: door.finish(pending, {})).code == "state"
    assert door.refusal(lambda: door.finish(pending, {"error": "access_denied"})).code == "state"
    assert len(openid.asked) == asked
    assert door.finish(pending, query).subject


def test_rfc_9207_an_answer_of_another_provider_is_refused(door: Door, openid: OpenID) -> None:
    address, pending = door.begin()
    query = agree(address)
    for wrong in (query | {"iss": "https://evil.test"}, {k: v for k, v in query.items() if k != "iss"}):
        assert door.refusal(lambda q=wrong: door.finish(pending, q)).code == "issuer"
    assert openid.forms == []


def test_rfc_9207_a_provider_that_does_not_name_itself_need_not_but_must_not_lie(openid: OpenID) -> None:
    openid.about = {"authorization_response_iss_parameter_supported": None}
    with Door(openid) as door:
        address, pending = door.begin()
        query = agree(address)
        assert door.refusal(lambda: door.finish(pending, query | {"iss": "https://evil.test"})).code == "issuer"
        assert door.finish(pending, {"state": query["state"], "code": query["code"]}).subject


@pytest.mark.parametrize(
    ("error", "code"), [("access_denied", "access_denied"), ("<canary>", "refused"), ("", "refused")]
)
def test_a_login_that_the_provider_ends_is_ended_without_repeating_its_words(
    door: Door, openid: OpenID, error: str, code: str
) -> None:
    _, pending = door.begin()
    query = {"state": pending.state, "iss": openid.issuer, "error": error, "error_description": "canary", "code": "c"}
    refusal = door.refusal(lambda: door.finish(pending, query))
    assert refusal.code == code and "canary" not in str(refusal) and openid.forms == []


@pytest.mark.parametrize("code", [None, "", "x" * 5000, "a\nb"])
def test_an_answer_without_a_code_is_none(door: Door, openid: OpenID, code: str | None) -> None:
    _, pending = door.begin()
    query = {"state": pending.state, "iss": openid.issuer, **({} if code is None else {"code": code})}
    assert door.refusal(lambda: door.finish(pending, query)).code == "code"
    assert openid.forms == []


def test_a_code_serves_once(door: Door) -> None:
    address, pending = door.begin()
    query = agree(address)
    assert door.finish(pending, query).subject
    assert door.refusal(lambda: door.finish(pending, query)).code == "invalid_grant"


def test_a_code_is_worth_nothing_in_another_browsers_login(door: Door) -> None:
    stolen = agree(door.begin()[0])
    _, pending = door.begin()
    assert door.refusal(lambda: door.finish(pending, stolen | {"state": pending.state})).code == "invalid_grant"


def test_a_code_needs_the_verifier_of_its_login(door: Door) -> None:
    address, pending = door.begin()
    query = agree(address)
    assert door.refusal(lambda: door.finish(pending._replace(verifier="v" * 43), query)).code == "invalid_grant"


def test_a_wrong_secret_is_named_as_a_setting(openid: OpenID) -> None:
    with Door(openid, oidc_client_secret="wrong") as door:
        refusal = door.refusal()
    assert refusal.code == "invalid_client" and "SLUICE_OIDC_CLIENT_SECRET" in str(refusal)


# ---- a provider in trouble


def test_a_start_does_not_wait_for_a_provider_that_is_away_and_a_login_works_once_it_is_back(
    turned: Callable[[float], None],
) -> None:
    with provider(up=False) as openid:
        began = time.perf_counter()
        with Door(openid) as door:
            assert time.perf_counter() - began < 0.5
            refusal = door.refusal()
            assert (refusal.code, refusal.status) == ("unreachable", 502)
            openid.thread.__enter__()
            turned(2)
            assert door.log_in().subject


def test_what_the_provider_said_is_used_while_it_is_away_for_a_day(
    door: Door, openid: OpenID, turned: Callable[[float], None]
) -> None:
    door.log_in()
    openid.thread.__exit__()
    turned(3600)
    assert door.begin()[0].startswith(openid.issuer)
    turned(86_400)
    assert door.refusal(door.begin).code == "unreachable"


def test_a_provider_is_not_asked_what_it_said_a_moment_ago(
    door: Door, openid: OpenID, turned: Callable[[float], None]
) -> None:
    for _ in range(3):
        door.log_in()
    assert (openid.asked.count(DISCOVERY), openid.asked.count("/jwks")) == (1, 1)
    turned(301)
    door.log_in()
    assert (openid.asked.count(DISCOVERY), openid.asked.count("/jwks")) == (2, 2)


def test_many_who_log_in_at_once_ask_once(openid: OpenID) -> None:
    with Door(openid) as door:
        assert len({address for address, _ in door.together(50)}) == 50  # type: ignore[misc]
    assert openid.asked.count(DISCOVERY) == 1


def test_many_who_log_in_at_a_provider_that_is_silent_wait_together_and_not_one_after_another(openid: OpenID) -> None:
    openid.instead[DISCOVERY] = silent
    began = time.perf_counter()
    with Door(openid) as door:
        assert {e.code for e in door.together(50) if isinstance(e, LoginError)} == {"late"}
    assert time.perf_counter() - began < 9 and openid.asked.count(DISCOVERY) <= 2


def test_a_start_that_is_stopped_while_the_provider_is_silent_leaves_nothing_running(openid: OpenID) -> None:
    openid.instead[DISCOVERY] = silent
    began = time.perf_counter()
    with Door(openid):
        pass
    assert time.perf_counter() - began < 1


def test_a_provider_that_is_slow_is_not_waited_for_though_it_never_falls_silent(door: Door, openid: OpenID) -> None:
    openid.instead["/token"] = dripping
    began = time.perf_counter()
    refusal = door.refusal()
    assert (refusal.code, refusal.status) == ("late", 504) and time.perf_counter() - began < 8


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
@pytest.mark.parametrize(
    "body", [b"", b"canary", b"[]", b"{}", b"\xff\xfe", b'{"keys": 1, "a": 1, "a": 2}', b'{"keys": []}', b"[" * 100_000]
)
def test_garbage_is_an_error_and_is_not_repeated(openid: OpenID, path: str, body: bytes) -> None:
    openid.instead[path] = saying(body)
    with Door(openid) as door:
        refusal = door.refusal()
    assert refusal.code in ("garbage", "metadata") and refusal.status == 502 and "canary" not in str(refusal)


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
def test_a_body_without_an_end_is_not_read(openid: OpenID, path: str) -> None:
    openid.instead[path] = endless
    with Door(openid) as door:
        assert door.refusal().code == "garbage"


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(openid: OpenID, path: str, status: int) -> None:
    openid.instead[path] = saying(b"", status, location=openid.issuer + "/elsewhere")
    with Door(openid) as door:
        assert door.refusal().status == 502
    assert "/elsewhere" not in openid.asked


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks", "/token"])
def test_a_provider_that_fails_is_to_blame(openid: OpenID, path: str) -> None:
    openid.instead[path] = saying(b'{"error": "invalid_grant"}', 503)
    with Door(openid) as door:
        assert door.refusal().code == "failing"


@pytest.mark.parametrize(
    "said",
    [{"token_type": "mac"}, {"id_token": None}, {"id_token": 7}, {"token_type": None}, {"error": ["invalid_grant"]}],
)
def test_an_exchange_that_brings_no_id_token_logs_nobody_in(door: Door, openid: OpenID, said: dict[str, Any]) -> None:
    good = {"access_token": "a", "token_type": "Bearer", "id_token": "a.b.c"}
    openid.instead["/token"] = saying(json.dumps(good | said).encode())
    assert door.refusal().code in ("garbage", "exchange")


@pytest.mark.parametrize(
    "about",
    [
        {"issuer": "https://evil.test"}, {"issuer": None}, {"token_endpoint": None}, {"jwks_uri": None}, {"jwks_uri": ["x"]},
        {"authorization_endpoint": "javascript:alert(1)"}, {"authorization_endpoint": "//evil.test"},
        {"authorization_endpoint": "https://a@evil.test/"}, {"authorization_endpoint": "https://id.test/\nset-cookie:x"},
        {"authorization_endpoint": "https://id.test/#x"}, {"token_endpoint": "http://id.example.test/token"},
        {"token_endpoint": "file:///etc/passwd"}, {"token_endpoint": "https://[::1/x"}, {"jwks_uri": "https://" + "x" * 3000},
    ],
)  # fmt: skip
def test_a_provider_that_names_places_nobody_should_be_sent_to_is_refused(
    openid: OpenID, about: dict[str, Any]
) -> None:
    openid.about = about
    with Door(openid) as door:
        refusal = door.refusal(door.begin)
    assert refusal.code == "metadata" and "SLUICE_OIDC_ISSUER" in str(refusal)


def test_a_provider_cannot_have_a_client_call_the_machines_metadata_service(openid: OpenID) -> None:
    openid.about = {"token_endpoint": "https://169.254.169.254/token"}
    with Door(openid) as door:
        assert door.refusal().code == "unreachable"


# ---- keys that change


def test_a_key_that_was_changed_is_found_at_the_first_login_that_needs_it(
    door: Door, openid: OpenID, turned: Callable[[float], None]
) -> None:
    openid.listed = ["r"]
    turned(301)
    door.log_in()
    openid.listed, openid.kid = ["e"], "e"
    turned(11)
    assert door.log_in().subject
    openid.kid = "r"
    turned(11)
    assert door.refusal().code == "unknown_key", "the old one is no longer listed"


def test_unknown_keys_are_looked_for_once_in_ten_seconds(
    door: Door, openid: OpenID, turned: Callable[[float], None]
) -> None:
    door.log_in()
    openid.header = {"kid": "nobody's"}
    turned(11)
    for _ in range(5):
        assert door.refusal().code == "unknown_key"
    assert openid.asked.count("/jwks") == 2


def test_a_key_set_that_cannot_be_had_anew_leaves_the_old_one(
    door: Door, openid: OpenID, turned: Callable[[float], None]
) -> None:
    door.log_in()
    openid.instead["/jwks"] = saying(b"garbage")
    turned(301)
    assert door.log_in().subject


# ---- nothing is written down


def test_no_code_token_or_subject_is_in_a_log_a_metric_or_a_message(
    openid: OpenID,
    logged: io.StringIO,  # noqa: F811
    turned: Callable[[float], None],
) -> None:
    said = []
    with Door(openid) as door:
        kept = [*door.begin()[1]]
        assert SUBJECT in door.log_in().subject
        for attack in ("another login's nonce", "another client's", "five parts", "another key of the same name"):
            openid.mangle = lambda token, attack=attack: _attacks()[attack][0](openid, token)  # type: ignore[misc]
            said.append(str(door.refusal()))
        openid.mangle = lambda token: token
        address, pending = door.begin()
        query = agree(address)
        kept += [*pending]
        door.finish(pending, query)
        said.append(str(door.refusal(lambda: door.finish(pending, query))))
        for path in ("/token", "/jwks", DISCOVERY):
            turned(400)
            openid.instead[path] = saying(SUBJECT.encode())
            try:
                door.log_in()
            except LoginError as e:
                said.append(str(e))
    written = logged.getvalue() + metrics.render().decode() + "".join(said)
    assert '"the OpenID provider was not read, an older copy stays"' in written
    assert len(openid.seen) > 10
    for secret in (SUBJECT, "Canary Name", SECRET, *kept, *filter(None, openid.seen)):
        assert secret not in written
        assert secret[-40:] not in written


def test_a_provider_is_made_of_whole_settings_alone(openid: OpenID) -> None:
    for name in ("oidc_issuer", "oidc_client_id", "oidc_roles", "console_url"):
        with pytest.raises(SettingsError, match="SLUICE_OIDC_ISSUER"):
            Door(openid, **{name: None})


def test_every_word_that_says_why_nobody_was_logged_in_is_explained() -> None:
    page = (ROOT / "docs/console.md").read_text("utf-8")
    assert [code for code in oidc._SAID if f"`{code}`" not in page] == []
    assert all(any("一" <= c <= "鿿" for c in said) and "(" in said for said in oidc._SAID.values())
