"""Article 9 from outside: a request is let in by an assertion that somebody's real name was checked, by nothing that only looks like one;
and of the person nothing is written down."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import clock
from tests.conftest import Model, Running, wait_for, whole_gateway
from tests.tokens import AUDIENCE, ISSUER, Provider, forged

PROVIDER = Provider()
REQUIRED = "identity: {missing: refuse, invalid: refuse}\n"


def apps_of(jwks: Path, **more: Any) -> str:
    rule = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(jwks), **more}
    return json.dumps({"apps": [{"id": "web", "identity": rule}]})


@pytest.fixture
def strict(make_gateway: Callable[..., Running], tmp_path: Path) -> Running:
    jwks = PROVIDER.write(tmp_path / "jwks.json")
    return make_gateway(policy=REQUIRED, apps=apps_of(jwks))


def ask(running: Running, token: str | None, **headers: str) -> httpx.Response:
    head = {**headers, **({"x-sluice-identity": token} if token is not None else {})}
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
    return running.http.post("/v1/chat/completions", json=body, headers=head)


def counted(running: Running, outcome: str) -> float:
    from app import metrics

    return float(metrics.IDENTITY.labels(outcome)._value.get())


@pytest.mark.parametrize("kid", ["r", "e", "o"])
def test_article_9_a_checked_name_is_let_in_by_any_sound_algorithm(strict: Running, kid: str) -> None:
    assert ask(strict, PROVIDER.token(kid)).status_code == 200
    assert ask(strict, "Bearer " + PROVIDER.token(kid)).status_code == 200


def test_article_9_only_issuer_class_and_time_are_recorded(strict: Running) -> None:
    token = PROVIDER.token(sub="canary-user", name="canary-name", id_number="110101199003077758")
    assert ask(strict, token).status_code == 200
    wait_for(lambda: bool(strict.journal()))  # it is written once the client has its answer
    (record,) = strict.journal()
    assert record["identity"] == {"issuer": ISSUER, "class": "verified"} and record["at"]
    everything = b"".join(p.read_bytes() for p in strict.gateway.settings.data_dir.rglob("*") if p.is_file())
    for secret in (b"canary", b"110101199003077758", token.encode(), b"user-7"):
        assert secret not in everything


def test_article_9_the_model_gets_neither_token_nor_claims(strict: Running, model: Model) -> None:
    ask(strict, PROVIDER.token())
    sent = json.dumps([model.script.asked, model.script.headers])
    assert "x-sluice-identity" not in sent and "user-7" not in sent and "real_name" not in sent


def _attacks() -> dict[str, Callable[[], tuple[str, str]]]:
    p, now = PROVIDER, lambda: int(clock.now())
    hs = {"alg": "HS256", "typ": "JWT", "kid": "r"}
    return {
        "no algorithm": lambda: (forged({"alg": "none", "kid": "r"}, p.claims()), "algorithm"),
        "no algorithm, in other letters": lambda: (forged({"alg": "NoNe", "kid": "r"}, p.claims()), "algorithm"),
        "an empty algorithm": lambda: (forged({"alg": "", "kid": "r"}, p.claims()), "algorithm"),
        "the public key as a shared one": lambda: (forged(hs, p.claims(), p.public_pem("r")), "algorithm"),
        "the public key's numbers as a shared one": lambda: (
            forged(hs, p.claims(), json.dumps(p.key_set("r")["keys"][0]).encode()), "algorithm"
        ),
        "another key's algorithm": lambda: (p.token("r", header={"kid": "e"}), "algorithm"),
        "a key of its own in the header": lambda: (
            Provider().token("r", header={"jwk": Provider().key_set("r")["keys"][0]}), "signature"
        ),
        "a key set of its own": lambda: (Provider().token("r", header={"jku": "https://evil.test/jwks"}), "signature"),
        "a key nobody knows": lambda: (Provider().token("r", header={"kid": "../../dev/null"}), "unknown_key"),
        "a key id that is no text": lambda: (forged({"alg": "RS256", "kid": {"$ne": ""}}, p.claims()), "malformed"),
        "an extension nobody understands": lambda: (p.token(header={"crit": ["exp"]}), "malformed"),
        "unencoded content": lambda: (p.token(header={"b64": False, "crit": ["b64"]}), "malformed"),
        "another issuer": lambda: (p.token(iss="https://evil.test"), "issuer"),
        "an issuer that begins like ours": lambda: (p.token(iss=ISSUER + ".evil.test"), "issuer"),
        "no issuer": lambda: (p.token(iss=None), "issuer"),
        "another audience": lambda: (p.token(aud="another-app"), "audience"),
        "no audience": lambda: (p.token(aud=None), "audience"),
        "expired": lambda: (p.token(iat=now() - 700, exp=now() - 100), "expired"),
        "of the future": lambda: (p.token(iat=now() + 300, exp=now() + 900), "future"),
        "not yet": lambda: (p.token(nbf=now() + 300), "future"),
        "without an end": lambda: (p.token(exp=None), "claims"),
        "without a beginning": lambda: (p.token(iat=None), "claims"),
        "older than its kind may get": lambda: (p.token(iat=now() - 7200, exp=now() + 86_400), "expired"),
        "times that are no numbers": lambda: (forged_signed(p, exp="9999999999"), "claims"),
        "a time that is endless": lambda: (forged_signed(p, exp=1e300), "claims"),
        "nobody": lambda: (p.token(sub=None), "claims"),
        "somebody with a long name": lambda: (p.token(sub="x" * 300), "claims"),
        "oversized": lambda: (p.token(pad="x" * 9000), "oversized"),
        "cut": lambda: (p.token()[:-21], "malformed"),  # of a length that no base64 has
        "without its signature": lambda: (p.token().rpartition(".")[0] + ".", "signature"),
        "changed": lambda: (p.token().replace(".", ".A", 1), "malformed"),
        "no token at all": lambda: ("canary", "malformed"),
        "only dots": lambda: ("..", "malformed"),
        "five parts": lambda: (p.token() + ".a.b", "malformed"),
    }  # fmt: skip


def forged_signed(provider: Provider, **changed: Any) -> str:
    """Signed as it should be, with claims that the library would not let us write."""
    import jwt

    raw = json.dumps(provider.claims() | changed).encode()
    return jwt.api_jws.encode(raw, provider.keys["r"], "RS256", {"kid": "r"})


@pytest.mark.parametrize("attack", _attacks())
def test_article_9_a_token_that_only_looks_like_one_is_refused(
    strict: Running, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, reason = _attacks()[attack]()
    before = counted(strict, reason)
    answer = ask(strict, token)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (401, "identity_invalid")
    assert f"({reason})" in error["message"] and "身份凭证无效" in error["message"]
    assert counted(strict, reason) == before + 1
    assert token[:12] not in answer.text + caplog.text or len(token) < 12


def test_article_9_a_duplicate_claim_is_no_claim(strict: Running) -> None:
    import jwt

    raw = json.dumps(PROVIDER.claims())[:-1] + ', "real_name_verified": true}'
    assert ask(strict, jwt.api_jws.encode(raw.encode(), PROVIDER.keys["r"], "RS256", {"kid": "r"})).status_code == 401


def test_article_9_a_token_is_not_believed_beyond_its_time_however_often_it_was(strict: Running) -> None:
    began = time.time()
    moved = [began]
    clock.use(lambda: moved[0])
    token = PROVIDER.token(exp=int(began) + 120)
    for after, status in ((0, 200), (100, 200), (149, 200), (151, 401), (10_000, 401), (50, 200)):
        moved[0] = began + after
        assert ask(strict, token).status_code == status, after


def test_article_9_a_name_that_was_not_checked_is_asked_for(strict: Running) -> None:
    for token in (None, PROVIDER.token(real_name_verified=False), PROVIDER.token(real_name_verified="true")):
        answer = ask(strict, token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "identity_required")
        assert "实名" in answer.json()["error"]["message"]


def test_article_9_who_is_not_vouched_for_is_restricted_where_policy_says_so(
    make_gateway: Callable[..., Running], tmp_path: Path
) -> None:
    policy = "identity: {missing: restrict, invalid: restrict}\nrestricted: {pace: 2, categories: {privacy_violation: {prompt: block}}}\n"
    running = make_gateway(policy=policy, apps=apps_of(PROVIDER.write(tmp_path / "k.json")))
    assert [ask(running, None).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(running, None).headers["retry-after"]
    assert [ask(running, PROVIDER.token()).status_code for _ in range(4)] == [200] * 4
    versions = {r["policy"] for r in running.journal()}
    assert any(v.endswith("+restricted") for v in versions) and any("+" not in v for v in versions)


def test_article_9_a_header_is_believed_from_the_named_proxy_alone(make_gateway: Callable[..., Running]) -> None:
    def apps(network: str) -> str:
        return json.dumps(
            {"apps": [{"id": "web", "proxies": [network], "identity": {"verified": "x-real-name", "minor": "x-minor"}}]}
        )

    near, far = (
        make_gateway(policy=REQUIRED, apps=apps("127.0.0.0/8")),
        make_gateway(policy=REQUIRED, apps=apps("10.1.2.3")),
    )
    assert ask(near, None, **{"x-real-name": "true"}).status_code == 200
    assert ask(near, None, **{"x-real-name": "no"}).json()["error"]["code"] == "identity_required"
    refused = ask(far, None, **{"x-real-name": "true"})
    assert refused.json()["error"]["code"] == "identity_invalid" and "untrusted_peer" in refused.text


def test_article_9_a_shared_key_serves_where_there_is_no_key_set(
    make_gateway: Callable[..., Running], tmp_path: Path
) -> None:
    import jwt

    secret = tmp_path / "shared"
    secret.write_text("s" * 40)
    rule = {"issuer": ISSUER, "audience": AUDIENCE, "shared_key": str(secret)}
    running = make_gateway(policy=REQUIRED, apps=json.dumps({"apps": [{"id": "web", "identity": rule}]}))
    assert ask(running, jwt.encode(PROVIDER.claims(), "s" * 40, "HS256")).status_code == 200
    for token in (
        jwt.encode(PROVIDER.claims(), "t" * 40, "HS256"),
        PROVIDER.token(),
        jwt.encode(PROVIDER.claims(), "s" * 64, "HS512"),
    ):
        assert ask(running, token).status_code == 401


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({}, "identity"),
        (
            {"issuer": ISSUER, "audience": AUDIENCE, "jwks": "/nowhere.json"},
            "identity.jwks: /nowhere.json cannot be read",
        ),
        ({"jwks": "x.json"}, "issuer and audience"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "http://id.test/k"}, "https"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "k", "shared_key": "s"}, "not both"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "k", "algorithms": ["HS256"]}, "does not go with jwks"),
        (
            {"issuer": ISSUER, "audience": AUDIENCE, "shared_key": "k", "algorithms": ["RS256"]},
            "does not go with shared_key",
        ),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "k", "algorithms": ["none"]}, "unknown algorithm"),
        ({"verified": "x-v"}, "proxies"),
        ({"verified": "x v"}, "verified"),
    ],
)
def test_article_9_a_wrong_rule_is_refused_at_the_start_by_field(
    make_gateway: Callable[..., Running], rule: dict[str, Any], named: str
) -> None:
    from app.errors import SettingsError

    with pytest.raises(SettingsError) as refused:
        make_gateway(apps=json.dumps({"apps": [{"id": "web", "identity": rule}]}))
    assert named in str(refused.value)


# ---- a key set behind an address


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """A server with a certificate of its own: (address, what it says, the certificate)."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    said: dict[str, Any] = {"set": PROVIDER.key_set("r"), "asked": 0, "status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["asked"] += 1
            raw = json.dumps(said["set"]).encode()
            self.send_response(said["status"])
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}/jwks", said, cert
    server.shutdown()


