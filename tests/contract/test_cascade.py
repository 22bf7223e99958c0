"""The stages together: what the first ones suspect a second one confirms or drops; it is asked in doubt alone, and its silence is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from app.detectors.lexicon import Lexicon, Term
from app.errors import GuardError
from app.moderation import Moderator, conclude
from app.policy import Policies, Policy
from app.policyfile import CategoryRule, DegradedRule, GuardRule, Rules, StreamRule
from app.types import Action, Candidate, Scope, Slot

SCOPE = Scope("default", "answer")
LEXICON = Lexicon(
    [Term("可疑短语", "violence", "suspect"), Term("警示短语", "violence"), Term("别处短语", "abuse_spam", "suspect")]
)
CALM = "今天的河面很静，也没有什么大风。"
DOUBT = "这里有可疑短语，说得不清不楚。"


class Scores:
    """A scorer: 坏词 is suspected, 疑词 is a reason to ask."""

    name, version = "scores", "1"

    def score(self, piece: str, before: Any, scope: Scope) -> tuple[list[Candidate], Any]:
        found = []
        if "坏词" in piece:
            found.append(Candidate(0, len(piece), "self_harm", self.name, "scores/self_harm", "suspect", 0.9))
        if "疑词" in piece:
            found.append(Candidate(0, len(piece), "self_harm", self.name, "scores/self_harm", "unsure", 0.85))
        return found, (before or 0) + 1

    def evidence(self, piece: str, category: str) -> list[tuple[int, int]]:
        at = piece.find("坏词")
        return [(at, at + 2)] if at >= 0 else []

    def scores(self, pieces: list[str]) -> dict[str, float]:
        return {}


class Second:
    """A guard that names what it is told to, and keeps what it was asked."""

    name, version = "second", "1"
    covers = frozenset({"violence", "self_harm"})

    def __init__(self, *names: str, fails: str = "") -> None:
        self.names, self.fails = names, fails
        self.asked: list[str] = []
        """What was new of the texts it was asked about; `shown`: all of them."""
        self.shown: list[str] = []

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        self.asked.append(text[since:])
        self.shown.append(text)
        if self.fails == "hangs":
            await asyncio.sleep(60)
        if self.fails:
            raise GuardError(self.fails)
        return [Candidate(since, len(text), name, self.name, f"second/{name}", "suspect", 0.9) for name in self.names]


def rules(guard: GuardRule = GuardRule(ms=200), **more: Any) -> Policy:  # noqa: B008
    categories = {"violence": CategoryRule(answer="block"), "self_harm": CategoryRule(answer="replace")}
    return Policy(Rules(categories=categories, guard=guard, **more), "draft_2023_04", "test")


def run(text: Sequence[str] | str, guard: Second | None, policy: Policy | None = None) -> Any:
    """(verdict, what went out) of a text, or of one in pieces."""
    policy = policy or rules()
    moderator = Moderator([LEXICON], Policies(policy, {}), scorers=[Scores()], guards=[guard] if guard else [])
    channel = moderator.channel(SCOPE, policy)

    async def go() -> str:
        out = ""
        for piece in [text] if isinstance(text, str) else text:
            out += channel.push(piece) + await moderator.answer(channel, SCOPE, policy)
        return out + channel.finish() + await moderator.answer(channel, SCOPE, policy)

    out = asyncio.run(go())
    return conclude([channel], policy, SCOPE), out, channel


def test_text_in_which_nothing_is_suspected_is_shown_to_no_guard() -> None:
    guard = Second("violence")
    verdict, out, channel = run(CALM * 20, guard)
    assert verdict.action is Action.PASS and out == CALM * 20
    assert guard.asked == [] and channel.stretches == 20 and channel.asked == 0


@pytest.mark.parametrize(("word", "category"), [("可疑短语", "violence"), ("坏词", "self_harm")])
def test_what_the_guard_confirms_does_what_policy_says_of_the_category(word: str, category: str) -> None:
    text = f"{CALM}这里有{word}，说得不清不楚。{CALM}"
    alone, _, _ = run(text, None)
    assert alone.action is Action.FLAG and alone.categories == [category]
    guard = Second(category)
    verdict, _, channel = run(text, guard)
    assert verdict.action.stops and verdict.category == category
    assert [f.detector for f in verdict.findings if f.action.stops] == ["second"]
    assert len(guard.asked) == 1 and word in guard.asked[0]
    assert channel.judged == {(category, "confirmed"): 1}


def test_what_the_guard_covers_and_does_not_name_is_dropped_and_stays_listed() -> None:
    for text in (DOUBT, "这里有坏词，说得不清不楚，谁知道呢。"):
        verdict, out, channel = run(CALM + text, Second())
        assert verdict.action is Action.PASS and verdict.categories == [] and out == CALM + text
        assert [f.action for f in verdict.findings] == [Action.PASS]
        assert set(channel.judged.values()) == {1} and next(iter(channel.judged))[1] == "dropped"


def test_what_the_guard_does_not_cover_stays_suspected_and_is_not_asked_about() -> None:
    guard = Second()
    verdict, _, _ = run(f"{CALM}这里有别处短语，说得不清不楚。", guard)
    assert verdict.action is Action.FLAG and verdict.categories == ["abuse_spam"] and guard.asked == []


def test_a_certain_term_acts_whatever_the_guard_says() -> None:
    verdict, out, _ = run(f"{CALM}这里有警示短语。{CALM}", Second())
    assert verdict.action is Action.BLOCK and out == f"{CALM}这里有"


def test_what_only_a_reason_to_ask_is_flags_nothing_by_itself() -> None:
    text = f"{CALM}这里有疑词，说得不清不楚。"
    assert run(text, None)[0].findings == []
    guard = Second()
    assert run(text, guard)[0].findings == [] and len(guard.asked) == 1
    named = run(text, Second("self_harm"))[0]
    assert named.action is Action.FLAG and [f.detector for f in named.findings] == ["second"], "alone, it flags"
    act = rules(GuardRule(alone="act"))
    assert run(text, Second("self_harm"), act)[0].action is Action.REPLACE


def test_a_policy_may_ask_always_or_never() -> None:
    guard = Second()
    run(CALM * 3, guard, rules(GuardRule(when="always")))
    assert guard.asked == [CALM.replace("，", ",")] * 3
    guard = Second("violence")
    assert run(DOUBT, guard, rules(GuardRule(when="never")))[0].action is Action.FLAG and guard.asked == []


@pytest.mark.parametrize("fails", ["hangs", "status", "garbage"])
@pytest.mark.parametrize("word", ["pass", "flag", "block"])
def test_a_guard_without_an_answer_does_what_policy_says_and_is_named(fails: str, word: str) -> None:
    policy = rules(GuardRule(ms=20), degraded=DegradedRule(guard=word), stream=StreamRule(mode="strict"))  # type: ignore[arg-type]
    guard = Second(fails=fails)
    text = f"{CALM}这里有疑词，说得不清不楚。{CALM}"
    verdict, out, _ = run(text, guard, policy)
    assert verdict.action is {"pass": Action.PASS, "flag": Action.FLAG, "block": Action.BLOCK}[word]
    assert verdict.degraded == ["second"] and len(guard.asked) == 1
    assert out == (CALM if word == "block" else text)


def test_a_suspicion_stays_where_the_guard_gave_no_answer() -> None:
    verdict, _, _ = run(DOUBT, Second(fails="status"), rules(degraded=DegradedRule(guard="pass")))
    assert verdict.action is Action.FLAG and verdict.categories == ["violence"] and verdict.degraded == ["second"]


def test_an_operator_sets_from_which_score_on_a_scorer_flags() -> None:
    text = f"{CALM}这里有坏词，说得不清不楚。"
    strict = Policy(Rules(categories={"self_harm": CategoryRule(answer="block", score=0.95)}), "draft_2023_04", "t")
    assert run(text, None, strict)[0].action is Action.PASS
    loose = Policy(Rules(categories={"self_harm": CategoryRule(answer="block", score=0.8)}), "draft_2023_04", "t")
    for word in ("坏词", "疑词"):
        assert run(f"{CALM}这里有{word}，说得不清不楚。", None, loose)[0].action is Action.FLAG, "it never does more"


@pytest.mark.parametrize("mode", ["prompt", "strict"])
def test_however_a_text_is_cut_the_cascade_says_the_same(mode: str) -> None:
    dice = random.Random(3)
    pieces = (
        CALM,
        DOUBT,
        "这里有坏词，说得不清。",
        "还有疑词在这里，是吗？",
        "好。",
        "没有说完的话",
        "别处短语",
        "警示",
    )
    policy = rules(stream=StreamRule(mode=mode, every=40))  # type: ignore[arg-type]
    stopped = 0
    for names in ((), ("violence",), ("self_harm",)):
        for _ in range(60):
            text = "".join(dice.choices(pieces, k=dice.randint(1, 8)))
            whole, said, _ = run(text, Second(*names), policy)
            cuts = sorted(dice.randint(0, len(text)) for _ in range(6))
            parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            for cut in (list(text), parts):
                verdict, streamed, channel = run(cut, Second(*names), policy)
                assert (verdict.action, verdict.findings, verdict.degraded) == (
                    whole.action,
                    whole.findings,
                    whole.degraded,
                )
                if mode == "strict":
                    assert streamed == said and channel.leaked == 0
            stopped += whole.action.stops
    assert 20 < stopped < 160


class Broken(Scores):
    """A scorer that fails at the second look."""

    def score(self, piece: str, before: Any, scope: Scope) -> tuple[list[Candidate], Any]:
        if before:
            raise ValueError(piece)
        return super().score(piece, before, scope)


@pytest.mark.parametrize(("word", "action"), [("pass", Action.PASS), ("flag", Action.FLAG)])
def test_a_scorer_that_fails_does_what_policy_says_and_is_named(
    word: str, action: Action, caplog: pytest.LogCaptureFixture
) -> None:
    policy = rules(degraded=DegradedRule(scorer=word))  # type: ignore[arg-type]
    moderator = Moderator([LEXICON], Policies(policy, {}), scorers=[Broken()])
    channel = moderator.channel(SCOPE, policy)
    assert channel.push(CALM * 3) + channel.finish() == CALM * 3
    verdict = conclude([channel], policy, SCOPE)
    assert (verdict.action, verdict.degraded) == (action, ["scores"])
    assert "河面" not in caplog.text


def test_a_suspicion_across_a_check_point_is_shown_whole_and_acts_whole() -> None:
    policy = rules(stream=StreamRule(mode="strict", every=160))
    text = "字" * 158 + "可疑短语" + "字" * 60
    for cut in ([text], list(text)):
        guard = Second("violence")
        verdict, out, channel = run(cut, guard, policy)
        assert verdict.action is Action.BLOCK and "可疑短语" in guard.shown[-1]
        assert out == "字" * 158 and channel.leaked == 0
    assert run(text, Second(), policy)[0].action is Action.PASS


def test_what_spoke_for_a_suspicion_is_told_by_where_it_stands_in_the_text_as_it_came() -> None:
    text = f"①ﷺ{CALM}这里有坏词，说得不清不楚。"
    for cut in (text, list(text)):
        (found,) = run(cut, None)[0].findings
        assert [text[a:b] for a, b in found.spans] == ["坏词"]
        assert found.public()["evidence"]["spans"] == [list(found.spans[0])]
    said = '{"a": "\\u8fd9\\u91cc有\\n坏\\u8bcd"}'
    policy = rules()
    moderator = Moderator([], Policies(policy, {}), scorers=[Scores()])
    slot = Slot(("a",), said, "assistant", json=True)
    (found,) = asyncio.run(moderator.judge([slot], SCOPE, policy)).verdict.findings
    assert [said[a:b] for a, b in found.spans] == ["坏\\u8bcd"]


def test_text_before_a_stop_is_looked_at_like_any_other() -> None:
    text = f"{CALM}这里有坏词，后面是警示短语。"
    guard = Second("self_harm")
    verdict, out, _ = run(text, guard, rules(stream=StreamRule(mode="strict")))
    assert (verdict.category, verdict.action, out) == ("self_harm", Action.REPLACE, CALM)
    assert "坏词" in guard.asked[-1]


def test_a_guard_in_shadow_drops_nothing_and_stops_nothing() -> None:
    assert run(DOUBT, Second(), rules(shadow=["second"]))[0].action is Action.FLAG
    verdict, _, _ = run(DOUBT, Second("violence"), rules(shadow=["second"]))
    assert verdict.action is Action.FLAG and any(f.shadow for f in verdict.findings)


def test_who_calls_a_text_harmful_in_another_way_drops_nothing() -> None:
    verdict, _, _ = run(DOUBT, Second("self_harm"))
    assert verdict.action is Action.FLAG and set(verdict.categories) == {"violence", "self_harm"}


def test_what_was_suspected_of_text_that_is_out_is_told_though_no_guard_answered() -> None:
    policy = rules()
    moderator = Moderator([LEXICON], Policies(policy, {}), scorers=[Scores()], guards=[Second()])
    channel = moderator.channel(SCOPE, policy)
    assert "坏词" in channel.push(f"{CALM}这里有坏词，说得不清不楚，谁知道呢。")
    assert channel.due is not None and channel.findings == []
    channel.give_up()
    assert [f.action for f in channel.findings] == [Action.FLAG] and channel.due is None


def test_a_guard_that_fails_over_a_seam_flags_and_keeps_what_the_seam_shows() -> None:
    policy = rules(GuardRule(ms=50, when="always"), degraded=DegradedRule(guard="block"))
    moderator = Moderator([LEXICON], Policies(policy, {}), guards=[Second(fails="status")])
    slots = [Slot(("a",), "先说一半，警示", "user", message=0), Slot(("b",), "短语，再说一半", "user", message=1)]
    joined = asyncio.run(moderator.joined(slots, Scope("default", "prompt"), policy))
    assert joined.unread == ["second"] and [f.category for f in joined.findings] == ["violence"]
