"""The playground: what a text would get, and why; for a person who tries one out at the admin port.

Law: nothing is kept, counted or written down, and no log, metric or error says anything of the text. The detectors, the policy and the
scorer that serve, in the machine that serves (app.streaming.Channel); the live entries are those in force. Guard models and exceptions that
were granted on appeal are not asked, and the answer says so. One look at a time, in a thread; nothing is loaded before the first.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from app import apps, checkpoints, policy
from app import text as folding
from app.detectors import classifier, lexicon, readers, rules, shipped
from app.detectors.blocklist import Blocklist
from app.errors import LexiconError, ModelError, RequestError, SettingsError
from app.keys import Keys
from app.moderation import SLICE, conclude
from app.policy import Policies, Policy
from app.proposal import policy_check
from app.settings import Settings
from app.store.tables import Entries, Row, Shadows
from app.streaming import Channel
from app.taxonomy import taxonomy
from app.types import Direction, Finding, Scope

CHARACTERS, CHUNKS = 20_000, 2_000
"""Of a text, and pieces that it comes in, at most."""
SECONDS = 10.0
"""That a look may take, and that it waits for its turn."""
ANY = "*"
"""No app in particular: the common rules, and the entries of all."""
_SMALL = 2_000
"""Folded characters up to which each stage is timed three times."""
_TOP = 5
_NOT_ASKED = "not asked"
_LONE = re.compile("[\ud800-\udfff]")
_KINDS = {
    "zero_width": "draws nothing", "bidi": "turns the direction of writing", "tag": "a tag",
    "variation": "chooses among forms of the character before it",
}  # fmt: skip
_T = TypeVar("_T")


class _Asked(NamedTuple):
    """A look: what at, for whom, until when."""

    text: str
    chunks: Sequence[str] | None
    scope: Scope
    policy: Policy
    until: float

    def go_on(self) -> None:
        """Raises RequestError once the time is up."""
        if perf_counter() > self.until:
            raise RequestError(
                f"text: takes longer than {SECONDS:g} s to look at; send a part of it (文本处理超时，请缩短后重试)",
                code="too_slow", param="text", status=503,
            )  # fmt: skip


class Playground:
    """`entries`, `shadows`: tables of this process; without shadows, no rule waits for a review."""

    def __init__(self, settings: Settings, keys: Keys, entries: Entries, shadows: Shadows | None = None) -> None:
        self._settings, self._keys, self._entries, self._shadows = settings, keys, entries, shadows
        self._turn = asyncio.Lock()
        self._parts: _Parts | None = None

    async def look(
        self,
        text: str,
        *,
        direction: Direction = "answer",
        app: str | None = None,
        chunks: Sequence[str] | None = None,
        policy: Policies | None = None,
    ) -> Row:
        """What the text would get. `app`: an id, or ANY; left out, the only app that there is, else ANY. `chunks`: the text in the pieces
        that it comes in. `policy`: instead of the one in force. Raises RequestError: 422 for a field that cannot be used, 503 where it
        takes too long, another look does, or a file cannot be loaded.

        The answer is JSON. `action`, `category` that decided and its `clause` in `zh` and `en`; `findings` as everywhere, each with `tier`,
        `technique`, and its span as `matched` and `folded`; `categories`: the names and clauses of all that are mentioned; `folded`: see
        `runs`; `invisible`: see `invisible`; `stages`: what each takes by itself over the whole text, and how many candidates it has;
        `scores`: the scorer's highest; `delivered`: what a client would have got of the text, and with `chunks` `released`, after every
        piece and at the end, and `held`, the most characters that waited. Offsets are code points, ends exclusive. `stale`: what
        changed and cannot be read, so that what was there before holds (policy, lexicon, model, apps, entries)."""
        text, chunks = _bounded(text, chunks)
        return await self._alone(lambda: self._look(text, direction, app, chunks, policy))

    async def check(self, raw: bytes | str) -> Row:
        """What a new policy file would change (app.proposal). Raises RequestError 503 where the one in force cannot be read any more, or
        it is not its turn in time."""

        def checked() -> Row:
            try:
                current = policy.load(self._settings.policy)
            except SettingsError as e:
                raise _unloadable("policy", e) from None
            return policy_check(raw, current)

        return await self._alone(checked)

    async def _alone(self, work: Callable[[], _T]) -> _T:
        """Do it in a thread, one at a time: whoever asks often must not have all the cores."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise RequestError(
                "somebody else's text is being looked at; send it again (正在处理其他文本，请稍后重试)",
                code="busy", status=503, retry=1,
            ) from None  # fmt: skip
        task = asyncio.ensure_future(asyncio.to_thread(work))

        def ended(task: asyncio.Future[_T]) -> None:
            self._turn.release()
            if not task.cancelled():
                task.exception()  # it was told, or nobody waits for it any more

        task.add_done_callback(ended)
        # A thread goes on though nobody waits for it, and so the turn is its own until it ends.
        return await asyncio.shield(task)

    # ---- in the thread

    def _look(
        self,
        text: str,
        direction: Direction,
        app: str | None,
        chunks: Sequence[str] | None,
        policies: Policies | None,
    ) -> Row:
        if self._parts is None:
            self._parts = _Parts(self._settings, self._keys)
        parts = self._parts
        parts.follow(self._entries)
        if app is None:
            app = next(iter(parts.sections)) if len(parts.sections) == 1 else ANY
        elif app != ANY and app not in parts.sections:
            known = ", ".join(sorted(parts.sections))
            raise RequestError(f"app: no such app; they are {known}", code="invalid_value", param="app", status=422)
        policies = parts.policies if policies is None else policies
        if self._shadows is not None:
            policies = policies.shadowing(frozenset(row["id"] for row in self._shadows.rows() if row["shadow"]))
        rules = policies.of(parts.sections.get(app, ""))
        asked = _Asked(text, chunks, Scope(app, direction), rules, perf_counter() + SECONDS)
        return parts.judged(asked) | {"entries_version": parts.entries_version, "stale": sorted(parts.stale)}


