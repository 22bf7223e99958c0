"""`sluice doctor`: effective values with secrets masked, and what is wrong named with the setting and the way out. A fault fails the
command, a warning does not, and a sound set-up shows neither."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import httpx
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from app.demo.story import free_port
from app.doctor.keyring import weak
from app.settings import packaged
from app.web import asgi
from tests.conftest import SECRET, Model, RedisServer, Whole, served, whole_gateway
from tests.doctoring import doctor, fault, marked, nothing, warning

RANDOM = secrets.token_urlsafe(48)
SHIPPED = {"LEXICONS": str(packaged("lexicons")), "MODELS": str(packaged("models"))}
ADMIN = secrets.token_urlsafe(48)
PASSAGE = "把甲仓库的蓝色木箱依次搬到乙码头的第三个泊位，再用红色的绳子把每一个木箱捆成双层。"


@pytest.fixture
def sound(model: Model) -> dict[str, str]:
    """Settings without a fault, before a model that answers."""
    return {"UPSTREAM_URL": model.url, "SECRET_KEY": RANDOM, "ADMIN_TOKEN": ADMIN}


@pytest.fixture
def stored(sound: dict[str, str], redis_server: RedisServer) -> dict[str, str]:
    """The same on a Redis."""
    return sound | {"REDIS_URL": redis_server.url}


@contextmanager
def answering(status: Callable[[str, dict[str, str]], int]) -> Iterator[str]:
    """A server that answers each path with the status that is said; its address."""

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        await asgi.respond_json(send, status(scope["path"], asgi.headers(scope)), {"data": []})

    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


def add(whole: Whole, **entry: str) -> None:
    """A live entry, and the parent's snapshot of it."""
    value = {"category": "violence", "action": "block", "reason": "test", **entry}
    headers = {"Authorization": f"Bearer {ADMIN}", "Idempotency-Key": secrets.token_hex(8)}
    done = httpx.post(f"{whole.admin}/sluice/v1/admin/entries", json=value, headers=headers, timeout=10)
    assert done.status_code == 201, done.text
    assert (whole.folder / "data" / "entries.snapshot.json").exists()


# ---- what is sound


def test_a_sound_machine_is_said_to_be_sound(sound: dict[str, str], tmp_path: Path) -> None:
    status, said = doctor(tmp_path, **sound | SHIPPED)
    nothing((status, said))
    assert "0 terms" not in said
    assert "SLUICE_WORKERS=1" in said
    assert "SLUICE_ADMIN_TOKEN=********" in said


def test_a_gateway_that_serves_on_a_redis_is_sound_while_it_does_and_afterwards(
    model: Model, stored: dict[str, str], tmp_path: Path
) -> None:
    with whole_gateway(tmp_path, model.url, **stored) as whole:
        add(whole, passage=PASSAGE)
        ports = {
            name: address.rpartition(":")[2]
            for name, address in (("PORT", whole.url), ("OPS_PORT", whole.ops), ("ADMIN_PORT", whole.admin))
        }
        status, said = doctor(tmp_path, **stored, **ports)
        nothing((status, said))
        assert "Sluice is running on them" in said
    nothing(doctor(tmp_path, **stored))


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "violence").mkdir()
    (tmp_path / "violence" / "terms.tsv").write_text("term\tcolour\n", "utf-8")
    status, said = doctor(
        tmp_path,
        UPSTREAM_URL=f"http://127.0.0.1:{free_port()}/v1",
        UPSTREAM_KEY="operator-key",
        HOST="0.0.0.0",
        LEXICONS=str(tmp_path),
        REDIS_URL=f"redis://:hidden@127.0.0.1:{free_port()}/0",
    )
    assert status == 1
    assert len(marked(said, "✗")) == 4
    for word in ("open proxy", "SLUICE_SECRET_KEY", "'colour'", "SLUICE_UPSTREAM_URL", "SLUICE_REDIS_URL"):
        assert word in said, word
    assert "hidden" not in said


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    status, said = doctor(tmp_path, WORKER="3")
    assert status == 2
    assert "SLUICE_WORKER:" in said


