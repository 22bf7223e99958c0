"""A streamed answer: the model's events in, bytes for the client out.

Law: no I/O; it waits for nothing but guards. Every text goes through a channel of its own; a choice that has ended, by the model
or by us, says no more, whatever still comes. Only an event that may be the last one waits, for it must carry the receipt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from app import metrics, sse, strictjson
from app.dialects import Delta, Dialect, Prompt, Shown, Tokens, fields, put
from app.errors import UpstreamError
from app.moderation import Moderator, Outcome, conclude, count
from app.streaming import Channel
from app.types import Action, Path, Slot, Verdict
from app.web.exchange import Exchange
from app.web.frame import Frame, framed
from app.web.tokens import Queue

_SLICE = 2048
"""Characters of one delta that are screened before the event loop gets a turn."""
_FRAMES = 8
"""Frames that are made in a row without a second event of theirs: a model that writes every event another way needs none."""
_Key = tuple[int, Path]
_Event = dict[str, Any]


class _Text:
    """One text of the answer: its channel, and how far it is."""

    __slots__ = (
        "asking", "came", "channel", "delta", "heard", "held", "out", "over", "said", "since", "skip", "taken", "tokens", "tried",
    )  # fmt: skip

    def __init__(self, channel: Channel, delta: Delta) -> None:
        self.channel, self.delta = channel, delta
        self.taken = self.out = 0  # characters that came, and that went
        self.tried = -1  # of those that came, with how many an end was tried
        self.skip = 0  # of what goes out first, characters that the client has from an earlier text
        self.came: list[str] = []  # where the dialect repeats it, or the answer's own text comes in parts
        self.said: list[str] = []  # where the dialect repeats it
        self.heard = True  # it did not come behind a text that was stopped
        self.over = False  # it came to its end
        self.since: float | None = None  # when it began to hold what it holds
        self.held = 0.0  # seconds
        self.tokens = Queue()
        self.asking: asyncio.Task[str] | None = None


class _Said:
    """What the client has of the texts of an answer's only choice."""

    def __init__(self, texts: dict[_Key, _Text]) -> None:
        self._texts = texts

    def __call__(self, channel: Path) -> str:
        text = self._texts.get((0, channel))
        return "".join(text.said) if text is not None else ""

    def masked(self, channel: Path) -> bool:
        text = self._texts.get((0, channel))
        return text is not None and text.channel.masked


class _Place:
    """What one event of the model becomes: events before it, itself, and how it stopped choices."""

    def __init__(self, body: _Event) -> None:
        self.body = body
        self.before: list[_Event] = []
        self.shown: dict[_Key, tuple[Delta, str]] = {}  # what of it goes out in itself
        self.stops: list[tuple[int, Action]] = []


class _Alike:
    """Events of a frame on their way out: `written`, but for the last, which has this `text`."""

    __slots__ = ("frame", "text", "written")

    def __init__(self, frame: Frame, written: bytes, text: str) -> None:
        self.frame, self.written, self.text = frame, written, text


