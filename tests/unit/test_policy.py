"""The policy: defaults of the taxonomy, whole or not at all, sections per app, and what each claim may do."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import PolicyError
from app.policy import Policy, load, parse, strictest
from app.taxonomy import Profile, taxonomy
from app.types import Action, Candidate, Direction, Finding, Tier

ROWS = list(taxonomy().values())
IDS = [row.id for row in ROWS]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
WORDS = {
    "pass": Action.PASS,
    "flag": Action.FLAG,
    "mask": Action.MASK,
    "replace": Action.REPLACE,
    "block": Action.BLOCK,
}


def common(text: str = "") -> Policy:
    return parse(text.encode()).common


def claim(category: str = "violence", tier: Tier = "certain", action: Action | None = None) -> Candidate:
    return Candidate(0, 1, category, "lexicon", "lex.1", tier, action=action)


def refusal(text: str | bytes) -> str:
    with pytest.raises(PolicyError) as refused:
        parse(text if isinstance(text, bytes) else text.encode())
    assert "canary" not in str(refused.value)
    return str(refused.value)


# ---- defaults


def test_the_taxonomy_has_its_categories_and_the_prompt_is_never_stricter() -> None:
    assert len(IDS) == len(set(IDS)) == 43
    assert all(row.prompt <= row.answer for row in ROWS)
    assert all(row.zh and row.en and row.clause for row in ROWS)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("id", IDS)
def test_a_category_acts_by_default_as_the_taxonomy_says_in_the_profile_that_names_it(
    id: str, direction: Direction
) -> None:
    row = taxonomy()[id]
    default = getattr(row, direction)
    assert common().action(claim(id), direction) == default
    later = common("profile: interim_2023_08").action(claim(id), direction)
    assert later == (Action.PASS if row.origin == "draft_only" else default)


@pytest.mark.parametrize(
    ("id", "answer", "prompt"),
    [
        ("violence", Action.BLOCK, Action.FLAG),
        ("personal_information", Action.MASK, Action.MASK),
        ("self_harm", Action.REPLACE, Action.REPLACE),
        ("sexual_minors", Action.BLOCK, Action.BLOCK),
        ("unfair_competition", Action.PASS, Action.PASS),
        ("prompt_attack", Action.FLAG, Action.FLAG),
        ("label_removal", Action.BLOCK, Action.BLOCK),
    ],
)
def test_defaults_worth_spelling_out(id: str, answer: Action, prompt: Action) -> None:
    assert [common().action(claim(id), d) for d in ("answer", "prompt")] == [answer, prompt]


@pytest.mark.parametrize("profile", ["draft_2023_04", "interim_2023_08"])
def test_a_category_of_another_text_names_that_text_in_both_profiles(profile: Profile) -> None:
    row = taxonomy()["label_removal"]
    assert row.basis(profile, "zh") == "《人工智能生成合成内容标识办法》第十条"
    assert row.basis(profile, "en") == "Measures for Labelling AI-Generated Synthetic Content, Article 10"
    assert taxonomy()["prompt_attack"].basis(profile, "en") == "this service's own security rules"
    assert all(not r.law or (not r.cite and set(r.law) == {"zh", "en"}) for r in ROWS)


def test_the_later_profile_switches_off_even_what_a_rule_asks_for() -> None:
    policy = common(
        "profile: interim_2023_08\ncategories: {discrimination_race: {answer: block}, violence: {prompt: block}}"
    )
    assert policy.action(claim("discrimination_race"), "answer") == Action.PASS
    assert policy.action(claim("violence"), "prompt") == Action.BLOCK


def test_the_shipped_file_says_what_an_empty_one_means() -> None:
    shipped, empty = load(Path(__file__).parents[2] / "app" / "policy.yaml").common, common()
    assert shipped.rules == empty.rules
    assert (shipped.profile, shipped.unmoderated_routes) == (empty.profile, empty.unmoderated_routes)
    assert (empty.rules.blocked_as, empty.rules.detector_ms, empty.rules.max_body_bytes) == ("answer", 300, 4 << 20)


def test_a_version_names_the_text_of_the_file() -> None:
    assert common("shadow: []").version == common("shadow: []").version != common("shadow: [ ]").version


# ---- refused whole


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("polic: canary", "polic"), ("categories: {violence: {anser: block}}", "categories.violence.anser"),
        ("apps: {kids: {profile: draft_2023_04}}", "apps.kids.profile"),
        ("apps: {kids: {unmoderated_routes: []}}", "apps.kids.unmoderated_routes"),
        ("degraded: {anser: pass}", "degraded.anser"),
        ("categories: {violent: {answer: block}}", "categories.violent"),
        ("apps: {kids: {categories: {violent: {answer: block}}}}", "apps.kids.categories.violent"),
        ("surrogates: {violent: {zh: canary, en: canary}}", "surrogates.violent"),
        ("apps: {kids: {surrogates: {violent: {zh: canary, en: canary}}}}", "apps.kids.surrogates.violent"),
        ("categories: {violence: {answer: canary}}", "categories.violence.answer"),
        ("categories: {violence: {prompt: true}}", "categories.violence.prompt"),
        ("categories: {violence: {answer: 0}}", "categories.violence.answer"),
        ("categories: {violence: canary}", "categories.violence"), ("categories: [canary]", "categories"),
        ("apps: {kids: {categories: {violence: {answer: canary}}}}", "apps.kids.categories.violence.answer"),
        ("degraded: {answer: mask}", "degraded.answer"), ("blocked_as: canary", "blocked_as"),
        ("profile: canary", "profile"), ("profile: 2023-02-30", "YAML"), ("detector_ms: 0", "detector_ms"),
        ("detector_ms: canary", "detector_ms"), ("max_body_bytes: 1023", "max_body_bytes"),
        ("shadow: canary", "shadow"), ("shadow: [[canary]]", "shadow.0"), ("apps: [canary]", "apps"),
        ("surrogates: canary", "surrogates"), ("surrogates: {default: {zh: ''}}", "surrogates.default.zh"),
        ("surrogates: {violence: {zh: canary}}", "surrogates.violence.en"),
        ("guidance: {authority: 'javascript:canary'}", "guidance.authority"), ("guidance: canary", "guidance"),
        ("guidance: {zh: ''}", "guidance.zh"), ("apps: {kids: {guidance: {report: canary}}}", "apps.kids.guidance.report"),
        ("unmoderated_routes: [/embeddings]", "unmoderated_routes"), ("[canary]", "mapping"), ("canary", "mapping"),
        ("a: 'canary", "line 1"), ("shadow: []\n\tprofile: canary", "line 2"), ("shadow: [*canary]", "YAML"),
        ("shadow: !!python/name:canary []", "YAML"), (b"profile: \xff\xfe", "YAML"), (b"1: canary", "1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_key_and_no_value_is_repeated(text: str | bytes, named: str) -> None:
    assert named in refusal(text)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("shadow: []\nprofile: draft_2023_04\nshadow: [canary]", "shadow", 1),
        ("shadow: []\ncategories:\n  violence: {answer: flag}\n  violence: {answer: block}", "violence", 3),
        ("categories: {violence: {answer: flag, answer: block}}", "answer", 1),
        ("apps:\n  kids: {}\n  kids: {}", "kids", 2),
    ],
)
def test_a_key_that_stands_twice_is_refused_and_not_the_last_one_taken(text: str, key: str, line: int) -> None:
    assert f"the key {key!r} stands twice in one mapping (line {line})" in refusal(text)


@pytest.mark.parametrize(
    "braces",
    ["{}", "{0}", "{name}", "{", "}", "{category", "{category:d}", "{category[0]}", "{category[x]}", "{category.x}",
     "{category.__class__}"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["surrogates.default", "surrogates.violence", "apps.kids.surrogates.default"])
def test_braces_that_nothing_can_fill_are_refused(where: str, braces: str) -> None:
    text = f'{{zh: "canary", en: "canary {braces}"}}'
    for key in reversed(where.split(".")):
        text = f"{{{key}: {text}}}"
    assert f"{where}.en: only {{category}}, {{clause}}, {{decision}}, {{report}} and {{authority}}" in refusal(text)


def test_the_five_names_and_doubled_braces_may_stand_in_a_surrogate() -> None:
    policy = common('surrogates: {violence: {zh: "{category}{clause}{decision}{report}{authority}{{}}", en: "x"}}')
    assert policy.rules.surrogates["violence"].zh.startswith("{category}")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yaml: cannot be read .*SLUICE_POLICY"):
        load(tmp_path / "none.yaml")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40) | st.text("{}[]:,-?&*!|>'\"%@ \n\tashdow0123456789", max_size=40).map(str.encode))
def test_no_file_breaks_the_reader_with_anything_but_a_policy_error(raw: bytes) -> None:
    try:
        parse(raw)
    except PolicyError:
        pass


# ---- what is said is done


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("word", [*WORDS, "off", '"off"'])
def test_a_rule_changes_its_category_in_its_direction_and_nothing_else(word: str, direction: Direction) -> None:
    policy = common(f"categories: {{violence: {{{direction}: {word}}}}}")
    assert policy.action(claim(), direction) == WORDS.get(word, Action.PASS)
    others = [(id, d) for id in IDS for d in DIRECTIONS if (id, d) != ("violence", direction)]
    assert all(policy.action(claim(id), d) == common().action(claim(id), d) for id, d in others)


def test_an_apps_section_is_laid_over_the_common_one() -> None:
    policies = parse(b"""