@pytest.mark.parametrize("name", ["UPSTREAM_URL", "SURROGATE_UPSTREAM", "GUARD_URL", "REDIS_URL"])
@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:99999/v1", "http://127.0.0.1:port/v1", "http:///v1"])
def test_an_address_that_is_none_is_a_fault_and_no_crash(name: str, address: str, tmp_path: Path) -> None:
    status, said = doctor(
        tmp_path,
        SECRET_KEY=RANDOM,
        **{name: address} | ({"GUARD": "llama-guard-3"} | SHIPPED if "GUARD" in name else {}),
    )
    assert status == 1
    assert any(f"SLUICE_{name}" in line for line in marked(said, "✗")), said


# ---- the model


@pytest.mark.parametrize("name", ["PORT", "OPS_PORT", "ADMIN_PORT"])
def test_a_model_that_is_sluice_itself_is_a_fault(name: str, sound: dict[str, str], tmp_path: Path) -> None:
    port = str(free_port())
    host = {"HOST": "0.0.0.0", "APPS": str(apps(tmp_path))} if name == "PORT" else {}
    url = f"http://{'localhost' if host else '127.0.0.1'}:{port}/v1"
    fault(
        doctor(tmp_path, **sound | host | {"UPSTREAM_URL": url, name: port}),
        "SLUICE_UPSTREAM_URL",
        "itself",
        f"SLUICE_{name}",
    )


def test_a_model_where_nothing_listens_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    fault(doctor(tmp_path, **sound | {"UPSTREAM_URL": url}), "SLUICE_UPSTREAM_URL", "start what listens there")


def test_the_model_that_stands_in_is_looked_at_in_the_same_way(sound: dict[str, str], tmp_path: Path) -> None:
    with answering(lambda *_: 401) as root:
        told = doctor(tmp_path, SURROGATE_UPSTREAM=f"{root}/v1", **sound)
    # No client's own credentials go there.
    fault(told, "SLUICE_SURROGATE_KEY", "unset", "401")


@pytest.mark.parametrize("status", [401, 403])
def test_a_model_that_refuses_the_key_is_a_fault(status: int, sound: dict[str, str], tmp_path: Path) -> None:
    def asked(path: str, headers: dict[str, str]) -> int:
        return 200 if headers.get("authorization") == "Bearer the-right-one" else status

    with answering(asked) as root:
        sound |= {"UPSTREAM_URL": f"{root}/v1"}
        fault(
            doctor(tmp_path, UPSTREAM_KEY="another-one-0", **sound),
            "SLUICE_UPSTREAM_KEY",
            str(status),
            "correct the key",
        )
        nothing(doctor(tmp_path, UPSTREAM_KEY="the-right-one", **sound))
        # Clients bring their own …
        nothing(doctor(tmp_path, **sound))
        # … but not where their keys are Sluice's.
        fault(doctor(tmp_path, APPS=str(apps(tmp_path)), **sound), "SLUICE_UPSTREAM_KEY", "unset", "set it")


@pytest.mark.parametrize(
    ("there", "written", "why"),
    [
        ("/v1", "/v1/v1", "twice"),
        ("/openai/v1/v1", "/openai/v1", "missing"),
        ("/api/v1", "/v1", "/api"),
        ("", "/v1", "without"),
    ],
)
def test_an_address_with_a_v1_too_much_or_too_little_is_a_fault(
    there: str, written: str, why: str, sound: dict[str, str], tmp_path: Path
) -> None:
    with answering(lambda path, _: 200 if path == f"{there}/models" else 404) as root:
        fault(doctor(tmp_path, **sound | {"UPSTREAM_URL": root + written}), "SLUICE_UPSTREAM_URL", why, "/v1")


@pytest.mark.parametrize("ending", ["\r", "\n", "\t", "密", "é"])
def test_a_key_that_no_header_carries_is_a_fault_and_not_shown(
    ending: str, sound: dict[str, str], tmp_path: Path
) -> None:
    with answering(lambda *_: 200) as root:
        told = doctor(tmp_path, **sound | {"UPSTREAM_URL": f"{root}/v1", "UPSTREAM_KEY": f"made-up-key-0123{ending}"})
    fault(told, "SLUICE_UPSTREAM_KEY", "header", "correct it")
    assert "made-up-key" not in told[1]