class Stream:
    """One answer. `over`: the client has all it will get, whatever the model may still send. `told`: it has a character of the
    model's. `ends_as`: how the answer of a model that stands in for another ends."""

    def __init__(
        self, moderator: Moderator, dialect: Dialect, x: Exchange, prompt: Prompt, ends_as: Shown | None = None
    ) -> None:
        self._moderator, self._name, self._x, self._prompt, self._ends_as = moderator, dialect.name, x, prompt, ends_as
        self._texts: dict[_Key, _Text] = {}
        self._past: list[_Text] = []
        """Texts of tool calls that another call took the place of."""
        self._events = dialect.events(prompt, _Said(self._texts))
        self._strict = x.policy.rules.stream.mode == "strict"
        self._calls: dict[_Key, str] = {}
        self._named: dict[_Key, str] = {}  # what calls of one place were named so far, run together
        self._asking: set[_Text] = set()
        self._joined: Outcome | None = None
        self._begun: set[int] = set()
        self._done: set[int] = set()
        """Choices that have ended; those that we stopped are in `_stopped` too."""
        self._stopped: set[int] = set()
        self._kept: _Event | None = None
        self._marker = self._last = False
        self._size = 0  # characters of the model's texts
        self._frame: Frame | None = None  # of the last event
        self._frames = 0 if self._events.alike and ends_as is None and not prompt.tokens else _FRAMES
        self.over = self.told = False
        self.failed: UpstreamError | None = None

    @property
    def stopped(self) -> bool:
        """We ended a choice; the model may have much to say still."""
        return bool(self._stopped)

    @property
    def complete(self) -> bool:
        """The model has said that it is at its end: of every choice that began, or of the answer, where its API has a word for
        that."""
        if not self._events.done:
            return self._last
        return self._marker or (bool(self._done) and self._begun <= self._done)

    @property
    def event_max(self) -> int:
        """Bytes of one event of the model at most."""
        return self._events.event_max

    async def feed(self, events: Iterable[sse.Event | sse.Run]) -> bytes:
        """What goes out for these events: up to one that is none of the dialect or too large, which `failed` then
        tells of."""
        out: list[_Event | _Alike] = []
        try:
            await self._read(events, out)
        except UpstreamError as e:
            self.failed = e
        except sse.TooLarge as e:
            # What was read before it is screened, counted, and goes out.
            self.failed = UpstreamError(str(e), code="upstream_protocol_error")
        # The last event carries the receipt.
        last = len(out) - 1 if self.over or (self._done and self._begun <= self._done) else None
        written = []
        for at, event in enumerate(out):
            if self._kept is not None:
                written.append(self._events.write(self._kept, self._x.decision))
                self._kept = None
            if isinstance(event, _Alike):
                written.append(event.written)
                if at == last:
                    self._kept = event.frame.event(event.text)
                else:
                    written.append(event.frame.write(event.text))
            elif at == last:
                self._kept = event
            else:
                written.append(self._events.write(event, self._x.decision))
        return b"".join(written)

    def known(self, buffer: bytes, at: int) -> tuple[sse.Run, int] | None:
        """Events that need no look but at their texts, where some begin at `at`; and where they end."""
        return None if self._frame is None else self._frame.run(buffer, at)

    async def _read(self, events: Iterable[sse.Event | sse.Run], out: list[_Event | _Alike]) -> None:
        for event in events:
            if isinstance(event, sse.Run):
                await self._run(event, out)
            elif event.data == b"[DONE]":
                if not self._events.done:
                    continue  # no word of this API
                self._marker = self.over = True
                out += await self._finish_rest()
            elif event.data.strip():
                out += await self._screen(self._parsed(event.data), event)
            if self.over:
                return

    async def _run(self, run: sse.Run, out: list[_Event | _Alike]) -> None:
        """Events of one frame that came at once: screened as the one text that they are, each let go with its own part of it."""
        assert self._frame is not None
        frame, delta, texts = self._frame, self._frame.delta, run.texts
        text = self._texts[delta.choice, delta.channel]
        self._frames = 0
        fresh = "".join(texts)
        if len(texts) > 1 and self._size + len(fresh) > self._x.answer_max:
            for one, raw in zip(texts, run.written, strict=True):
                await self._run(sse.Run([one], [raw]), out)
            return
        if self._asking:
            place = _Place(frame.event())
            await self._answered(place)
            if place.stops:
                out += self._emit(place, True)
            if delta.choice in self._done:
                return
        said = await self._take(text, fresh, final=False)
        if said:
            out.append(_shared(frame, run, said, fresh, text.taken - text.out))
        if text.channel.stopped is not None:
            self._frame = None
            place = _Place(frame.event())
            await self._stop(place, text)
            out += self._emit(place, True)

    def close(self) -> bytes:
        """The last bytes of a stream that is complete."""
        self.conclude()
        last = self._kept or self._events.closing()
        assert last is not None
        self._x.seal(last, self._x.answer.action)
        out = self._events.write(last, self._x.decision)
        return out + self._events.done if self._marker or self._stopped else out

    def error(self, e: UpstreamError) -> bytes:
        """How the client is told that no more will come."""
        return self._events.error(e.message, e.code, e.status)

    def account(self) -> None:
        """Hand the counts to the exchange, however the stream ended."""
        self.conclude()
        now = perf_counter()
        for text in self._all():
            if text.asking is not None:
                text.asking.cancel()
            text.channel.give_up()
            if text.since is not None:
                text.held += now - text.since
                text.since = None
        channels = [text.channel for text in self._all()]
        for channel in channels:
            count(channel)
        self._x.screened += sum(c.screened for c in channels)
        self._x.released += sum(c.released for c in channels)
        self._x.leaked += sum(c.leaked for c in channels)
        self._x.held_max = max([self._x.held_max, *(c.held_max for c in channels)])
        self._x.held_ms += 1000 * sum(text.held for text in self._all())

    def conclude(self) -> None:
        """Hand the verdict, as it is so far, to the exchange."""
        heard = [text.channel for text in self._all() if text.heard]
        self._x.answer = conclude(heard, self._x.policy, self._x.scope, self._joined)

    def _all(self) -> list[_Text]:
        return [*self._past, *self._texts.values()]

    def _of(self, choice: int) -> list[_Text]:
        """The texts of a choice, in the order in which they began."""
        return [text for text in self._all() if text.delta.choice == choice]

    def _parsed(self, data: bytes) -> _Event:
        try:
            body = strictjson.loads_upstream(data)
        except ValueError:
            raise UpstreamError("the model sent an event that is not JSON", code="upstream_protocol_error") from None
        if not isinstance(body, dict) or self._events.failed(body):
            raise UpstreamError("the model reported an error in its stream", code="upstream_error")
        return body

    # ---- one event

    async def _screen(self, body: _Event, came: sse.Event) -> list[_Event]:
        """The events that the client gets for one event of the model. `came`: it, as it came."""
        events, self._frame = self._events, None
        if self._done:
            events.without(body, self._done)
        deltas = events.texts(body)
        if deltas is None:
            metrics.DROPPED_FIELDS.labels(self._name).inc()
            return []
        self._x.answered_with(fields.unread(body))
        tokens = {given.path: given for given in events.tokens(body)}
        at = _Place(body)
        if self._asking:
            await self._answered(at)
        for delta in deltas:
            self._begun.add(delta.choice)
            if delta.choice in self._done:
                put(body, delta.path, "")  # stopped by an earlier text of this very event
                continue
            over = self._over(delta)
            if over and await self._end(over, at) is not None:
                put(body, delta.path, "")
                continue
            if (delta.choice, delta.channel) not in self._texts:
                if not delta.text and delta.path not in tokens:
                    # A text begins with its first character.
                    at.shown[delta.choice, delta.channel] = delta, ""
                    continue
                if await self._follows(delta, at):
                    put(body, delta.path, "")
                    continue
            text = self._text(delta)
            if delta.repeat:
                await self._repeat(text, delta, at)
            else:
                said = await self._take(text, delta.text, final=delta.whole)
                if self._prompt.tokens:
                    text.tokens.note(delta.text, text.taken, tokens.get(delta.path))
                put(body, delta.path, said)
                at.shown[delta.choice, delta.channel] = delta, said
            if text.channel.stopped is not None:
                await self._stop(at, text)
        ended = events.ended(body)
        for choice, prefix in ended:
            if choice not in self._done:
                await self._finish(choice, prefix, at)
        for delta, said in at.shown.values():
            if said:
                self._give(body, self._texts.get((delta.choice, delta.channel)))
        alone = len(deltas) == 1 and not (ended or at.before or at.stops)
        out = self._emit(at, bool(deltas) and not any(said for _, said in at.shown.values()))
        if alone and self._frames < _FRAMES:
            self._put_in_frame(came, body, deltas[0])
        return out

    def _put_in_frame(self, came: sse.Event, body: _Event, delta: Delta) -> None:
        """Let events that differ from this one in its only text alone take the short way."""
        if delta.choice in self._done or (delta.choice, delta.channel) not in self._texts:
            return
        named = (delta.choice, (*delta.channel[:-1], "name")) in self._texts
        if not delta.text or delta.repeat or delta.whole or delta.call is not None or named:
            return
        self._frames += 1
        self._frame = framed(
            came.data, came.name, body, delta,
            lambda event: self._events.write(event, self._x.decision), lambda event: self._events.silent(event, False),
        )  # fmt: skip

    async def _answered(self, at: _Place) -> None:
        """Hear the guards that have answered meanwhile."""
        for text in [t for t in self._asking if t.asking is not None and t.asking.done()]:
            await self._ask(text, wait=False)
            if text.channel.stopped is not None:
                await self._stop(at, text)

    def _emit(self, at: _Place, emptied: bool) -> list[_Event]:
        for event in at.before:
            self._events.sent(event)
        out = at.before
        if not ((emptied or at.stops or not at.shown) and self._events.silent(at.body, bool(at.stops))):
            if self._ends_as is not None:
                self._events.refinish(at.body, self._ends_as)
            self._events.sent(at.body)
            out.append(at.body)
        for choice, action in at.stops:
            out += self._ending(choice, action)
        self._last = self._events.last(at.body)
        self.over = self._last or (bool(at.stops) and len(self._done) >= self._prompt.choices)
        return out

    def _text(self, delta: Delta) -> _Text:
        key = (delta.choice, delta.channel)
        text = self._texts.get(key)
        if text is None:
            channel = self._moderator.channel(self._x.scope, self._x.policy, delta.channel, json=delta.json)
            text = self._texts[key] = _Text(channel, delta)
            if delta.call is not None and delta.channel[-1] == "name":
                # Of two calls of one place a client may make one.
                place = delta.choice, delta.call[0]
                before = self._named.get(place, "")
                self._named[place] = before + delta.text
                text.skip = len(before) - len(channel.push(before))
        return text

    async def _take(self, text: _Text, fresh: str, *, final: bool) -> str:
        """Push `fresh`; what may go out now."""
        channel = text.channel
        text.taken += len(fresh)
        self._size += len(fresh)
        if self._size > self._x.answer_max:
            raise UpstreamError("the model's answer is too long", code="upstream_too_large")
        if self._events.repeats or (self._events.parts and text.delta.visible):
            text.came.append(fresh)
        if text.delta.visible:
            self._x.hear(fresh)
        said = ""
        while len(fresh) > _SLICE and channel.stopped is None:
            said += channel.push(fresh[:_SLICE])
            fresh = fresh[_SLICE:]
            if self._strict and channel.due is not None:
                said += await self._ask(text, wait=True)
            await asyncio.sleep(0)
        said += channel.finish(fresh) if final else channel.push(fresh)
        if channel.due is not None or text.asking is not None:
            said += await self._ask(text, wait=final or self._strict or channel.stopped is not None)
        if channel.holding:
            if text.since is None:
                text.since = perf_counter()
        elif text.since is not None:
            text.held += perf_counter() - text.since
            text.since = None
        said = self._went(text, said)
        return said + self._closed(text) if final else said

    def _closed(self, text: _Text) -> str:
        """Our words behind a text that came to its end, once."""
        if text.over or text.channel.stopped is not None or not text.out or not _spoken(text):
            return ""
        text.over = True
        words = self._x.trail(text.delta.choice, text.channel.findings)
        if words and self._events.repeats:
            text.said.append(words)
        return words

    async def _ask(self, text: _Text, *, wait: bool) -> str:
        """Let the guards answer: while the stream waits, or as it goes on."""
        said = ""
        if text.asking is not None and (wait or text.asking.done()):
            said = await text.asking
            text.asking = None
            self._asking.discard(text)
        if text.channel.due is not None and text.asking is None:
            answer = self._moderator.answer(text.channel, self._x.scope, self._x.policy)
            if wait:
                return said + await answer
            text.asking = asyncio.create_task(answer)
            self._asking.add(text)
        return said

    def _went(self, text: _Text, said: str) -> str:
        if text.skip:
            said, text.skip = said[text.skip :], max(0, text.skip - len(said))
        if said:
            self.told = True
            lead = self._x.lead(text.delta.choice) if not text.out and _spoken(text) else ""
            text.out += len(said)
            if text.delta.visible:
                self._x.deliver(text.delta.choice, said)
            said = lead + said
            if self._events.repeats:
                text.said.append(said)
        return said

    async def _repeat(self, text: _Text, delta: Delta, at: _Place) -> None:
        """Put what the client was given in the place of what the model says again; what of it is new is told first."""
        known = text.taken > 0
        came = "".join(text.came)
        # What differs from all that came is no repeat, and nobody's text.
        fresh = delta.text[len(came) :] if delta.text.startswith(came) else ""
        said = await self._take(text, fresh, final=True)
        if said and known:
            self._before(at, text, said)
        put(at.body, delta.path, "".join(text.said))

    def _over(self, delta: Delta) -> list[_Text]:
        """What `delta` shows to be at its end: a name, when what it names goes on; a call, when another takes its index,
        unless some of its text is still held (a client may join the two)."""
        if len(delta.channel) == 1:
            return []
        over = []
        name = self._texts.get((delta.choice, (*delta.channel[:-1], "name")))
        if name is not None and name.delta.channel != delta.channel and not name.delta.whole:
            over.append(name)
        if delta.call is not None:
            place, id = delta.call
            before = self._calls.setdefault((delta.choice, place), id)
            if before != id:
                self._calls[delta.choice, place] = id
                for key, text in list(self._texts.items()):
                    ended = key[1][-1] == "name" or not text.channel.holding
                    if key[0] == delta.choice and key[1][: len(place)] == place and ended:
                        over.append(self._texts.pop(key))
                        self._past.append(text)
        return over

    def _give(self, event: _Event, text: _Text | None) -> None:
        """Put the log probabilities of what has gone out into the event that it goes out with."""
        if text is None or not self._prompt.tokens:
            return
        if text.channel.masked:
            text.tokens.drop()
        if (given := text.tokens.ready(text.out)) is not None:
            self._events.give(event, Tokens(text.delta.choice, (), given, None))

    # ---- endings

    async def _finish(self, choice: int, prefix: Path, at: _Place) -> None:
        """Let go of what the texts below `prefix` still hold; without one the choice ends."""
        texts = [
            text for (owner, channel), text in list(self._texts.items())
            if owner == choice and channel[: len(prefix)] == prefix
        ]  # fmt: skip
        if not prefix:
            self._begun.add(choice)
        await self._end(texts, at)
        if prefix:
            return
        if self._events.parts and choice not in self._stopped:
            spoken = [t for t in texts if t.came and t.delta.visible]
            slots = [Slot(t.delta.channel, "".join(t.came), "assistant", message=0) for t in spoken]
            self._joined = await self._moderator.joined(slots, self._x.scope, self._x.policy)
        self._done.add(choice)

    async def _end(self, texts: list[_Text], at: _Place) -> Action | None:
        """Let go of the rest of `texts`: into the event itself where it has a place there, else into one before it. How one of
        them was stopped."""
        for text in texts:
            if text.delta.choice in self._stopped:
                continue
            said = await self._take(text, "", final=True)
            if said:
                self._put_off(at, text, said)
            if text.channel.stopped is not None:
                await self._stop(at, text)
                return text.channel.stopped
        return None

    async def _follows(self, delta: Delta, at: _Place) -> bool:
        """Another text of the choice begins. One that seems to have ended and would then be stopped is: the APIs that say where
        a text ends must give the same verdict as those that do not."""
        for (choice, _), text in list(self._texts.items()):
            if choice != delta.choice or text.channel.stopped is not None or text.tried == text.taken:
                continue
            text.tried = text.taken
            ended = await self._moderator.ended(text.channel, self._x.scope, self._x.policy)
            if ended is not None:
                text.channel, said = ended
                if said := self._went(text, said):
                    self._put_off(at, text, said)
                await self._stop(at, text)
                return True
        return False

    def _put_off(self, at: _Place, text: _Text, said: str) -> None:
        """Let `said` go: in the event itself where it has a place there, else in one before it."""
        key = (text.delta.choice, text.delta.channel)
        place = at.shown.get(key)
        if place is None:
            self._before(at, text, said)
        else:
            at.shown[key] = place[0], place[1] + said
            put(at.body, place[0].path, place[1] + said)

    def _before(self, at: _Place, text: _Text, said: str) -> None:
        event = self._events.tail(text.delta, said)
        if event is not None:
            self._give(event, text)
            at.before.append(event)

    async def _finish_rest(self) -> list[_Event]:
        """The model said [DONE] and left endings out: nothing held may be lost."""
        out: list[_Event] = []
        for choice in sorted(self._begun - self._done):
            at = _Place({})
            await self._finish(choice, (), at)
            out += at.before
            for stopped, action in at.stops:
                out += self._ending(stopped, action)
        return out

    async def _stop(self, at: _Place, text: _Text) -> None:
        """End one choice for what `text` says: what the texts before it still hold goes out, the choice's own ending is taken
        out of the event, ours follows."""
        choice = text.delta.choice
        if choice in self._stopped:
            return
        self._stopped.add(choice)
        self._done.add(choice)
        action: Action | None = None
        for other in self._of(choice):
            if action is not None:
                other.heard = False
                continue
            if other is not text and (said := await self._take(other, "", final=True)):
                self._put_off(at, other, said)
            action = other.channel.stopped
        self._events.unfinish(at.body, choice)
        assert action is not None
        at.stops.append((choice, action))

    def _ending(self, choice: int, action: Action) -> list[_Event]:
        own = self._of(choice)
        texts = [text for text in own if text.heard]
        verdict = conclude((text.channel for text in texts), self._x.policy, self._x.scope)
        shown = self._x.shown(Verdict(action, verdict.findings, verdict.category, verdict.clause))
        if any(t.channel.stopped is not None and t.delta.json and not t.delta.visible for t in texts):
            # A call was cut: whatever takes its place, it must not end as if it were whole.
            shown = Shown(Action.BLOCK, shown.text)
        begun = any(t.out for t in own if t.delta.visible)
        if any(t.out and _spoken(t) for t in own) and (words := self._x.trailing(choice, ()).strip()):
            # What was said before the stop is the model's, and says so.
            shown = Shown(shown.action, f"{words}\n\n{shown.text}")
        self._x.say(choice, f"\n\n{shown.text}" if begun and not self._prompt.structured else shown.text)
        return self._events.ending(choice, shown, begun)


def _shared(frame: Frame, run: sse.Run, said: str, fresh: str, held: int) -> _Alike:
    """`said` in the events of a run, whose texts together are `fresh`; `held`: characters of it that are not let go yet. Each event has
    what is let go of its own text, the first also what was held before."""
    texts, gone = run.texts, len(fresh) - held
    before = len(said) - gone
    last = len(texts) - 1
    # Whole texts are let go up to where what is held begins.
    while last and held >= len(texts[last]):
        held -= len(texts[last])
        last -= 1
    if not last or gone < len(texts[0]) or said[before:] != fresh[:gone]:
        # One of them, or something was masked: who had which part says nothing then.
        return _Alike(frame, b"", said)
    first = before + len(texts[0])
    written = frame.write(said[:first]) + frame.again(run.written[1:last])
    return _Alike(frame, written, texts[last][: len(texts[last]) - held])


def _spoken(text: _Text) -> bool:
    """Of the answer's own text, where words of ours may stand: not in JSON."""
    return text.delta.visible and not text.delta.json
