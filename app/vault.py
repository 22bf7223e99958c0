"""Evidence of cases, encrypted. Law: what a person sent is kept in the store only as what this module seals, under a key derived for that
one record and purpose; who has the store and not the secret reads nothing. AES-256-GCM (NIST SP 800-38D), a fresh 96-bit nonce each time.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import Unreadable
from app.keys import Keys

_NONCE = 12


def _key(keys: Keys, kid: str, record: str) -> bytes:
    return keys.mac("evidence", "a", record, kid=kid) + keys.mac("evidence", "b", record, kid=kid)


def seal(keys: Keys, record: str, text: str) -> str:
    """`record`: what it belongs to (a case and a name); only under that name it opens again."""
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(_key(keys, keys.kid, record)).encrypt(nonce, text.encode("utf-8", "surrogatepass"), record.encode())
    return f"{keys.kid}.{base64.b64encode(nonce + sealed).decode()}"


def unseal(keys: Keys, record: str, value: str) -> str:
    """Raises Unreadable where it is another record's, was changed, or its key is gone."""
    kid, _, body = value.partition(".")
    raw = base64.b64decode(body)
    try:
        text = AESGCM(_key(keys, kid, record)).decrypt(raw[:_NONCE], raw[_NONCE:], record.encode())
    except (KeyError, InvalidTag):
        raise Unreadable(
            f"evidence under the key {kid!r} cannot be opened: is that key still in SLUICE_SECRET_KEY?"
        ) from None
    return text.decode("utf-8", "surrogatepass")