categories: {violence: {answer: flag, prompt: mask}, self_harm: {answer: block}}
degraded: {answer: pass, prompt: block}
shadow: [lexicon]
surrogates: {default: {zh: common}}
apps:
  kids: {categories: {violence: {prompt: block}}, degraded: {answer: unavailable}, blocked_as: error, shadow: []}
  plain: {}
""")
    kids, plain = policies.of("kids"), policies.of("plain")
    assert [kids.action(claim(), d) for d in ("answer", "prompt")] == [Action.FLAG, Action.BLOCK]
    assert kids.action(claim("self_harm"), "answer") == Action.BLOCK
    assert (kids.degraded("answer"), kids.degraded("prompt")) == (None, Action.BLOCK)
    assert (kids.rules.blocked_as, kids.rules.shadow, kids.rules.surrogates["default"].zh) == ("error", [], "common")
    assert plain.rules.model_dump() == policies.common.rules.model_dump(include=set(type(plain.rules).model_fields))
    assert [plain.action(claim(), d) for d in ("answer", "prompt")] == [Action.FLAG, Action.MASK]
    assert policies.of("unknown") is policies.common
    assert policies.common.rules.blocked_as == "answer"


@pytest.mark.parametrize("section", ["surrogates", "apps.kids.surrogates"])
def test_one_language_of_a_surrogate_may_be_changed_alone(section: str) -> None:
    text = '{default: {zh: "own"}}'
    for key in reversed(section.split(".")):
        text = f"{{{key}: {text}}}"
    own, shipped = parse(text.encode()).of("kids").rules.surrogates["default"], common().rules.surrogates["default"]
    assert (own.zh, own.en) == ("own", shipped.en)


@pytest.mark.parametrize("section", ["", "apps.kids."])
def test_one_part_of_the_guidance_may_be_changed_alone_and_is_another_version(section: str) -> None:
    text = '{zh: "own"}'
    for key in reversed(f"{section}guidance".split(".")):
        text = f"{{{key}: {text}}}"
    own, shipped = parse(text.encode()).of("kids").rules.guidance, common().rules.guidance
    assert (own.zh, own.en, own.report) == ("own", shipped.en, "/sluice/v1/reports")
    assert shipped.zh and shipped.authority == "https://www.12377.cn" and own.version != shipped.version


@pytest.mark.parametrize("word", ["pass", "flag", "block", "unavailable"])
def test_a_failed_detector_does_what_policy_says(word: str) -> None:
    policy = common(f"degraded: {{answer: {word}}}")
    assert policy.degraded("answer") == WORDS.get(word)
    assert policy.degraded("prompt") == Action.FLAG


def test_a_failed_detector_blocks_answers_and_flags_prompts_by_default() -> None:
    assert (common().degraded("answer"), common().degraded("prompt")) == (Action.BLOCK, Action.FLAG)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(IDS), st.sampled_from(DIRECTIONS), st.sampled_from(list(WORDS)))
def test_a_suspect_term_never_does_more_than_flag(id: str, direction: Direction, word: str) -> None:
    policy = common(f"categories: {{{id}: {{{direction}: {word}}}}}")
    assert policy.action(claim(id, "suspect"), direction) == min(WORDS[word], Action.FLAG)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(IDS), st.sampled_from(DIRECTIONS), st.sampled_from(Action))
def test_a_live_entry_does_what_its_owner_chose(id: str, direction: Direction, action: Action) -> None:
    policy = common(f"profile: interim_2023_08\ncategories: {{{id}: {{{direction}: off}}}}")
    assert policy.action(claim(id, "entry", action), direction) == action


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(IDS), st.sampled_from(DIRECTIONS), st.sampled_from(Action), st.sampled_from(Action))
def test_a_capped_policy_does_at_most_that_and_leaves_the_first_as_it_was(
    id: str, direction: Direction, cap: Action, entry: Action
) -> None:
    policy = common()
    before = policy.action(claim(id), direction)
    capped = policy.capped(cap)
    assert capped.action(claim(id), direction) == min(before, cap)
    assert capped.action(claim(id, "entry", entry), direction) == min(entry, cap)
    assert capped.action(claim(id, "suspect"), direction) == min(before, cap, Action.FLAG)
    assert capped.capped(Action.BLOCK).action(claim(id), direction) == min(before, cap)
    assert policy.action(claim(id), direction) == before


@pytest.mark.parametrize(
    ("shadow", "shadowed"),
    [("lex.1", True), ("violence", True), ("lexicon", True), ("lex", False), ("self_harm", False)],
)
def test_a_rule_category_or_detector_in_shadow_is_computed_and_not_applied(shadow: str, shadowed: bool) -> None:
    policy = common(f"shadow: [{shadow}, other]")
    assert policy.shadowed(claim()) is shadowed
    assert policy.action(claim(), "answer") == Action.BLOCK
    assert not common().shadowed(claim())


FINDINGS = st.builds(
    Finding, st.sampled_from(IDS), st.just("lexicon"), st.integers(0, 9), st.just(9), st.just(1.0), st.sampled_from(Action),
    st.booleans(), st.just("r"), st.just("plain"),
)  # fmt: skip


@given(st.lists(FINDINGS, max_size=6))
def test_the_strictest_finding_decides_then_the_earliest_and_one_in_shadow_never(findings: list[Finding]) -> None:
    decided = strictest(findings)
    applied = [f for f in findings if not f.shadow]
    assert (decided is None) == (not applied)
    if decided is not None:
        assert all((f.action, -f.start) <= (decided.action, -decided.start) for f in applied)


@pytest.mark.parametrize(
    "text", ["degraded: {answer: nope}", "apps: {web: {labels: {mode: nope}}}", "minors: {pace: nope}"]
)
def test_what_is_wrong_is_named_by_its_file(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^mine\.yaml: "):
        parse(text.encode(), "mine.yaml")


def test_what_is_laid_over_never_loosens_an_apps_own_rules() -> None:
    policies = parse(
        b"apps: {web: {categories: {violence: {prompt: block, answer: block}, abuse_spam: {answer: block}}, pace: 3,"
        b" degraded: {prompt: unavailable}, notices: {hours: 0.5, turns: 0}, media: {not_examined: refuse}, stream: {mode: strict}}}\n"
        b"minors: {categories: {violence: {prompt: pass}, abuse_spam: {answer: off}}, pace: 10, degraded: {prompt: pass},"
        b" notices: {hours: 4, turns: 9}, media: {not_examined: pass}, stream: {mode: prompt}}"
    )
    own, minor = policies.of("web"), policies.of("web", frozenset({"minor"}))
    for key, action in own._actions.items():
        assert minor._actions[key] >= action, key
    rules = minor.rules
    assert (rules.pace, rules.degraded.prompt, rules.notices.hours, rules.notices.turns) == (3, "unavailable", 0.5, 9)
    assert (rules.media.not_examined, rules.stream.mode) == ("refuse", "strict")


def test_a_key_under_minors_keeps_the_other_shipped_ones() -> None:
    minor = parse(b"minors: {notices: {hours: 0.5}}").of("default", frozenset({"minor"}))
    assert (minor.rules.notices.hours, minor.rules.notices.turns) == (0.5, 50)
    assert minor._actions["violence", "prompt"].word == "block"


def test_fail_modes_name_those_of_modes_that_differ() -> None:
    assert parse(b"").fail_modes()["*+restricted"]["prompt"] == "block"