def test_article_9_a_key_set_is_fetched_in_the_background_and_a_new_key_is_found(
    https: tuple[str, dict[str, Any], Path], model: Model, tmp_path: Path
) -> None:
    address, said, cert = https
    apps, policy = tmp_path / "apps.yaml", tmp_path / "policy.yaml"
    rule = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": address}
    apps.write_text(json.dumps({"apps": [{"id": "web", "identity": rule}]}))
    policy.write_text(REQUIRED)
    os.environ["SSL_CERT_FILE"] = str(cert)
    try:
        with whole_gateway(tmp_path / "g", model.url, APPS=str(apps), POLICY=str(policy)) as whole:

            def status(kid: str) -> int:
                head = {"x-sluice-identity": PROVIDER.token(kid)}
                body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
                return whole.http.post("/v1/chat/completions", json=body, headers=head).status_code

            wait_for(lambda: status("r") == 200, 5)
            asked = said["asked"]
            assert [status("r") for _ in range(20)] == [200] * 20 and said["asked"] == asked, "no request asks"
            said["set"] = PROVIDER.key_set("r", "e")
            assert status("e") == 401
            wait_for(lambda: status("e") == 200, 25)
            said["status"] = 500
            assert (status("r"), status("e")) == (200, 200), "the last good set stays"
    finally:
        del os.environ["SSL_CERT_FILE"]
