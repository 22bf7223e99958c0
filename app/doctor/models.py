"""The models that Sluice asks: is there one, is it not Sluice itself, does it take the key, is the address the whole of it."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from importlib.util import find_spec

from app import apps
from app.doctor.places import get, itself, place, reach
from app.doctor.symptoms import Symptom, fact, fault
from app.errors import ModelError
from app.guards import named
from app.outbound import forbidden
from app.settings import Settings

_REFUSED = (401, 403)


def upstream(conf: Settings) -> Iterator[Symptom]:
    """The model."""
    yield from _model(conf, "SLUICE_UPSTREAM_URL", conf.upstream_url, "SLUICE_UPSTREAM_KEY", conf.upstream_key)


def surrogate(conf: Settings) -> Iterator[Symptom]:
    """The one that stands in."""
    if conf.surrogate_upstream is None:
        yield fact("none; SLUICE_SURROGATE_UPSTREAM names one")
    else:
        url, key = conf.surrogate_upstream, conf.surrogate_key
        yield from _model(conf, "SLUICE_SURROGATE_UPSTREAM", url, "SLUICE_SURROGATE_KEY", key)


def guard(conf: Settings) -> Iterator[Symptom]:
    """The guard model."""
    if conf.guard is None:
        yield fact("none; SLUICE_GUARD names one")
        return
    at = place(conf.guard_url, "SLUICE_GUARD_URL") if conf.guard_url is not None else None
    described = named.described(conf, b"")
    if conf.guard_path is not None:
        if not (conf.guard_path / "config.json").is_file():
            raise ModelError(f"SLUICE_GUARD_PATH: {conf.guard_path}: no model here: it has no config.json")
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise ModelError("SLUICE_GUARD_PATH needs transformers: pip install 'sluice-gateway[models]'")
    if at is not None:
        reach(at, "SLUICE_GUARD_URL")
    yield fact(f"{conf.guard}, version {described.version}, tells {len(described.covers)} categories")


def _model(conf: Settings, name: str, url: str, key_name: str, key: str | None) -> Iterator[Symptom]:
    at = place(url, name)
    try:
        addresses, own = at.addresses, itself(conf, at)
    except (OSError, UnicodeError):
        yield fault(f"{name}: the name of the host stands for no address; correct it, or mend the name service")
        return
    if any(map(forbidden, addresses)):
        yield fault(
            f"{name} leads to an address of a kind that Sluice never asks (link-local, multicast): name another"
        )
        return
    if own is not None:
        yield fault(
            f"{name} leads to Sluice itself ({own}): name the address of the model; every request would go in a ring"
        )
        return
    if key is not None and not (key.isascii() and key.isprintable()):
        yield fault(
            f"{key_name} holds a character that no header carries (a line break, a letter beyond ASCII): correct it"
        )
        return
    reach(at, name)
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    base = url.rstrip("/")
    try:
        status, _ = get(f"{base}/models", headers)
        if status in _REFUSED:
            yield _refused(conf, status, name, key_name, key)
        elif status == 404:
            yield _elsewhere(base, headers, name)
        elif status == 200:
            yield fact("the model answers" + (f" and takes {key_name}" if key is not None else ""))
        else:
            yield fact(f"the model accepts connections; cannot tell more (HTTP {status} at /v1/models)")
    except ssl.SSLError as e:
        reason = getattr(e, "verify_message", "") or "no TLS is spoken there"
        yield fault(f"{name}: no trusted TLS ({reason}): correct its certificate or SSL_CERT_FILE, or write http://")
    except TimeoutError:
        yield fact("the model accepts connections; cannot tell more (no answer at /v1/models within 3 s)")
    except (ValueError, http.client.InvalidURL):
        yield fault(f"{name}: its path holds a character that no URL has: write it percent-encoded")
    except (OSError, http.client.HTTPException):
        yield fault(f"{name}: what listens at {at} speaks no HTTP: is it https:// or http://, and the right port?")


def _refused(conf: Settings, status: int, name: str, key_name: str, key: str | None) -> Symptom:
    if key is not None:
        return fault(
            f"{key_name}: the model refuses it (HTTP {status}): correct the key, or {name} where it is another's"
        )
    if name == "SLUICE_UPSTREAM_URL" and not apps.load(conf.apps).keyed:
        return fact("the model answers and wants a key: the clients' own credentials pass through to it")
    return fault(
        f"{key_name} is unset and the model wants a key (HTTP {status}), for none of a client's is sent there: set it"
    )


def _elsewhere(base: str, headers: dict[str, str], name: str) -> Symptom:
    """Where the model is, when it is not where the URL says: under one /v1 more, or one less."""
    root = base.removesuffix("/v1")
    for other, said in (
        (root, "/v1 stands there twice" if root.endswith("/v1") else "the model answers without /v1"),
        (f"{base}/v1", "one /v1 is missing"),
        (f"{root}/api/v1", "/api is missing before /v1"),
    ):
        status, body = get(f"{other}/models", headers)
        if status in _REFUSED or (status == 200 and body.lstrip()[:1] == b"{"):
            if other.endswith("/v1"):
                return fault(f"{name}: {said} (HTTP 404 at /v1/models): it must end as the model's own address does")
            return fault(f"{name}: {said}, and Sluice asks under /v1 alone: put a proxy before it that adds /v1")
    return fact(
        "the model accepts connections; cannot tell more (it has no /v1/models; if chats get 404, look at the path)"
    )
