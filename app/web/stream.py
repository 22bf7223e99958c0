"""A streamed answer: the model's events in, bytes for the client out.

Law: no I/O. Every text goes through a channel of its own; a choice that has ended, by the model or by us, says no more,
whatever still comes. Only an event that may be the last one waits, for it must carry the receipt.
"""

from __future__ import annotations

from typing import Any

from app import sse, strictjson
from app.dialects import Delta, Dialect, Prompt, put
from app.errors import UpstreamError
from app.moderation import Moderator, conclude
from app.streaming import Channel
from app.types import Action, Path, Verdict
from app.web.exchange import VISIBLE, Exchange

_Key = tuple[int, Path]


class Stream:
    """One answer. `over`: the client has all it will get, whatever the model may still send."""

    def __init__(self, moderator: Moderator, dialect: Dialect, x: Exchange, prompt: Prompt) -> None:
        self._moderator, self._dialect, self._x, self._prompt = moderator, dialect, x, prompt
        self._channels: dict[_Key, tuple[Channel, Delta]] = {}
        self._past: list[Channel] = []
        """Channels of tool calls that another call took the place of."""
        self._calls: dict[_Key, str] = {}
        self._begun: set[int] = set()
        self._done: set[int] = set()
        """Choices that have ended; those that we stopped are in `_stopped` too."""
        self._stopped: set[int] = set()
        self._last: dict[str, Any] = {"model": prompt.model}
        self._kept: dict[str, Any] | None = None
        self._marker = False
        self.over = False

    @property
    def stopped(self) -> bool:
        """We ended a choice; the model may have much to say still."""
        return bool(self._stopped)

    @property
    def complete(self) -> bool:
        """Every choice that began has ended."""
        return self._marker or (bool(self._done) and self._begun <= self._done)

    def feed(self, events: list[sse.Event]) -> bytes:
        """Raises UpstreamError for what is no event of the dialect."""
        out: list[dict[str, Any]] = []
        for event in events:
            if event.data == b"[DONE]":
                self._marker = self.over = True
                out += self._finish_rest()
                break
            if event.data.strip():
                out += self._screen(_parsed(event.data))
            if self.over:
                break
        written = []
        for body in out:
            if self._kept is not None:
                written.append(self._write(self._kept))
            self._kept = body
            if not (self.over or (self._done and self._begun <= self._done)):
                written.append(self._write(body))
                self._kept = None
        return b"".join(written)

    def close(self) -> bytes:
        """The last bytes of a stream that is complete."""
        self._conclude()
        last = self._kept or {k: v for k, v in self._last.items() if k not in ("choices", "usage")} | {"choices": []}
        self._x.seal(last, self._x.answer.action)
        out = self._write(last)
        return out + sse.write(b"[DONE]") if self._marker or self._stopped else out

    def account(self) -> None:
        """Hand the counts to the exchange, however the stream ended."""
        self._conclude()
        channels = self._texts()
        self._x.screened = sum(c.screened for c in channels)
        self._x.released = sum(c.released for c in channels)
        self._x.held_max = max((c.held_max for c in channels), default=0)

    def _conclude(self) -> None:
        self._x.answer = conclude(self._texts(), self._x.policy, self._x.scope)

    def _texts(self) -> list[Channel]:
        return [*self._past, *(c for c, _ in self._channels.values())]

    def _write(self, body: dict[str, Any]) -> bytes:
        body["id"] = self._x.decision
        return sse.write(strictjson.dumps(body))

    # ---- one event

    def _screen(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events that the client gets for one event of the model."""
        if self._done:
            self._dialect.without(body, self._done)
        deltas = self._dialect.texts(body, self._prompt)
        self._dialect.without_tokens(body)
        self._last = body
        before: list[dict[str, Any]] = []
        after: list[dict[str, Any]] = []
        shown: dict[_Key, tuple[Delta, str]] = {}
        for delta in deltas:
            self._begun.add(delta.choice)
            if delta.choice in self._done:
                put(body, delta.path, "")  # stopped by an earlier text of this very event
                continue
            tails, action = self._over(body, delta, shown)
            before += tails
            if action is not None:
                put(body, delta.path, "")
                after += self._stop(body, delta.choice, action)
                continue
            text = self._push(delta)
            put(body, delta.path, text)
            shown[delta.choice, delta.channel] = delta, text
            if (action := self._channels[delta.choice, delta.channel][0].stopped) is not None:
                after += self._stop(body, delta.choice, action)
        for choice in self._dialect.finished(body):
            if choice not in self._done:
                tails, endings = self._finish(choice, body, shown)
                before, after = before + tails, after + endings
        self.over = len(self._stopped) == self._prompt.choices
        emptied = bool(deltas) and not any(text for _, text in shown.values())
        silent = not (body["choices"] or body.get("usage")) or (emptied and self._dialect.silent(body))
        return before + ([] if silent else [body]) + after

    def _over(
        self, body: dict[str, Any], delta: Delta, shown: dict[_Key, tuple[Delta, str]]
    ) -> tuple[list[dict[str, Any]], Action | None]:
        """What `delta` shows to be at its end: a name, when what it names goes on; a call, when another takes its
        index, unless some of its text is still held (a client may join the two). The rest of what ended, and how one
        of it was stopped."""
        over = []
        name = self._channels.get((delta.choice, (*delta.channel[:-1], "name")))
        if name is not None and name[1].channel != delta.channel:
            over.append(name)
        if delta.call is not None:
            place, id = delta.call
            before = self._calls.setdefault((delta.choice, place), id)
            if before != id:
                self._calls[delta.choice, place] = id
                for key, held in list(self._channels.items()):
                    ended = key[1][-1] == "name" or not held[0].holding
                    if key[0] == delta.choice and key[1][: len(place)] == place and ended:
                        over.append(self._channels.pop(key))
                        self._past.append(held[0])
        tails: list[dict[str, Any]] = []
        for held in over:
            tails += self._tail(body, held, shown)
            if held[0].stopped is not None:
                return tails, held[0].stopped
        return tails, None

    def _push(self, delta: Delta) -> str:
        key = (delta.choice, delta.channel)
        held = self._channels.get(key)
        if held is None:
            channel = self._moderator.channel(self._x.scope, self._x.policy, delta.channel)
            held = self._channels[key] = (channel, delta)
        text = held[0].push(delta.text)
        if delta.whole:
            text += held[0].finish()
        return self._deliver(delta, text)

    def _deliver(self, delta: Delta, text: str) -> str:
        if delta.channel == VISIBLE:
            self._x.deliver(delta.choice, text)
        return text

    # ---- endings

    def _finish(
        self, choice: int, body: dict[str, Any], shown: dict[_Key, tuple[Delta, str]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Let go of what a choice still holds: (events before the one with its ending, events after)."""
        tails: list[dict[str, Any]] = []
        endings: list[dict[str, Any]] = []
        self._begun.add(choice)
        for key, held in list(self._channels.items()):
            if key[0] == choice and choice not in self._stopped:
                tails += self._tail(body, held, shown)
                if (action := held[0].stopped) is not None:
                    endings += self._stop(body, choice, action)
        self._done.add(choice)
        return tails, endings

    def _tail(
        self, body: dict[str, Any], held: tuple[Channel, Delta], shown: dict[_Key, tuple[Delta, str]]
    ) -> list[dict[str, Any]]:
        """The rest of one channel: into the event itself where it has a place there, else into one before it."""
        channel, delta = held
        text = self._deliver(delta, channel.finish())
        if not text:
            return []
        place = shown.get((delta.choice, delta.channel))
        if place is None:
            return [self._dialect.tail(body, delta, text)]
        put(body, place[0].path, place[1] + text)
        return []

    def _finish_rest(self) -> list[dict[str, Any]]:
        """The model said [DONE] and left endings out: nothing held may be lost."""
        out: list[dict[str, Any]] = []
        for choice in sorted(self._begun - self._done):
            body = {k: v for k, v in self._last.items() if k not in ("choices", "usage")} | {"choices": []}
            tails, endings = self._finish(choice, body, {})
            out += tails + endings
        return out

    def _stop(self, body: dict[str, Any], choice: int, action: Action) -> list[dict[str, Any]]:
        """End one choice: its own ending is taken out of the event, ours follows."""
        self._stopped.add(choice)
        self._done.add(choice)
        self._dialect.unfinish(body, choice)
        channels = [c for (owner, _), (c, _) in self._channels.items() if owner == choice]
        verdict = conclude(channels, self._x.policy, self._x.scope)
        shown = self._x.shown(Verdict(action, [], verdict.category, verdict.clause))
        seen = self._channels.get((choice, VISIBLE))
        begun = seen is not None and seen[0].released > 0
        self._x.deliver(choice, f"\n\n{shown.text}" if begun else shown.text)
        return self._dialect.ending({k: v for k, v in body.items() if k != "choices"}, choice, shown, begun)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body = strictjson.loads_upstream(data)
    except ValueError:
        raise UpstreamError("the model sent an event that is not JSON", code="upstream_protocol_error") from None
    if not isinstance(body, dict) or body.get("error"):
        raise UpstreamError("the model reported an error in its stream", code="upstream_error")
    return body
