"""The exceptions of Sluice. Law: every error a person can cause or must act on is one of these, and no message holds text of a user.

SluiceError
├── SettingsError          the environment or a file of the operator is wrong: refuse to start
│   └── PolicyError        policy.yaml is wrong: keep the old one
├── LexiconError           a line of a lexicon is wrong: names file, line and column
├── ModelError             a model's folder is wrong, or its files are not those its card names
├── TrainingError          data to learn from or to test on is wrong: names file and line
├── GuardError             a guard model gave no answer, or none that can be read
├── OfficeError            a command: the admin API refused, or nobody answers there (app/office.py)
├── ListError              a command: a file that is no list, by its lines (app/lists.py)
├── BackupError            a command: a file that cannot be written or restored, and why (app/backup.py)
├── Reused                 an Idempotency-Key was used for another request
├── RequestError           what the client sent is wrong: a 4xx in its dialect
├── LoginError             nobody was logged in, and why: a 401, or a 502 or 504 where the provider is to blame (app/oidc.py)
├── UpstreamError          the model cannot be reached, is late, or speaks nonsense: a 502 or 504
└── StoreError             the store cannot take a write now: a 503, safe to send again
    ├── StoreMissing       no server to start
    ├── Taken              somebody was first with what had to be new (app/store/cases.py)
    ├── Unreadable         what is kept is sealed under a key that is no longer listed
    ├── Limited            too many from one sender: a 429 that says when to come back
    └── Conflict           somebody else decided first: a 409 with the current version
"""

from __future__ import annotations


class SluiceError(Exception):
    """The root: catching it catches everything of ours."""


class SettingsError(SluiceError):
    """The message names the setting or the field and the way out."""


class PolicyError(SettingsError):
    """A policy that cannot be loaded; the message names the key."""


class LexiconError(SluiceError):
    """The message names file, line and column."""


class ModelError(SluiceError):
    """The message names the folder and the field or the file."""


class TrainingError(SluiceError):
    """The message names file and line, or the option."""


class GuardError(SluiceError):
    """`reason`, a word for the metrics: late; busy, here or there; open, not asked after so many failures; refused, by the place and of
    this text; unreachable; status; garbage; unmapped, harmful by labels that model.toml does not know; crashed; missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the guard model gave no answer: {reason}")
        self.reason = reason


class RequestError(SluiceError):
    """`param` is the field at fault in the client's own words, `code` a stable word for programs, `retry` the seconds until it may be
    sent again."""

    def __init__(
        self, message: str, *, code: str, param: str | None = None, status: int = 400, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.param, self.status = message, code, param, status
        self.retry = retry


class Reused(SluiceError, ValueError):
    """A key that was used for something else."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request")


class UpstreamError(SluiceError):
    """`code`: upstream_unreachable, upstream_timeout, upstream_reset, upstream_protocol_error."""

    def __init__(self, message: str, *, code: str, status: int = 502) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status


class LoginError(SluiceError):
    """`code`, a word for programs and metrics (app/oidc.py lists them). The message repeats nothing that a browser or a provider sent."""

    def __init__(self, message: str, *, code: str, status: int = 401) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status


class StoreError(SluiceError):
    """The store did not confirm; the caller answers 503 and the client may send the same key again."""


class StoreMissing(StoreError):
    """No Redis-protocol server was found to start."""


class Unreadable(StoreError):
    """The message names the kid."""


class Limited(StoreError):
    """`seconds` until the next is taken."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many from one sender; send it again in {seconds} s")
        self.seconds = seconds


class Conflict(StoreError):
    """`current` is the version that won."""

    def __init__(self, message: str, current: int) -> None:
        super().__init__(message)
        self.current = current
