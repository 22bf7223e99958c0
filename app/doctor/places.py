"""Places on the network: where a URL leads, where Sluice itself listens, whether one is the other.

Law: a place is a host and a port, so it can be shown; it is asked directly, never through a proxy of the environment, for three seconds.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from app.errors import SettingsError
from app.settings import Settings

PATIENCE = 3.0
"""Seconds."""
_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}


class Place(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def addresses(self) -> set[str]:
        """What the host's name stands for. Raises OSError where it stands for nothing."""
        return {str(found[4][0]) for found in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)}

    @property
    def everywhere(self) -> bool:
        """A listener here hears every address of the machine."""
        return self.host in ("0.0.0.0", "::")


def place(url: str, name: str) -> Place:
    """Where `url` leads. Raises SettingsError that names the setting, and not the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        found = Place(parts.hostname or "", parts.port or _PORTS[parts.scheme])
    except (KeyError, ValueError):
        found = Place("", 0)
    if not found.host:
        raise SettingsError(f"{name} is no URL with a host and a port that can be used")
    return found


def reach(at: Place, name: str) -> None:
    """Connect, and hang up. Raises SettingsError."""
    try:
        socket.create_connection(at, timeout=2).close()
    except OSError as e:
        reason = e.strerror or type(e).__name__
        raise SettingsError(
            f"{name}: {at} cannot be reached ({reason}); start what listens there, or correct the address"
        ) from None


def listeners(conf: Settings) -> dict[str, Place]:
    """Setting -> where Sluice listens by it."""
    return {
        "SLUICE_PORT": Place(conf.host, conf.port),
        "SLUICE_OPS_PORT": Place(conf.ops_host, conf.ops_port),
        "SLUICE_ADMIN_PORT": Place(conf.admin_host, conf.admin_port),
    }


def itself(conf: Settings, at: Place) -> str | None:
    """The setting by which Sluice itself would listen at a place, if it would. Raises OSError for a name that stands for nothing."""
    for name, own in listeners(conf).items():
        if own.port == at.port and (_here(at.addresses) if own.everywhere else own.addresses & at.addresses):
            return name
    return None


def _here(addresses: set[str]) -> bool:
    """Is one of them this machine's? Only its own can be bound."""
    for address in addresses:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind((address, 0))
                return True
            except OSError:
                pass
    return False


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """The status of a GET and the beginning of its body; no redirect is followed. Raises OSError, of which ssl.SSLError is one, or
    http.client.HTTPException for what is no HTTP."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read(65_536)
    finally:
        connection.close()


def speaks_tls(at: Place) -> bool:
    """True where a TLS handshake is answered, with whatever certificate."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(at, timeout=PATIENCE) as s, anyone.wrap_socket(s, server_hostname=at.host):
            return True
    except ssl.SSLError as e:
        # A server that wants a certificate of ours has spoken TLS.
        return "alert" in str(e).lower() and "certificate" in str(e).lower()
    except OSError:
        return False
