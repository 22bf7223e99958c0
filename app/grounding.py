"""Grounding: which sentences of an answer do not stand in the references that came with the request.

Law: pure, and linear in answer and references. It compares wording and figures, not sense: a sentence of the references' own words that
turns their meaning round is taken for supported, and what is true but not in them is not.

A sentence is supported where enough of its content stands in the references (characters of Han with a neighbour, words of Latin script by
their stems) and with it every number, date, share and quoted passage. Pairs and no longer runs: a paraphrase breaks most of those. Numbers
are compared by value: 一百二十 is 120, 三成 is 30%, 3.6亿 is 360,000,000. Greetings, hedges and headings are not counted.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from operator import add
from typing import NamedTuple

from app.text import fold, origins

ENOUGH = 0.5
"""Share of a sentence's content that must stand in the references."""
LEAST = 4
"""Characters of Han, two for a word, from which on a sentence without figures says something."""
_ABOUT = 0.05
"""How far a number may be off that the answer itself calls approximate."""
_PASSAGE = 8
"""Letters in a row by which a quoted passage is looked up; a shorter one whole."""
_QUOTED = 4
"""Letters from which on what stands in quotation marks is a passage, not a word held at arm's length."""


class Grounding(NamedTuple):
    """`score`: share of the `sentences` counted that are supported (1.0 of none). `unsupported`: the others, in code points of the
    answer."""

    score: float
    sentences: int
    unsupported: list[tuple[int, int]]


def checked(answer: str, references: Sequence[str]) -> Grounding:
    """Hold every sentence of `answer` against `references`."""
    # A circled number is a list's, and folds to what a sentence might mean.
    answer = answer.translate(_CIRCLED)
    text = fold(answer)
    at = origins(answer)
    held = _References(fold(text.translate(_CIRCLED)) for text in references)
    said = ((m.span(), held.quotes(m[0][1:-1])) for m in _QUOTE.finditer(text))
    quotes = [(span, there) for span, there in said if there is not None]
    counted = 0
    unsupported = []
    quote = 0
    for start, end in _sentences(text):
        while quote < len(quotes) and quotes[quote][0][1] <= start:
            quote += 1
        quoted = [there for (first, _), there in _until(quotes, quote, end)]
        supported = held.support(text[start:end])
        if supported is None and not quoted:
            continue
        counted += 1
        if supported is False or not all(quoted):
            unsupported.append((at[start], at[end - 1] + 1))
    return Grounding(1 - len(unsupported) / counted if counted else 1.0, counted, unsupported)


_Quote = tuple[tuple[int, int], bool]


def _until(quotes: Sequence[_Quote], first: int, end: int) -> Iterator[_Quote]:
    """Those from the `first` on that begin before `end`."""
    return takewhile(lambda quote: quote[0][0] < end, islice(quotes, first, None))


