"""The vocabulary as types. Law: imports nothing of ours, holds no behaviour beyond ordering and views.

The words are those of docs/design.md: a detector *finds* (Candidate), policy *decides* (Finding, Verdict).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol

Direction = Literal["prompt", "answer"]
Origin = Literal["system", "user", "assistant", "tool"]
Tier = Literal["certain", "suspect", "unsure", "entry", "cleared"]
"""How much a finding may do by itself: the category's action; flag; have a guard asked; what the owner of a live entry chose;
nothing."""
TECHNIQUES = (
    "case", "width", "compat", "circled", "math", "combining", "zero_width", "bidi", "tag", "variation", "traditional",
    "homoglyph", "digit", "leet", "repeat", "noise", "markup", "entity", "percent", "escape", "copy",
    "pinyin", "homophone", "lookalike", "split", "interleave", "reversed", "rot13", "base64", "hex", "join",
)  # fmt: skip
"""Ways to disguise a term, by the names that stand in a finding's evidence; from `pinyin` on they are weaker and only flag. `copy`: part of
a passage, that was not repeated whole."""
Path = tuple[str | int, ...]
"""Where a text sits in a JSON body: keys and indices from the top."""


class Action(IntEnum):
    """What is done about a finding; the strictest wins, so the order is the meaning."""

    PASS = 0
    FLAG = 1
    MASK = 2
    REPLACE = 3
    BLOCK = 4

    @property
    def word(self) -> str:
        return _WORD[self]

    @property
    def stops(self) -> bool:
        """True where the model's own text ends at the finding."""
        return self >= Action.REPLACE


_WORD = {action: action.name.lower() for action in Action}


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom and in which direction a text is screened. `app` is an app id; `readers`: the pseudonyms of whoever reads it, by which
    an entry can act for them alone."""

    app: str
    direction: Direction
    readers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Subject:
    """An opaque pseudonym of a user within one app: never a name, a number or an address."""

    app: str
    pseudonym: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A text, where it sits, who it comes from, and how many messages came after it (`age`, 0 = the newest turn)."""

    path: Path
    text: str
    origin: Origin
    age: int = 0
    message: int = -1
    """Index of the message whose spoken text it is (part of); -1: it is no spoken text, and is never joined."""
    json: bool = False
    """It is a JSON text, that masks must leave one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a detector claims about *folded* text: `start`, `end` are indices of the folded text it was given.

    `rule` is an id that an operator can look up and that never contains text of a user. `action` is set only by
    a live entry, whose owner chose it. `tier` says how much the claim may do by itself. `techniques`: by which the text
    was disguised (folding apart); `off`: those that must not have been, for this term. `spans`: what of it speaks most for the
    claim, where that is less than all; indices as of `start`, `end`.
    """

    start: int
    end: int
    category: str
    detector: str
    rule: str
    tier: Tier = "certain"
    score: float = 1.0
    action: Action | None = None
    techniques: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    spans: tuple[tuple[int, int], ...] = ()
    raised: bool = False
    """A suspicion, that a second signal beside it made certain."""


class Scan(NamedTuple):
    """A detector's answer: what is decided, and from where on the text is still undecided.

    `hold`: every finding that starts before it is in `candidates` (of this call or an earlier one), whatever
    text may follow. len(text) means that nothing is undecided. `wake`: until the text is so long, asking again
    changes nothing (0: it may).
    """

    candidates: list[Candidate]
    hold: int
    wake: int = 0


class Detector(Protocol):
    """Finds, never decides; a pure function of the text it is given."""

    name: str

    @property
    def version(self) -> str:
        """Changes whenever its answers may: verdicts on unchanged texts are kept by it."""
        ...

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        """Look at folded `text[since:]`; `text[:since]` is left context, already settled.

        A candidate is returned once what follows it (if anything must) is known: its decision depends on the
        text alone, never on how the text was cut. `final` says that no text will follow.
        """
        ...


class Reader(Protocol):
    """Finds in text that is already let go, so what it finds flags at most; holds nothing back."""

    name: str

    @property
    def version(self) -> str: ...

    def read(self, text: str, original: str, since: int, final: bool, scope: Scope) -> Scan:
        """Like Detector.scan; `original` is what folds to `text`. The hold is where to go on next time."""
        ...


class Scorer(Protocol):
    """The first look at a text as a whole: asked at every check point (app.checkpoints), here and now. What it finds is a suspicion, and
    flags at most."""

    name: str

    @property
    def version(self) -> str: ...

    def score(self, piece: str, before: Any, scope: Scope) -> tuple[list[Candidate], Any]:
        """Look at folded `piece`, from one check point to the next. `before`: what it returned beside the candidates for the piece
        before, None at the beginning; it is never changed, for a text may go on in two ways."""
        ...

    def evidence(self, piece: str, category: str) -> list[tuple[int, int]]:
        """What in folded `piece` speaks most for the category: (start, end), the strongest first, none within another."""
        ...

    def scores(self, pieces: list[str]) -> dict[str, float]:
        """The highest score of every category over a text that comes in these pieces."""
        ...


class Guard(Protocol):
    """The second look: asked about a text where the first ones are unsure; may take its time, within a limit."""

    name: str

    @property
    def covers(self) -> Set[str]:
        """Categories that it can tell; of others its silence says nothing."""
        ...

    @property
    def version(self) -> str: ...

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        """Look at folded `text`, new from `since` on; candidates before that are cut to it. Suspicions that it covers are
        dropped where it names nothing. Raises GuardError where it has no answer."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """A candidate as policy sees it. `start`, `end`, and those of `spans`: code points of the original text, end exclusive."""

    category: str
    detector: str
    start: int
    end: int
    score: float
    action: Action
    shadow: bool
    rule: str
    technique: str
    path: Path = ()
    spans: tuple[tuple[int, int], ...] = ()
    """What of it spoke most for the claim, where that is known and less than all."""
    tier: Tier = "certain"
    """How much the claim could do by itself, without what stands beside it."""

    def public(self) -> dict[str, Any]:
        evidence: dict[str, Any] = {"rule": self.rule, "technique": self.technique, "text": None}
        if self.spans:
            evidence["spans"] = [list(span) for span in self.spans]
        return {
            "category": self.category,
            "detector": self.detector,
            "start": self.start,
            "end": self.end,
            "score": self.score,
            "action": self.action.word,
            "shadow": self.shadow,
            "evidence": evidence,
        }


@dataclass(slots=True)
class Verdict:
    """What policy decides from findings. `degraded` names the detectors that failed or were late."""

    action: Action = Action.PASS
    findings: list[Finding] = field(default_factory=list)
    category: str | None = None
    """The category that decided the action, where the action is more than pass."""
    clause: str | None = None
    degraded: list[str] = field(default_factory=list)
    failed: bool = False
    """One of them could have stopped the text."""

    @property
    def categories(self) -> list[str]:
        return sorted({f.category for f in self.findings if f.action > Action.PASS and not f.shadow})
