"""Secrets, tokens and doors: what they must be, and who could come in with them. Law: they are weighed and compared, never shown."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from app import apps, settings
from app import keys as keyring
from app.doctor.symptoms import Symptom, fact, fault, warning
from app.errors import RequestError, SettingsError
from app.keys import Keys
from app.settings import Settings

_MAKE = "`python -c 'import secrets; print(secrets.token_urlsafe(48))'` makes one"
_WORDS = re.compile(r"secret|passw|change-?me|example|sluice|placeholder|0123456|123456|abcdef|qwerty|token", re.I)
"""What people write where a secret should stand; in a random one hardly ever."""
_FEW = 8
"""Different characters of a secret at least; of 32 random hexadecimal digits fewer are there once in a million."""
_LEAST = 32


def safety(conf: Settings) -> Iterator[Symptom]:
    """What `sluice serve` would refuse to start with."""
    if reasons := settings.unsafe(conf, app_keys=apps.load(conf.apps).keyed):
        raise SettingsError("; ".join(reasons))
    yield fact("nothing unsafe")


def weak(secret: str) -> str | None:
    """Why a secret can be guessed, if it can."""
    if secret in (secret + secret)[1:-1]:
        return "repeats itself"
    if len(set(secret)) < _FEW:
        return f"has fewer than {_FEW} different characters"
    return "is made of words that people write in such places" if _WORDS.search(secret) else None


def held(conf: Settings) -> Keys | None:
    """The keys of this gateway, None where they are yet to be made. Raises SettingsError."""
    if conf.secret_key:
        return Keys(conf.secret_key)
    made = (conf.data_dir / "secret_key").exists()
    return Keys(keyring.generated(conf.data_dir)) if made else None


def secret(conf: Settings) -> Iterator[Symptom]:
    """SLUICE_SECRET_KEY."""
    found = held(conf)
    if found is None:
        yield fact("made in SLUICE_DATA_DIR at the first start" if conf.redis_url is None else "not set")
        return
    yield fact(f"{len(found.kids)} (newest: {found.kid})")
    for part in conf.secret_key.split(",") if conf.secret_key else ():
        kid, colon, value = part.strip().partition(":")
        if why := weak(value if colon else kid):
            of = f" (kid {kid})" if colon else ""
            yield warning(f"SLUICE_SECRET_KEY{of} {why}: who guesses it forges receipts and reads evidence; {_MAKE}")


def tokens(conf: Settings) -> Iterator[Symptom]:
    """SLUICE_ADMIN_TOKEN."""
    if not conf.admin_token:
        yield warning(f"SLUICE_ADMIN_TOKEN is unset: every admin call is refused, so no report can be decided; {_MAKE}")
        return
    named = settings.admins(conf.admin_token)
    yield fact(f"{len(named)} set")
    known = apps.load(conf.apps)
    for token, (name, _) in named.items():
        if len(token) < _LEAST or weak(token):
            why = f"is shorter than {_LEAST} characters" if len(token) < _LEAST else weak(token)
            yield warning(f"SLUICE_ADMIN_TOKEN ({name}) {why}; {_MAKE}")
        if known.keyed and _listed(known, token):
            yield fault(
                f"SLUICE_ADMIN_TOKEN ({name}) is a key of an app too (SLUICE_APPS): every client of it is an admin; {_MAKE}"
            )
        if token in (conf.secret_key, conf.upstream_key):
            yield fault(
                f"SLUICE_ADMIN_TOKEN ({name}) is SLUICE_SECRET_KEY or SLUICE_UPSTREAM_KEY too: one secret each; {_MAKE}"
            )


def _listed(known: apps.Apps, token: str) -> bool:
    try:
        known.identify({"x-api-key": token})
    except RequestError as e:
        return e.code != "invalid_api_key"  # expired, or not for this, but a key
    return True


def door(conf: Settings) -> Iterator[Symptom]:
    """Who may use the client port, and who may read or change the list of them."""
    keyed, alone = apps.load(conf.apps).keyed, settings.loopback(conf.host)
    yield fact("apps with their keys" if keyed else "this machine" if alone else "anybody")
    if not keyed and not alone and not conf.upstream_key:
        yield warning(
            "SLUICE_HOST is not loopback and no app has a key: whoever reaches the port may use it, with credentials that your model "
            "accepts; name apps and their keys in SLUICE_APPS, or bind SLUICE_HOST to 127.0.0.1"
        )
    if conf.apps is not None:
        mode = stat.S_IMODE(conf.apps.stat().st_mode)
        if mode & 0o002:
            yield fault(
                f"SLUICE_APPS: {conf.apps} can be changed by everybody here ({mode:o}), who could add a key: chmod 600 it"
            )
        elif mode & 0o024:
            yield warning(
                f"SLUICE_APPS: {conf.apps} is open to others ({mode:o}), and holds hashes of keys: chmod 600 it, or 640 for a group"
            )