class _Parts:
    """All that finds and decides, as a worker has it. `stale`: files that changed and cannot be read: what they said before holds."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        self._kept = settings.data_dir / "compiled"
        self._lexicon, self._rules = lexicon.Lexicon(()), rules.Rules(())
        self._blocklist = Blocklist(keys.all("fingerprint"), self._kept)
        self._scorer: classifier.Classifier | None = None
        self._detectors = shipped(self._lexicon, self._blocklist, self._rules)
        self._readers = readers(self._lexicon, self._blocklist)
        self._stamps: dict[str, Any] = {}
        self._entries: tuple[int, int] | None = None  # version of the table, and rows in force
        self._rows: dict[str, int] = {}  # id of an entry -> its version
        self.policies: Policies
        self.sections: dict[str, str] = {}
        self.entries_version = 0
        self.stale: set[str] = set()

    def follow(self, entries: Entries) -> None:
        """Put into force what changed on disk and among the live entries. Raises RequestError where there is nothing yet to go on with."""
        s = self._settings
        for what, paths, load in (
            ("lexicon", [s.lexicons], self._load_lexicon),
            ("policy", [s.policy], self._load_policy),
            ("model", classifier.sources(s.models), self._load_model),
            ("apps", apps.sources(s.apps), self._load_apps),
        ):
            now = lexicon.stamps(paths)
            if what in self._stamps and (now == self._stamps[what] or not now):
                continue
            try:
                load()
                self.stale.discard(what)
            except (SettingsError, LexiconError, ModelError, OSError) as e:
                if what not in self._stamps:
                    raise _unloadable(what, e) from None
                self.stale.add(what)
            self._stamps[what] = now
        # One that expires changes no version.
        seen = entries.version, len(entries)
        if seen != self._entries:
            rows = {row["id"]: row for row in entries.rows()}
            versions = {id: row["version"] for id, row in rows.items()}
            changed: dict[str, Row | None] = dict.fromkeys(id for id in self._rows if id not in rows)
            changed |= {id: row for id, row in rows.items() if self._rows.get(id) != versions[id]}
            try:
                self._blocklist.change(changed, whole=self._entries is None)
            except LexiconError as e:
                if self._entries is None:
                    raise _unloadable("entries", e) from None
                self.stale.add("entries")
                return
            self._entries, self._rows, self.entries_version = seen, versions, seen[0]
            self.stale.discard("entries")

    def _load_lexicon(self) -> None:
        fresh = rules.Rules(rules.load(self._settings.lexicons))
        self._lexicon.take(lexicon.compiled(self._settings.lexicons, self._kept))
        self._rules.take(fresh)

    def _load_policy(self) -> None:
        self.policies = policy.load(self._settings.policy)

    def _load_model(self) -> None:
        if self._scorer is None:
            self._scorer = classifier.tried(self._settings.models)
        else:
            self._scorer.take(classifier.load(self._settings.models))

    def _load_apps(self) -> None:
        self.sections = apps.load(self._settings.apps).sections

    def judged(self, asked: _Asked) -> Row:
        """The answer to a look."""
        assert self._scorer is not None
        text, scope = asked.text, asked.scope
        channel = Channel(self._detectors, asked.policy, scope, (), self._readers, [self._scorer])
        released = []
        for piece in asked.chunks or [text[at : at + SLICE] for at in range(0, len(text), SLICE)]:
            asked.go_on()
            released.append(channel.push(piece))
        released.append(channel.finish())
        verdict = conclude([channel], asked.policy, scope)
        stages, scores = self._timed(asked)
        cut = asked.chunks is not None
        named = {f.category for f in verdict.findings} | {s["category"] for s in scores}
        answer = {
            "action": verdict.action.word,
            "category": verdict.category,
            "clause": _named(verdict.category, asked.policy)["clause"] if verdict.category else None,
            "direction": scope.direction,
            "app": scope.app,
            "findings": [_found(f, text) for f in verdict.findings],
            "categories": {id: _named(id, asked.policy) for id in taxonomy() if id in named},
            "degraded": verdict.degraded,
            "folded": runs(text),
            "invisible": invisible(text),
            "stages": stages,
            "scores": scores,
            "delivered": "" if verdict.action.stops and not cut else _shown("".join(released)),
            "guard": _NOT_ASKED,
            "exceptions": _NOT_ASKED,
            "policy": asked.policy.version,
            "lexicon": self._lexicon.version,
            "model": self._scorer.version,
        }
        return answer | ({"released": [_shown(part) for part in released], "held": channel.held_max} if cut else {})

    def _timed(self, asked: _Asked) -> tuple[list[Row], list[Row]]:
        """What each stage takes by itself over the text as a whole, and what the scorer says of it."""
        text, scope, scorer = asked.text, asked.scope, self._scorer
        assert scorer is not None
        folded = folding.fold(text)
        pieces = checkpoints.pieces(folded, asked.policy.rules.stream.every)
        by = {detector.name: detector for detector in self._detectors}

        def fold() -> int:
            folding.fold(text)
            return 0

        def scan(*names: str) -> Callable[[], int]:
            return lambda: sum(len(by[name].scan(folded, 0, True, scope).candidates) for name in names)

        def read() -> int:
            return sum(len(reader.read(folded, text, 0, True, scope).candidates) for reader in self._readers)

        def score() -> int:
            count, before = 0, None
            for piece in pieces:
                told, before = scorer.score(piece, before, scope)
                count += len(told)
            return count

        stages: tuple[tuple[str, Callable[[], int]], ...] = (
            ("fold", fold), ("lexicon", scan("lexicon")), ("rules", scan("rules")), ("patterns", scan("patterns")),
            ("blocklist", scan("blocklist", "passages")), ("readers", read), ("scorer", score),
        )  # fmt: skip
        told: list[Row] = []
        for name, work in stages:
            taken, count, failed = [], 0, False
            for _ in range(3 if len(folded) <= _SMALL else 1):
                asked.go_on()
                began = perf_counter()
                try:
                    count = work()
                except Exception:
                    failed = True  # what came of it, the verdict says
                taken.append(perf_counter() - began)
            took = round(1e6 * median(taken), 1)
            told.append({"stage": name, "microseconds": took, "candidates": count, "failed": failed})
        asked.go_on()
        try:
            scores = scorer.scores(pieces)
        except ModelError:
            scores = {}  # there is none
        top = sorted(scores.items(), key=lambda each: -each[1])[:_TOP]
        return told, [{"category": category, "score": round(score, 4)} for category, score in top]


def _bounded(text: str, chunks: Sequence[str] | None) -> tuple[str, Sequence[str] | None]:
    """A look's texts. Raises RequestError that names the field."""

    def refused(field: str, why: str) -> RequestError:
        return RequestError(f"{field}: {why}", code="invalid_value", param=field, status=422)

    if not 1 <= len(text) <= CHARACTERS:
        raise refused("text", f"must have 1 to {CHARACTERS:,} characters")
    if chunks is None:
        return _whole(text), None
    if not 1 <= len(chunks) <= CHUNKS:
        raise refused("chunks", f"must be 1 to {CHUNKS:,} pieces")
    if _whole("".join(chunks)) != _whole(text):
        raise refused("chunks", "must be the text, cut into pieces")
    return _whole(text), chunks


