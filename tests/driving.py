"""An answer through app.web.stream without a network: the events of a model in, the bytes of a client out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any

from app import sse
from app.apps import UNLIMITED, App
from app.callers import Caller
from app.demo.speech import Answer, Cut
from app.dialects import Dialect, shipped
from app.identity import NOBODY
from app.keys import Keys, Receipt, decision_id
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.types import Detector, Guard, Reader
from app.web.exchange import Exchange
from app.web.stream import Stream
from tests.conftest import SECRET

_KEYS = Keys(SECRET)
DIALECTS: dict[str, Dialect] = {d.route: d for d in shipped()}


def somebody(policy: Policy) -> Caller:
    """Whoever asks, of whom nothing is known."""
    return Caller(App("default", "default", limits=UNLIMITED), policy, NOBODY, None, (), (), ())


class Path:
    """One policy and its finders, for many answers."""

    def __init__(
        self,
        policy: Policy,
        detectors: Sequence[Detector],
        readers: Sequence[Reader] = (),
        guards: Sequence[Guard] = (),
    ) -> None:
        self.policy = policy
        self.moderator = Moderator(detectors, Policies(policy, {}), readers, guards=guards)

    def streamed(
        self, speech: Any, answers: Sequence[Answer], cut: Cut, pieces: int = 0, **ask: Any
    ) -> tuple[bytes, Exchange]:
        """What the client gets, and the exchange. `pieces`: how many bytes the network brings at a time (0: an event)."""
        raw: Iterable[bytes] = speech.stream(cut, *answers)
        if pieces:
            whole = b"".join(raw)
            raw = (whole[i : i + pieces] for i in range(0, len(whole), pieces))
        more = {"n": len(answers)} if len(answers) > 1 else {}
        return self.run(speech, raw, **more, **ask)

    def run(self, speech: Any, raw: Iterable[bytes], **ask: Any) -> tuple[bytes, Exchange]:
        """What the client gets of these bytes of a model, and the exchange."""
        dialect = DIALECTS[speech.route]
        prompt = dialect.prompt(speech.ask("说吧", stream=True, **ask))
        x = Exchange(somebody(self.policy), {}, perf_counter(), decision=decision_id())
        x.receipt = Receipt(_KEYS, x.decision, x.app.id)
        return asyncio.run(self._run(Stream(self.moderator, dialect, x, prompt), raw)), x

    async def _run(self, stream: Stream, raw: Iterable[bytes]) -> bytes:
        out, parser = b"", sse.Parser()
        for chunk in raw:
            out += await stream.feed(parser.walk(chunk, stream.known))
            if stream.failed is not None:
                raise stream.failed
            if stream.over:
                break
        assert stream.complete or stream.over
        out += stream.close()
        stream.account()
        return out
