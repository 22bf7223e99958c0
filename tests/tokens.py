"""An identity provider for the tests: keys, a key set, tokens as they should be and as an attacker makes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app import clock

ISSUER, AUDIENCE = "https://id.example.test", "sluice-tests"


class Provider:
    """One RSA, one EC and one Ed25519 key under the kids r, e and o."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "r": rsa.generate_private_key(65537, 2048),
            "e": ec.generate_private_key(ec.SECP256R1()),
            "o": ed25519.Ed25519PrivateKey.generate(),
        }

    def key_set(self, *kids: str) -> dict[str, Any]:
        made = {"r": jwt.algorithms.RSAAlgorithm, "e": jwt.algorithms.ECAlgorithm, "o": jwt.algorithms.OKPAlgorithm}
        rows = []
        for kid in kids or self.keys:
            row = json.loads(made[kid[0]].to_jwk(self.keys[kid].public_key()))
            rows.append({**row, "kid": kid, "use": "sig"})
        return {"keys": rows}

    def write(self, path: Path, *kids: str) -> Path:
        path.write_text(json.dumps(self.key_set(*kids)), "utf-8")
        return path

    def public_pem(self, kid: str) -> bytes:
        return bytes(
            self.keys[kid]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(clock.now())
        good = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "user-7", "iat": now, "exp": now + 600, "real_name_verified": True
        }  # fmt: skip
        return {k: v for k, v in (good | changed).items() if v is not None}

    def token(self, kid: str = "r", algorithm: str = "", header: dict[str, Any] | None = None, **changed: Any) -> str:
        algorithm = algorithm or {"r": "RS256", "e": "ES256", "o": "EdDSA"}[kid]
        return jwt.encode(self.claims(**changed), self.keys[kid], algorithm, {"kid": kid, **(header or {})})


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes | None = None) -> str:
    """A token by hand: signed with HMAC-SHA256 under `key`, or by nothing."""
    head = ".".join(_b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{head}.{_b64(hmac.new(key, head.encode(), hashlib.sha256).digest()) if key is not None else ''}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
