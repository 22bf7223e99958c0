"""Topics on which an answer gives advice that nobody should act on alone (medical, legal, financial, emergency), and the notice for them.

Law: a pure function of the released text, the same however it was cut; linear in it, and no more is kept of it than the longest cue is
long. It tells advice by its words (data/cautions.tsv): different cues of a topic, one of them strong, enough for the length of the text,
beside words of advice. One word in a poem, a news item or a novel is not that. Whether the advice is right, it does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files

from app.lookup import Lookup
from app.text import fold, is_word

TOPICS = ("emergency", "financial", "legal", "medical")
_ADVICE = "advice"
_WEIGHTS = {"strong": 2, "weak": 1, "-": 0}
_BATCH = 200
"""Characters that are gathered before they are looked at."""
_POINTS = 3
"""What a topic's different cues must weigh together."""
_ALONE = 3
"""Strong cues of a topic that show advice without a word of advice: instructions say what to do, not that they advise it."""
_DENSE = 6
"""And for every thousand characters of Han, or three times as many of Latin script."""


class Cautions:
    """`rows`: (topic or 'advice', weight, cue as written)."""

    def __init__(self, rows: Iterable[tuple[str, str, str]]) -> None:
        self.cues = sorted({(topic, fold(cue), _WEIGHTS[weight]) for topic, weight, cue in rows})
        self.lookup = Lookup((cue, i) for i, (_, cue, _) in enumerate(self.cues))
        self.longest = max(len(cue) for _, cue, _ in self.cues)
        self.within = [
            frozenset(
                j for j, (other, inner, _) in enumerate(self.cues) if other == topic and inner != cue and inner in cue
            )
            for topic, cue, _ in self.cues
        ]
        """By cue, the shorter ones of its topic that stand in it: they say nothing more."""

    def start(self) -> Watch:
        """A reader of one answer."""
        return Watch(self)


class Watch:
    """Reads one answer as it is released."""

    def __init__(self, cautions: Cautions) -> None:
        self._of = cautions
        self._pending: list[str] = []
        self._waiting = 0
        self._tail = ""
        self._bytes = 0
        self._found: set[int] = set()
        self._known: set[int] = set()

    def push(self, text: str) -> None:
        """More of the answer."""
        self._pending.append(text)
        self._waiting += len(text)
        if self._waiting >= _BATCH:
            self._look(final=False)

    def finish(self) -> tuple[str, ...]:
        """The answer is over: its topics."""
        self._look(final=True)
        return self.topics

    @property
    def topics(self) -> tuple[str, ...]:
        """Those of what was looked at so far, sorted; after `finish` those of the answer."""
        cues, within = self._of.cues, self._of.within
        if not self._found:
            return ()
        different = self._found.difference(*(within[i] for i in self._found))
        points = dict.fromkeys((*TOPICS, _ADVICE), 0)
        strong, count = dict.fromkeys(points, 0), dict.fromkeys(points, 0)
        for topic, _, weight in map(cues.__getitem__, different):
            points[topic] += weight
            count[topic] += 1
            strong[topic] += weight == _WEIGHTS["strong"]
        enough = max(_POINTS, _DENSE * self._bytes / 3000)
        least = 1 if count[_ADVICE] else _ALONE
        return tuple(t for t in TOPICS if strong[t] >= least and count[t] > 1 and points[t] >= enough)

    def _look(self, final: bool) -> None:
        fresh = fold("".join(self._pending))
        self._pending.clear()
        self._waiting = 0
        # A Han character has three bytes, a Latin letter one: about what each says.
        self._bytes += len(fresh.encode())
        text = self._tail + fresh
        lookup = self._of.lookup
        for number, places in lookup.find(text):
            if number in self._known:
                continue
            first, end = places[0], places[-1] + 1
            if end == len(text) and not final:
                continue  # it is in the tail, and what follows decides whether it is a word
            if not (first and is_word(text[first - 1]) and is_word(text[first])) and not (
                end < len(text) and is_word(text[end]) and is_word(text[end - 1])
            ):
                self._known.add(number)
                self._found.update(lookup.owners(number))
        self._tail = text[-self._of.longest - 1 :]


@cache
def shipped() -> Cautions:
    """The project's own cues."""
    lines = (files("app") / "data" / "cautions.tsv").read_text("utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return Cautions((topic, weight, cue) for topic, weight, cue in rows)


_REPLACES = {
    "zh": {"medical": "医生的诊断", "legal": "律师的意见", "financial": "专业人士的理财建议"},
    "en": {
        "medical": "a doctor's diagnosis",
        "legal": "a lawyer's advice",
        "financial": "a financial adviser's recommendation",
    },
}
_MADE = {"zh": "本内容由人工智能生成", "en": "This content was generated by AI"}
_URGENT = {"zh": "情况紧急时请立即拨打急救或报警电话", "en": "in an emergency, call your local emergency number first"}


def notice(topics: Collection[str], language: str) -> str:
    """One sentence for all of these topics, in 'zh' or 'en'; '' for none. It may stand before an answer or after it."""
    named = [name for topic, name in _REPLACES[language].items() if topic in topics]
    said = [_MADE[language]]
    if language == "zh":
        if named:
            said.append("不能替代" + "、".join(named[:-1]) + ("和" if named[1:] else "") + named[-1])
        if "emergency" in topics:
            said.append(_URGENT["zh"])
        return "，".join(said) + "。" if said[1:] else ""
    if named:
        said[0] += " and does not replace " + ", ".join(named[:-1]) + (" or " if named[1:] else "") + named[-1]
    if "emergency" in topics:
        said.append(_URGENT["en"])
    return "; ".join(said) + "." if named or said[1:] else ""
