"""Callers: who is behind a request, and whether it is let in. Draft Measures, Articles 9 and 19.

Law: decided before anything of the request's text is read. Who is turned away is told why, in both languages, and what to do; a suspended
user can still report, complain and appeal. Of who it was only pseudonyms go any further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from app import clock, metrics
from app.apps import App, Apps, Reach
from app.errors import RequestError
from app.identity import Assertion
from app.keys import Keys
from app.limits import Meter
from app.load import Load
from app.policy import Policies, Policy
from app.policyfile import Mode
from app.subjects import Standing, Subjects
from app.types import Subject


@dataclass(frozen=True, slots=True)
class Caller:
    """`names`: pseudonyms under every key, the newest first; `readers`: under which names answers are screened; `sources`: pseudonyms
    of the address."""

    app: App
    policy: Policy
    assertion: Assertion
    subject: Subject | None
    names: tuple[str, ...]
    readers: tuple[str, ...]
    sources: tuple[str, ...]
    standing: Standing | None = None
    size: int = 0
    """Bytes of the body, as far as they are known before it is read."""

    def recorded(self) -> dict[str, str] | None:
        """What the journal says of the assertion: issuer and class; the record has the time."""
        if self.assertion.kind == "none" and not self.assertion.fault:
            return None
        return {"issuer": self.assertion.issuer, "class": self.assertion.fault or self.assertion.kind}


class Callers:
    """`policies`: those in force now."""

    def __init__(
        self,
        apps: Apps,
        keys: Keys,
        policies: Callable[[], Policies],
        subjects: Subjects | None,
        meter: Meter,
        load: Load,
    ) -> None:
        self._apps, self._keys, self._policies = apps, keys, policies
        self._subjects, self._meter, self.load = subjects, meter, load
        self._sources = lru_cache(_ADDRESSES)(self._sources_of)

    def known(self, headers: Mapping[str, str], peer: str, reach: Reach) -> Caller:
        """Who it is, whatever is imposed on them. Raises RequestError 401 or 403 for the app's key."""
        return self._of(self._apps.identify(headers, reach), headers, peer)

    def visitor(self, app: App, headers: Mapping[str, str], peer: str) -> Caller:
        """Who it is that comes to a page of this app, without its key. Raises RequestError 429 for too many from one address.

        Anybody can write the header that names a user, so that it is believed from the app's named proxies alone.
        """
        caller = self._of(
            app if app.proxies else replace(app, subject_header="", conversation_header=""), headers, peer
        )
        who = self._keys.mac("subject", "visitor", app.id, caller.sources[0]).hex()
        self._meter.take(f"visitor {who}", caller.policy.rules.reports.per_source)
        return caller

    def _of(self, app: App, headers: Mapping[str, str], peer: str) -> Caller:
        asserted = app.asserted(headers, peer)
        subject = app.subject(headers, self._keys, peer, asserted.user)
        names: tuple[str, ...] = ()
        if subject is not None:
            named = asserted.user or headers.get(app.subject_header, "")
            names = tuple(self._keys.pseudonyms(app.id, named))
        policies = self._policies()
        modes: set[Mode] = {"minor"} if asserted.minor else set()
        rule = policies.of(app.policy).rules.identity
        if rule.invalid == "restrict" if asserted.fault else rule.missing == "restrict" and asserted.kind != "verified":
            modes.add("restricted")
        return Caller(
            app, policies.of(app.policy, frozenset(modes)), asserted, subject, names,
            app.readers(headers, self._keys, peer, asserted.user),
            self._sources(app.id, peer),
            self._subjects.of(app.id, names) if self._subjects is not None else None, _size(headers),
        )  # fmt: skip

    def _sources_of(self, app: str, peer: str) -> tuple[str, ...]:
        # Pseudonymous, like everything about people: an address is one guess in four thousand million.
        return tuple(self._keys.reporter(Subject(app, f"address {peer}"), kid) for kid in self._keys.kids)

    def admitted(self, headers: Mapping[str, str], peer: str, reach: Reach = "generate") -> Caller:
        """Who it is, if let in. Raises RequestError."""
        self.load.admit(_size(headers))
        caller = self.known(headers, peer, reach)
        self._vouched(caller)
        standing = caller.standing
        if standing is not None and standing.level in ("suspend", "terminate"):
            metrics.TURNED_AWAY.labels(standing.level).inc()
            left = None if standing.until is None else max(1, int(standing.until - clock.now()))
            raise RequestError(
                " · ".join(standing.words(language, caller.policy.profile) for language in ("zh", "en")),
                code=f"subject_{_PAST[standing.level]}",
                status=403,
                retry=left,
            )
        rules = caller.policy.rules
        slow = standing is not None and standing.level == "limit"
        paces = [p for p in (rules.pace, rules.subjects.per_minute if slow else 0) if p]
        if paces:
            # The store is told how much of it there is, not whose. What one user may not have is none of the app's.
            who = self._keys.mac("subject", "pace", caller.app.id, *(caller.names[:1] or caller.sources[:1])).hex()
            self._meter.take(f"user {who}", min(paces))
        self._meter.take(caller.app.id, caller.app.limits.per_minute)
        return caller

    def inside(self, caller: Caller) -> AbstractContextManager[None]:
        """While the caller's request is served. Raises RequestError 429, or UpstreamError 503 where a shutdown ends it."""
        served = self.load.exchange(caller.size)
        if not caller.app.limits.concurrent:
            return served
        return self._limited(caller, served)

    @contextmanager
    def _limited(self, caller: Caller, served: AbstractContextManager[None]) -> Iterator[None]:
        with self._meter.inside(caller.app.id, caller.app.limits.concurrent), served:
            yield

    def _vouched(self, caller: Caller) -> None:
        rule, asserted = caller.policy.rules.identity, caller.assertion
        if asserted.fault and rule.invalid == "refuse":
            metrics.TURNED_AWAY.labels("identity_invalid").inc()
            raise RequestError(
                f"the identity assertion is not believed ({asserted.fault}): send a fresh one of the configured issuer "
                "(身份凭证无效，请重新登录)",
                code="identity_invalid", status=401,
            )  # fmt: skip
        if not asserted.fault and asserted.kind != "verified" and rule.missing == "refuse":
            metrics.TURNED_AWAY.labels("identity_required").inc()
            raise RequestError(
                "this service needs an assertion that the user's real name was verified (本服务要求真实身份认证，请先完成实名认证)",
                code="identity_required", status=401,
            )  # fmt: skip


def _size(headers: Mapping[str, str]) -> int:
    """Bytes of the body: as many as are said, or a guess."""
    said = headers.get("content-length", "")
    return int(said) if said.isdigit() and len(said) < 16 else _UNSAID if "transfer-encoding" in headers else 0


_UNSAID = 1 << 20
_ADDRESSES = 1024
"""Addresses whose pseudonyms are kept: frontends come from a few."""
_PAST = {"suspend": "suspended", "terminate": "terminated"}