def test_a_url_with_a_path_that_is_none_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    with answering(lambda *_: 200) as root:
        fault(doctor(tmp_path, **sound | {"UPSTREAM_URL": f"{root}/é/v1"}), "SLUICE_UPSTREAM_URL", "percent-encoded")


@pytest.mark.parametrize("name", ["UPSTREAM_URL", "SURROGATE_UPSTREAM", "OPS_HOST", "REDIS_URL"])
def test_a_host_that_is_no_name_is_a_fault_and_no_crash(name: str, sound: dict[str, str], tmp_path: Path) -> None:
    value = {"OPS_HOST": "a..b", "REDIS_URL": "redis://a..b:6379/0"}.get(name, "http://a..b:80/v1")
    status, said = doctor(tmp_path, **sound | {name: value})
    assert status == 1 and len(marked(said, "✗")) == 1, said


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_model_without_a_list_of_models_is_no_fault(status: int, sound: dict[str, str], tmp_path: Path) -> None:
    with answering(lambda *_: status) as root:
        told = doctor(tmp_path, **sound | {"UPSTREAM_URL": f"{root}/v1"})
    nothing(told)
    assert "cannot tell" in told[1]


def test_https_where_none_is_spoken_and_http_where_none_is_are_faults(
    model: Model, sound: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    fault(
        doctor(tmp_path, **sound | {"UPSTREAM_URL": model.url.replace("http:", "https:")}),
        "SLUICE_UPSTREAM_URL",
        "TLS",
        "http://",
    )
    fault(
        doctor(tmp_path, **sound | {"UPSTREAM_URL": f"http://127.0.0.1:{redis_server.port}/v1"}),
        "SLUICE_UPSTREAM_URL",
        "no HTTP",
    )


def test_a_proxy_of_the_environment_is_not_asked(
    sound: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    nothing(doctor(tmp_path, **sound))


def test_a_guard_that_cannot_be_used_is_named_with_the_way_out(
    model: Model, sound: dict[str, str], tmp_path: Path
) -> None:
    sound |= {"GUARD": "llama-guard-3"} | SHIPPED
    status, said = doctor(tmp_path, GUARD_URL=model.url, **sound)
    assert status == 0 and "llama-guard-3, version" in said, said
    fault(doctor(tmp_path, GUARD_PATH=str(tmp_path), **sound), f"{tmp_path}: no model here")
    fault(doctor(tmp_path, GUARD_URL=f"http://127.0.0.1:{free_port()}/v1", **sound), "SLUICE_GUARD_URL")
    fault(doctor(tmp_path, GUARD_URL=model.url, **sound | {"GUARD": "unheard-of"}), "unheard-of", "model.toml")


# ---- the store


def config(server: RedisServer, **values: str) -> redis.Redis:
    client = redis.Redis(port=server.port)
    for name, value in values.items():
        client.config_set(name.replace("_", "-"), value)
    return client


def test_a_redis_that_evicts_is_a_fault(stored: dict[str, str], redis_server: RedisServer, tmp_path: Path) -> None:
    config(redis_server, maxmemory_policy="allkeys-lru")
    fault(doctor(tmp_path, **stored), "SLUICE_REDIS_URL", "maxmemory-policy is allkeys-lru", "noeviction")


@pytest.mark.parametrize("values", [{"appendfsync": "everysec"}, {"appendonly": "no"}])
def test_a_redis_that_does_not_sync_is_a_warning(
    values: dict[str, str], stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    config(redis_server, **values)
    warning(doctor(tmp_path, **stored), "SLUICE_REDIS_URL", "appendfsync always")


def test_a_redis_that_tells_nobody_its_configuration_is_no_fault(
    stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    redis.Redis(port=redis_server.port).acl_setuser("default", enabled=True, commands=["-config"])
    told = doctor(tmp_path, **stored)
    nothing(told)
    assert "cannot tell" in told[1]


def test_a_redis_that_wants_a_password_or_another_one_is_a_fault(
    stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    config(redis_server, requirepass="open-sesame")
    at = f"127.0.0.1:{redis_server.port}/0"
    fault(doctor(tmp_path, **stored), "SLUICE_REDIS_URL", "wants a password", "redis://:password@")
    told = doctor(tmp_path, **stored | {"REDIS_URL": f"redis://:mistyped@{at}"})
    fault(told, "SLUICE_REDIS_URL", "does not take this user and password")
    assert "mistyped" not in told[1]
    nothing(doctor(tmp_path, **stored | {"REDIS_URL": f"redis://:open-sesame@{at}"}))


@pytest.mark.parametrize("commands", ["+ping", "+@all"])
def test_a_redis_user_who_may_not_is_a_fault(
    commands: str, stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    redis.Redis(port=redis_server.port).acl_setuser(
        "narrow", enabled=True, passwords=["+narrow"], commands=[commands], keys=["other:*"]
    )
    url = f"redis://narrow:narrow@127.0.0.1:{redis_server.port}/0"
    fault(doctor(tmp_path, **stored | {"REDIS_URL": url}), "SLUICE_REDIS_URL", "ACL", "allow it")


def test_tls_where_none_is_spoken_or_wanted_is_a_fault(stored: dict[str, str], tmp_path: Path) -> None:
    binary = shutil.which("redis-server")
    assert binary is not None
    folder = tmp_path / "tls"
    folder.mkdir()
    certify(folder)
    port = free_port()
    server = RedisServer(
        Path(binary), folder, "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(folder / "cert.pem"),
        "--tls-key-file", str(folder / "key.pem"), "--tls-ca-cert-file", str(folder / "cert.pem"),
    )  # fmt: skip
    try:
        secure = f"rediss://127.0.0.1:{port}/0"
        fault(
            doctor(tmp_path, **stored | {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}),
            "SLUICE_REDIS_URL",
            "wants TLS",
            "rediss://",
        )
        fault(
            doctor(tmp_path, **stored | {"REDIS_URL": server.url.replace("redis:", "rediss:")}), "SLUICE_REDIS_URL", "speaks no TLS"
        )  # fmt: skip
        fault(doctor(tmp_path, **stored | {"REDIS_URL": secure}), "SLUICE_REDIS_URL", "not trusted", "ssl_ca_certs")
        nothing(doctor(tmp_path, **stored | {"REDIS_URL": f"{secure}?ssl_ca_certs={folder / 'cert.pem'}"}))
    finally:
        server.kill()


def certify(folder: Path) -> None:
    """A key and its own certificate for this machine."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)


def test_what_is_no_redis_is_a_fault(model: Model, stored: dict[str, str], tmp_path: Path) -> None:
    fault(
        doctor(tmp_path, **stored | {"REDIS_URL": f"redis://127.0.0.1:{model.port}/0"}),
        "SLUICE_REDIS_URL",
        "as Redis does",
    )


@contextmanager
def fast_by(seconds: int, server: RedisServer) -> Iterator[str]:
    """The server, seen through a relay in which its TIME is so many seconds later; its URL."""

    class Relay(StreamRequestHandler):
        def handle(self) -> None:
            up = socket.create_connection(("127.0.0.1", server.port))
            Thread(target=self.back, args=(up,), daemon=True).start()
            while data := self.connection.recv(65_536):
                up.sendall(data)
            up.close()

        def back(self, up: socket.socket) -> None:
            while data := up.recv(65_536):
                later = re.sub(rb"(\*2\r\n\$10\r\n)(\d{10})", lambda m: m[1] + b"%d" % (int(m[2]) + seconds), data)
                self.connection.sendall(later)

    with ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        relay.daemon_threads = True
        Thread(target=relay.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{relay.server_address[1]}/0"
        relay.shutdown()


@pytest.mark.parametrize("seconds", [-3600, 60])
def test_a_clock_that_is_not_redis_own_is_a_fault(
    seconds: int, stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    with fast_by(seconds, redis_server) as url:
        fault(doctor(tmp_path, **stored | {"REDIS_URL": url}), "clock", "NTP", "-" if seconds < 0 else "+")
    with fast_by(2, redis_server) as url:
        nothing(doctor(tmp_path, **stored | {"REDIS_URL": url}))


def test_another_redis_than_the_one_that_was_followed_is_a_fault(
    model: Model, stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    with whole_gateway(tmp_path, model.url, **stored) as whole:
        add(whole, term="示例违禁短语")
    nothing(doctor(tmp_path, **stored))
    fault(doctor(tmp_path, DEPLOYMENT="another", **stored), "empty", "SLUICE_DEPLOYMENT", "docs/operations.md")
    mine = redis.Redis(port=redis_server.port)
    known = mine.get("{sluice:default}:store_id")
    assert known is not None
    mine.mset({"{sluice:another}:store_id": "0123456789abcdef", "{sluice:another}:schema": "1"})
    fault(doctor(tmp_path, DEPLOYMENT="another", **stored), "foreign", "SLUICE_DATA_DIR", "SLUICE_REDIS_URL")
    mine.mset({"{sluice:another}:store_id": known})
    fault(doctor(tmp_path, DEPLOYMENT="another", **stored), "older", "restore")


def test_a_store_of_a_newer_sluice_is_said_to_be_one(
    stored: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    redis.Redis(port=redis_server.port).set("{sluice:default}:schema", "2")
    fault(doctor(tmp_path, **stored), "SLUICE_REDIS_URL", "schema 2", "knows 1")


def test_looking_writes_nothing_into_a_redis(stored: dict[str, str], redis_server: RedisServer, tmp_path: Path) -> None:
    nothing(doctor(tmp_path, **stored))
    assert redis.Redis(port=redis_server.port).dbsize() == 0


# ---- the secret key


def test_a_key_that_stored_values_stand_under_and_that_is_listed_no_more_is_a_fault(
    model: Model, stored: dict[str, str], tmp_path: Path
) -> None:
    old, new = f"k1:{RANDOM}", f"k2:{secrets.token_urlsafe(48)}"
    stored |= {"SECRET_KEY": old}
    with whole_gateway(tmp_path, model.url, **stored) as whole:
        add(whole, passage=PASSAGE)
    status, said = doctor(tmp_path, **stored | {"SECRET_KEY": new})
    assert status == 1 and any(
        "'k1'" in line and "1 entries" in line and "list it again" in line for line in marked(said, "✗")
    ), said
    assert not marked(doctor(tmp_path, **stored | {"SECRET_KEY": f"{new},{old}"})[1], "✗")


def test_a_lost_key_is_told_from_the_snapshots_where_no_redis_can_be_asked(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path, model.url, SECRET_KEY="", ADMIN_TOKEN=ADMIN) as whole:
        add(whole, passage=PASSAGE)
    sound = {"UPSTREAM_URL": model.url, "ADMIN_TOKEN": ADMIN}
    nothing(doctor(tmp_path, **sound))
    (tmp_path / "data" / "secret_key").unlink()
    fault(doctor(tmp_path, **sound), "SLUICE_SECRET_KEY", "'0'", "1 entries", "list it again")


def test_another_secret_under_the_same_name_is_a_fault(model: Model, stored: dict[str, str], tmp_path: Path) -> None:
    with whole_gateway(tmp_path, model.url, **stored) as whole:
        sent = whole.http.post("/sluice/v1/reports", json={"text": PASSAGE, "category": "other_prohibited"})
        assert sent.status_code == 202, sent.text
    nothing(doctor(tmp_path, **stored))
    fault(
        doctor(tmp_path, **stored | {"SECRET_KEY": secrets.token_urlsafe(48)}),
        "SLUICE_SECRET_KEY",
        "another one",
        "put the old one back",
    )


@pytest.mark.parametrize(
    "secret", ["a" * 40, "abcd" * 10, "changeme-changeme-changeme-changeme!", SECRET, "k1:" + "0" * 32]
)
def test_a_secret_that_can_be_guessed_is_a_warning(secret: str, sound: dict[str, str], tmp_path: Path) -> None:
    warning(doctor(tmp_path, **sound | {"SECRET_KEY": secret}), "SLUICE_SECRET_KEY", "token_urlsafe")


@given(st.integers())
def test_a_random_secret_is_never_called_weak(seed: int) -> None:
    raw = random.Random(seed).randbytes(48)
    assert weak(raw.hex()) is None and weak(raw[:16].hex()) is None
    assert weak(base64.urlsafe_b64encode(raw).decode()) is None


@given(st.text("abcdefgh", min_size=1, max_size=7), st.integers(2, 40))
def test_what_repeats_itself_is_always_called_weak(part: str, times: int) -> None:
    assert weak(part * times) is not None


def test_a_secret_that_is_too_short_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    fault(doctor(tmp_path, **sound | {"SECRET_KEY": "k1:short"}), "SLUICE_SECRET_KEY", "32 bytes")


# ---- tokens and doors


def apps(folder: Path, *keys: str, **more: str) -> Path:
    """An apps file with one app, of these keys."""
    path = folder / "apps.yaml"
    hashed = ", ".join(f"'sha256:{hashlib.sha256(key.encode()).hexdigest()}'" for key in keys or ("a-key-of-an-app",))
    path.write_text(f"apps:\n  - id: web\n    keys: [{hashed}]\n" + "".join(f"    {k}: {v}\n" for k, v in more.items()))
    path.chmod(0o600)
    return path


def test_an_admin_token_that_is_missing_or_short_is_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    warning(doctor(tmp_path, **sound | {"ADMIN_TOKEN": ""}), "SLUICE_ADMIN_TOKEN is unset", "token_urlsafe")
    warning(doctor(tmp_path, **sound | {"ADMIN_TOKEN": "Vq8vZr2k0Q"}), "SLUICE_ADMIN_TOKEN", "shorter than 32")
    named = f"anna:{ADMIN},bert:Vq8vZr2k0Qw71xyz"
    warning(doctor(tmp_path, **sound | {"ADMIN_TOKEN": named}), "SLUICE_ADMIN_TOKEN (bert)", "shorter than 32")


def test_an_admin_token_that_is_a_key_of_an_app_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    fault(doctor(tmp_path, APPS=str(apps(tmp_path, "another", ADMIN)), **sound), "SLUICE_ADMIN_TOKEN", "SLUICE_APPS")
    nothing(doctor(tmp_path, APPS=str(apps(tmp_path, "another")), **sound))


def test_one_secret_for_two_things_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    fault(
        doctor(tmp_path, **sound | {"SECRET_KEY": ADMIN}), "SLUICE_ADMIN_TOKEN", "SLUICE_SECRET_KEY", "one secret each"
    )


@pytest.mark.parametrize(("mode", "told"), [(0o644, warning), (0o664, warning), (0o666, fault)])
def test_an_apps_file_that_others_can_read_is_a_warning_and_that_they_can_write_a_fault(
    mode: int, told: Callable[..., None], sound: dict[str, str], tmp_path: Path
) -> None:
    path = apps(tmp_path)
    path.chmod(mode)
    told(doctor(tmp_path, APPS=str(path), **sound), "SLUICE_APPS", f"{mode:o}", "chmod 600")


def test_a_door_that_is_open_to_anybody_is_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    warning(doctor(tmp_path, HOST="0.0.0.0", **sound), "SLUICE_HOST", "SLUICE_APPS", "127.0.0.1")
    nothing(doctor(tmp_path, HOST="0.0.0.0", APPS=str(apps(tmp_path)), **sound))


def test_a_file_that_cannot_be_read_is_told_once(sound: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "apps.yaml"
    path.write_text("apps: [{id: web, colour: red}]")
    fault(doctor(tmp_path, APPS=str(path), **sound), "SLUICE_APPS", "colour")


# ---- the policy


def test_a_policy_that_would_refuse_every_user_is_told_before_it_does(sound: dict[str, str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("identity: {missing: refuse}")
    fault(doctor(tmp_path, POLICY=str(policy), **sound), "every request would be refused", "identity")


def test_a_section_that_the_policy_does_not_have_is_a_fault_and_one_that_nobody_uses_a_warning(
    sound: dict[str, str], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("apps: {strict: {blocked_as: error}}")
    sound |= {"POLICY": str(policy)}
    nothing(doctor(tmp_path, APPS=str(apps(tmp_path, policy="strict")), **sound))
    told = doctor(tmp_path, APPS=str(apps(tmp_path, policy="stirct")), **sound)
    fault(told, "apps.web.policy", "'stirct'", "SLUICE_POLICY", "correct the name")
    assert len(marked(told[1], "!")) == 1
    warning(doctor(tmp_path, APPS=str(apps(tmp_path)), **sound), "SLUICE_POLICY", "apps.strict", "take it out")


def test_a_policy_that_has_everything_in_shadow_is_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    sound |= {"POLICY": str(policy)}
    policy.write_text("shadow: [blocklist, lexicon, rules, patterns]")
    warning(doctor(tmp_path, **sound), "SLUICE_POLICY", "shadow", "nothing is stopped")
    policy.write_text("shadow: [lexicon]")
    nothing(doctor(tmp_path, **sound))
    policy.write_text("apps: {web: {shadow: [blocklist, lexicon, rules, patterns]}}")
    warning(doctor(tmp_path, APPS=str(apps(tmp_path)), **sound), "SLUICE_POLICY", "apps.web", "shadow")


# ---- the machine


def test_two_listeners_on_one_port_are_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    port = str(free_port())
    fault(doctor(tmp_path, **sound | {"PORT": port, "OPS_PORT": port}), "SLUICE_PORT and SLUICE_OPS_PORT", port)
    fault(
        doctor(tmp_path, **sound | {"ADMIN_PORT": port, "OPS_PORT": port, "OPS_HOST": "0.0.0.0"}), "SLUICE_OPS_PORT and SLUICE_ADMIN_PORT"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["PORT", "OPS_PORT", "ADMIN_PORT"])
def test_a_port_that_something_else_has_is_a_fault(
    name: str, sound: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    fault(doctor(tmp_path, **sound | {name: str(redis_server.port)}), f"SLUICE_{name}", "not Sluice", "another port")


def test_a_host_that_is_not_this_machines_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    fault(doctor(tmp_path, OPS_HOST="192.0.2.1", **sound), "SLUICE_OPS_PORT", "cannot listen", "SLUICE_OPS_HOST")


def test_file_descriptors_that_do_not_carry_the_streams_are_told(sound: dict[str, str], tmp_path: Path) -> None:
    warning(doctor(tmp_path, files=1024, **sound), "1024 file descriptors", "LimitNOFILE", "SLUICE_MAX_EXCHANGES")
    fault(doctor(tmp_path, files=1024, MAX_EXCHANGES="5000", **sound), "SLUICE_MAX_EXCHANGES is 5000", "LimitNOFILE")
    nothing(doctor(tmp_path, files=1024, MAX_EXCHANGES="300", **sound))


def test_more_workers_than_cores_are_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    warning(doctor(tmp_path, WORKERS=str(min(256, (os.cpu_count() or 1) + 1)), **sound), "SLUICE_WORKERS", "cores")


def test_a_data_directory_that_is_open_to_others_is_a_fault(sound: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    fault(doctor(tmp_path, **sound), "SLUICE_DATA_DIR", "chmod 700")


def test_a_data_directory_in_memory_is_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        status, said = doctor(Path(folder), **sound)
    assert status == 0 and any("in memory" in line and "SLUICE_DATA_DIR" in line for line in marked(said, "!")), said


def test_a_data_directory_without_room_is_a_warning(sound: dict[str, str], tmp_path: Path) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    mount = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=8m none "$0" && exec "$@"', str(small))
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("needs a kernel that lets users mount")
    status, said = doctor(small, *mount, **sound | SHIPPED)
    assert status == 0 and any("make room" in line and "SLUICE_DATA_DIR" in line for line in marked(said, "!")), said