class _References:
    """What stands in folded texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs: set[str] = set()
        self._words: set[str] = set()
        self._figures: set[_Figure] = set()
        self._texts: list[str] = []
        self._parts: dict[int, set[str]] = {}
        for text in texts:
            for run in _han(text):
                self._runs.update(run)
                self._runs.update(map(add, run, run[1:]))
            self._words.update(_words(text))
            self._figures.update(figure for figure, _ in _figures(text, every=True))
            self._texts.append(text)
        self._values = sorted(f.value for f in self._figures if f.kind == "number")

    def support(self, sentence: str) -> bool | None:
        """Whether a sentence stands here; None where it says nothing."""
        figures = list(_figures(sentence, every=False))
        if not figures and _SMALL_TALK.fullmatch(sentence.strip(_EDGES)):
            return None
        content = found = 0
        for run in _han(sentence):
            content += len(run)
            before = False
            for pair in map(add, run, run[1:]) if len(run) > 1 else (run,):
                here = pair in self._runs
                # The second character of a pair is the first of the next.
                found += (1 if before or len(run) == 1 else 2) if here else 0
                before = here
        for word in _words(sentence):
            content += 2
            found += 2 * (word in self._words)
        if not figures and content < LEAST:
            return None
        return found >= ENOUGH * content and all(self._has(*figure) for figure in figures)

    def _has(self, figure: _Figure, about: bool) -> bool:
        if figure in self._figures:
            return True
        if not about or figure.kind != "number":
            return False
        near = bisect_left(self._values, figure.value * (1 - _ABOUT))
        return near < len(self._values) and self._values[near] <= figure.value * (1 + _ABOUT)

    def quotes(self, passage: str) -> bool | None:
        """Whether a passage stands here letter by letter; None where it is too short to be a quotation."""
        letters = "".join(filter(str.isalnum, passage))
        if len(letters) < _QUOTED or (letters.isascii() and len(passage.split()) < 3):
            return None
        size = min(_PASSAGE, len(letters))
        if size not in self._parts:
            plain = ("".join(filter(str.isalnum, text)) for text in self._texts)
            self._parts[size] = {text[i : i + size] for text in plain for i in range(len(text) - size + 1)}
        parts = self._parts[size]
        return all(letters[i : i + size] in parts for i in range(len(letters) - size + 1))


# ---- sentences and their content

_CIRCLED = dict.fromkeys((*range(0x2460, 0x2474), *range(0x2776, 0x2794)), "\u2022")
_QUOTE = re.compile(r"“[^“”]*”|「[^「」]*」|『[^『』]*』|\"[^\"\n]*\"")
_END = re.compile(r"(?:[。!?;\n]|(?<=如下):|\.(?=[\s\"”]|$))+[\"”’」』)\]]*")
_EDGES = " \t\r\n,.;:!?。、~*#>-\u2022\u3000"
_MARKER = re.compile(
    r"[\s*#>\u2022-]*(?:\(?(?:第|步骤|step )?(?:\d{1,2}|[一二三四五六七八九十]{1,3})步?[.、),:](?!\d))?[\s*]*"
)
"""What a list puts before an item."""
_WORD = re.compile(r"[a-z][a-z'’]*")
_STOP = frozenset(
    "a an the and or but if so of to in on at by for from with without as is are was were be been being am it its it's this that these "
    "those he she they them his her their we our us you your i my me do does did done not no can could may might will would shall should "
    "must has have had there here then than also only just very more most each every any some such which who whom whose what when where "
    "how into up out about after before over under during while because please".split()
)
_WEAK = frozenset(
    "的了是在和也都就而与及或等着过被把将对从到为以于其该这那此有个您你我他她它们可会能要并且则又还很更最所之吗呢吧啊、"
)
"""Characters that a paraphrase takes and leaves."""
_SMALL_TALK = re.compile(
    r"(?:您好|你好|大家好|嗨).{0,4}|(?:好的|当然|没问题|明白了?|总之|综上所述|总的来说|简而言之)[,。 ]?.{0,4}"
    r"|.{0,8}希望.{0,12}(?:有.{0,2}帮助|有用)"
    r"|祝(?:您|你).{0,10}|.{0,4}(?:谢谢|感谢).{0,10}|(?:如|若|如果|假如)(?:您|你)?(?:还)?有.{0,8}(?:问题|疑问|需要).{0,16}"
    r"|(?:以上|以下)?(?:内容|回答|信息)?.{0,2}(?:根据|依据|按照|基于)(?:您|你)?(?:所)?提?供?的?(?:资料|材料|文档|文件|参考资料|信息|内容)"
    r"(?:,?.{0,4}(?:整理|如下|总结|得出|概括))?"
    r"|.{0,4}(?:资料|材料|文档|文件|原文|参考资料)(?:中|里)?.{0,2}(?:没有|未|并未|没)(?:提到|提及|说明|给出|涉及).{0,16}|.{0,8}仅供参考.{0,4}"
    r"|(?:我)?(?:不确定|无法确认|不能确定).{0,16}"
    r"|(?:hello|hi|hey|dear)\b.{0,20}|.{0,6}\bhope (?:this|that|it) helps.{0,20}|(?:let me know|feel free)\b.{0,60}"
    r"|(?:sure|of course|certainly|good luck|thank you|thanks|in summary|in short|in conclusion)\b.{0,12}"
    r"|(?:according to|based on) the (?:references?|documents?|texts?|sources?|materials?)(?: (?:you )?(?:provided|supplied|given))?"
    r"|the (?:references?|documents?|texts?|sources?|materials?) (?:do not|does not|did not|don't|doesn't) "
    r"(?:say|mention|state|tell|give)\b.{0,60}"
    r"|please note that .{0,30}\b(?:may|might) (?:change|vary|differ)|i(?: am|'m) not (?:sure|certain)\b.{0,60}"
)
"""A whole sentence that claims nothing about the matter."""


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence stands, without what a list puts before it and space around it."""
    start = 0
    for end in (*(m.end() for m in _END.finditer(text)), len(text)):
        first = min(_MARKER.match(text, start, end).end(), end)  # type: ignore[union-attr]
        last = end
        while last > first and text[last - 1].isspace():
            last -= 1
        if last > first:
            yield first, last
        start = end