def _whole(text: str) -> str:
    """With surrogate pairs made one, as the channel makes them: offsets count characters."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _shown(text: str) -> str:
    """Half of a surrogate pair has no UTF-8 form."""
    return _LONE.sub("\ufffd", text)


def _unloadable(what: str, e: Exception) -> RequestError:
    """The reason is the reader's own, and names file and key."""
    return RequestError(f"the {what} cannot be loaded: {e}", code="not_loadable", status=503)


def _named(category: str, policy: Policy) -> Row:
    """What a person reads of a category."""
    known = taxonomy()[category]
    clause = {language: known.basis(policy.profile, language) for language in ("zh", "en")}
    return {"zh": known.zh, "en": known.en, "clause": clause}


def _found(finding: Finding, text: str) -> Row:
    """A finding with the text that it is about: whoever reads it typed it."""
    matched = text[finding.start : finding.end]
    return finding.public() | {
        "tier": finding.tier,
        "technique": finding.technique,
        "matched": _shown(matched),
        "folded": _shown(folding.fold(matched)),
    }


def runs(text: str) -> list[Row]:
    """The folded view, in order: each run is `text`, which comes `from` [start, end) of the original, `changed` or not. What folds to
    nothing is a run of its own, without text."""
    made = [(at, ch, folding.fold(ch)) for at, ch in enumerate(text)]
    found = []
    for (changed, _), group in groupby(made, key=lambda each: (each[1] != each[2], not each[2])):
        run = list(group)
        found.append(
            {
                "text": _shown("".join(folded for _, _, folded in run)),
                "from": [run[0][0], run[-1][0] + 1],
                "changed": changed,
            }
        )
    return found


def invisible(text: str) -> list[Row]:
    """The characters that a reader does not see: `at` in the text, `code` point, `name` as Unicode has it. Combining marks are seen."""
    found = []
    for at, ch in enumerate(text):
        kind = folding.invisible(ch)
        if kind in _KINDS:
            name = unicodedata.name(ch, "") or f"({_KINDS[kind]})"
            found.append({"at": at, "code": f"U+{ord(ch):04X}", "name": name, "kind": kind})
    return found