def _han(text: str) -> list[str]:
    """Runs of Han characters, without weak ones, numerals and what makes dates of them."""
    return _HAN.findall(_DATE_MARK.sub("|", text).translate(_APART))


def _words(text: str) -> Iterator[str]:
    """Stems of words that say something."""
    for m in _WORD.finditer(text):
        word = m[0].replace("’", "'").removesuffix("'s")
        if word not in _STOP and word not in _NUMBER_WORDS and len(word) > 1:
            yield _stem(word)


def _stem(word: str) -> str:
    """The word without the endings that a paraphrase changes."""
    for ending in ("ing", "ies", "ied", "ed", "es", "er", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


# ---- figures


class _Figure(NamedTuple):
    """`kind`: number, share (in per cent), day (month * 100 + day) or month."""

    kind: str
    value: float


_DIGITS = {ch: i for i, ch in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10_000, "亿": 100_000_000}
_NUMERALS = frozenset(_DIGITS) | frozenset(_TENS) | frozenset(_MYRIADS)
_APART: dict[int, str | None] = dict.fromkeys(map(ord, (*_WEAK, *" *_"))) | dict.fromkeys(map(ord, _NUMERALS), "|")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af〇々]+")
_DATE_MARK = re.compile(f"(?<=[0-9{''.join(sorted(_NUMERALS))}])[年月日号]")
_COUNTED = frozenset(
    "个名人位年月日号天周次小元角分米公厘里克吨升毫斤亩家座项种条岁点时秒倍成层楼届只台辆件套份场轮本册篇章页间所张支枚颗株棵头匹对双组批期级类等度寸尺步站档集部星折款穗"
)
"""What follows a numeral of one character that is a number, and not part of a word."""
_DATED = frozenset("月号")
"""The same for 一, which mostly means no more than "a"."""
_HAN_NUMBER = re.compile(r"(百分之)?([〇零一二两三四五六七八九十百千万亿]+(?:点[〇零一二三四五六七八九]+)?)(?=(.?.?))")
_UNITS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
).split()
_NUMBER_WORDS = (
    {word: i for i, word in enumerate(_UNITS, 1)}
    | {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
    | {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
)
_ANY_WORD = "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True))
_FIRST_WORD = "|".join(word for word, value in _NUMBER_WORDS.items() if value < 100)
_SPELT = re.compile(rf"\b(?:{_FIRST_WORD}|a (?:hundred|thousand|million|billion))(?:(?:[ -]| and )(?:{_ANY_WORD}))*\b")
_MONTHS = {
    name: i
    for i, name in enumerate(
        "january february march april may june july august september october november december".split(), 1
    )
}
_MONTH = "|".join(name[:3] + (f"(?:{name[3:]})?" if name[3:] else "") for name in _MONTHS)
_DATE = re.compile(
    r"(?:(?P<y1>\d{4})年)?(?P<m1>\d{1,2})月(?:(?P<d1>\d{1,2})[日号])?"
    r"|(?P<y2>\d{4})[-/.](?P<m2>\d{1,2})[-/.](?P<d2>\d{1,2})(?!\d)"
    rf"|\b(?P<m3>{_MONTH})\.? (?P<d3>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<y3>\d{{4}})\b)?"
    rf"|\b(?P<d4>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<m4>{_MONTH})\b\.?(?:,? (?P<y4>\d{{4}})\b)?"
)
_TIME = re.compile(r"(?P<h>\d{1,2}):(?P<min>\d{2})(?!\d)")
_SCALE = {
    "十万": 1e5, "百万": 1e6, "千万": 1e7, "十亿": 1e9, "百亿": 1e10, "千亿": 1e11, "万亿": 1e12,
    "百": 1e2, "千": 1e3, "万": 1e4, "亿": 1e8, "thousand": 1e3, "million": 1e6, "billion": 1e9,
}  # fmt: skip
_PLAIN = re.compile(
    r"(?P<about>(?:约|近|超过?|逾|不到|\b(?:about|around|nearly|roughly|over|almost|approximately|than))(?:为|是|有)? ?)?"
    r"(?<![a-z0-9])(?P<number>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<rest>\.\d+)?"
    rf"(?: ?(?P<scale>{'|'.join(_SCALE)}))?(?P<share> ?(?:%|per ?cent\b)|个百分点|成(?![a-z员立为长功本绩]))?"
)
_LATER = re.compile(r"(?:下午|晚上|傍晚|中午)(\d{1,2})(?=[点时:])|\b(\d{1,2})(?::\d{2})? ?p\.?m\b")
_NUMERAL = 24
"""Words, or Han characters, of a number at most: no longer one is meant as one."""
_LONGEST = 15
"""Digits from which on a number is a code, compared as it is written."""


def _figures(text: str, every: bool) -> Iterator[tuple[_Figure, bool]]:
    """What a text counts or dates, and whether it calls it approximate. `every`: of numerals of one character, too, that may be none."""
    spelt = _SPELT.sub(lambda m: _worded(m, every), _HAN_NUMBER.sub(lambda m: _numeral(m, every), text))
    if every:
        for m in _LATER.finditer(spelt):
            yield _Figure("number", int(m[1] or m[2]) + 12), False
    rest = []
    last = 0
    for m in _DATE.finditer(spelt):
        parts = {name[0]: value for name, value in m.groupdict().items() if value}
        month = int(parts["m"]) if parts["m"].isdigit() else 1 + [name[:3] for name in _MONTHS].index(parts["m"][:3])
        if "y" in parts:
            yield _Figure("number", int(parts["y"])), False
        if "d" in parts:
            yield _Figure("day", 100 * month + int(parts["d"])), False
        if every or "d" not in parts:
            yield _Figure("month", month), False
        if every:
            yield _Figure("number", month), False
            yield _Figure("number", int(parts.get("d", month))), False
        rest.append(spelt[last : m.start()])
        last = m.end()
    rest.append(spelt[last:])
    for m in _PLAIN.finditer(_TIME.sub(_clock, " ".join(rest))):
        whole = m["number"].replace(",", "")
        if len(whole) > _LONGEST:
            yield _Figure(whole, 0), False
            continue
        value = round(float(whole + (m["rest"] or "")) * _SCALE.get(m["scale"] or "", 1), 4)
        share = m["share"] or ""
        yield _Figure("share" if share else "number", value * 10 if share == "成" else value), bool(m["about"])


def _clock(m: re.Match[str]) -> str:
    return f" {int(m['h'])} " + ("" if m["min"] == "00" else f"{int(m['min'])} ")


def _numeral(m: re.Match[str], every: bool) -> str:
    """A numeral of Han in digits; as it stands where it is none."""
    share, said, after = m[1], m[2], m[3]
    value = _value(said)
    if value is None:
        return m[0]
    if share:
        return f"{value}%"
    before = m.string[m.start() - 1 : m.start()]
    sure = (
        len(said) > 1
        or before in ("第", "之")
        or after == "分之"
        or after[:1] in (_DATED if said == "一" else _COUNTED)
    )
    if said == "十":
        sure = after[:1] not in ("分", "足") or after == "分钟"
    return value if sure else f" {value} " if every else m[0]


def _value(said: str) -> str | None:
    """A numeral's value, written in digits; None of what is no number (千万, 七八)."""
    said, _, rest = said.partition("点")
    fraction = "." + "".join(str(_DIGITS[ch]) for ch in rest) if rest else ""
    if len(said) > _NUMERAL:
        return None
    if all(ch in _DIGITS for ch in said):
        many = "".join(str(_DIGITS[ch]) for ch in said)
        return many + fraction if len(said) != 2 or "〇" in said else None
    if said[0] not in _DIGITS and said[0] != "十":
        return None
    total = section = digit = 0
    unit = 1
    for ch in said:
        if ch in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[ch]
            unit = 10 if ch == "零" or ch == "〇" else unit
            continue
        size = _TENS.get(ch)
        if size is not None:
            section += (digit or (ch == "十")) * size
            unit = size
        else:
            size = _MYRIADS[ch]
            part = section + digit
            # 一万亿 is a myriad of 亿; 两亿三千万 is their sum.
            total, section, unit = (total + part * size if total >= size else (total + part) * size), 0, size
        digit = 0
    # 一万二 is 12,000, 一百零二 is 102.
    return f"{total + section + digit * (unit // 10 if unit > 10 and said[-1] in _DIGITS else 1)}" + fraction


def _worded(m: re.Match[str], every: bool) -> str:
    """A number in English words in digits."""
    if m[0] == "one":
        return " 1 " if every else m[0]
    total = section = 0
    words = re.split(r"[ -]", m[0])
    if len(words) > _NUMERAL:
        return m[0]
    for word in words:
        value = _NUMBER_WORDS.get(word, 0)
        if value >= 1000:
            total, section = total + (section or 1) * value, 0
        elif value == 100:
            section = (section or 1) * 100
        else:
            section += value
    return str(total + section)
