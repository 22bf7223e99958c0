"""What an operator may say: the schema of policy.yaml, each key explained where it stands. Law: no behaviour beyond saying what is wrong,
by the key's name and never its value. Configuration of trust & safety, in git; never read from the environment or the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from app.attributes import ATTRIBUTES
from app.deadlines import DRAFT_MONTHS
from app.errors import PolicyError
from app.labels import labelled, plain_value, undrawable
from app.taxonomy import Profile, taxonomy
from app.types import TECHNIQUES

ActionWord = Literal["pass", "flag", "mask", "replace", "block", "off"]
AnswerWord = Literal["pass", "flag", "mask", "replace", "regenerate", "block", "off"]
# YAML 1.1 reads a bare `off` as false.
_off = BeforeValidator(lambda v: "off" if v is False else v)
_Action = Annotated[ActionWord, _off]
_AnswerAction = Annotated[AnswerWord, _off]
Technique = Literal[TECHNIQUES]  # type: ignore[valid-type]
Mode = Literal["restricted", "minor"]
"""What lays a stricter section over an app's own."""
MODES: dict[Mode, str] = {"restricted": "restricted", "minor": "minors"}
"""Mode -> its section of the file; the later one is laid over the earlier."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wording(_Strict):
    """What a person reads, per language."""

    zh: str = Field(min_length=1, max_length=500)
    en: str = Field(min_length=1, max_length=500)


class CategoryRule(_Strict):
    """Action per direction; what is left out keeps the taxonomy's default. `regenerate`: replace, by asking the model once
    more."""

    answer: _AnswerAction | None = None
    prompt: _Action | None = None
    techniques_off: list[Technique] = []
    score: float | None = Field(default=None, ge=0.8, le=1)
    """From which score on a scorer's finding flags; unset: the model's own (model.toml); 1: none does."""


class DegradedRule(_Strict):
    """What to do when a detector failed or was late: `unavailable` answers 503. `scorer`, `guard`: when one of those did, in either
    direction; a guard is missed only where it was asked."""

    answer: Literal["pass", "flag", "block", "unavailable"] = "block"
    prompt: Literal["pass", "flag", "block", "unavailable"] = "flag"
    scorer: Literal["pass", "flag"] = "flag"
    guard: Literal["pass", "flag", "block"] = "flag"


class SuspectRule(_Strict):
    """What makes a suspect term of the lexicon act like a certain one: another of its category within `near` characters,
    or the `count`th of its category in one text. 0 switches a signal off."""

    near: int = Field(default=0, ge=0, le=1000)
    count: int = Field(default=0, ge=0, le=1000)


class StreamRule(_Strict):
    """How text waits for what judges it as a whole. `prompt`: terms, entries and patterns are strict, classifiers follow and cut;
    `strict`: text waits for them at each check point. `every`: folded characters between two of them at most."""

    mode: Literal["prompt", "strict"] = "prompt"
    every: int = Field(default=160, ge=32, le=4096)


class GuardRule(_Strict):
    """When a guard model is asked, where SLUICE_GUARD names one: `unsure`, about text in which something is suspected; `always`;
    `never`. `alone`: what it may do where nothing else suspects the category."""

    when: Literal["unsure", "always", "never"] = "unsure"
    alone: Literal["flag", "act"] = "flag"
    ms: int = Field(default=2000, ge=1, le=60_000)


class ReportRule(_Strict):
    """What a report brings about before somebody decides, and the periods that are promised. `months`: until a confirmed passage must no
    longer be generated. `days`: until a report, complaint or appeal is answered. `hold`: an app-wide hold of `hours` for a passage of at
    least `letters` letters, in no clean text, not delivered more than `delivered` times besides, that our own detectors had flagged or
    `subjects` asserted users reported. `deliveries`: keyed traces of delivered answers are kept for 7 days, so that it is known how often
    one was delivered. `clean`: texts of the app's own that no report may hide. `runtime`: categories
    in which an answer that we stopped becomes a case by itself. `per_reporter` an hour, `per_source` a minute. `second`: the share of
    decided cases that a second person looks at without knowing the decision."""

    months: int = Field(default=3, ge=1, le=24)
    days: int = Field(default=15, ge=1, le=90)
    hold: bool = True
    hours: int = Field(default=72, ge=1, le=72)
    letters: int = Field(default=40, ge=40, le=2000)
    subjects: int = Field(default=3, ge=3, le=1000)
    delivered: int = Field(default=20, ge=0, le=10_000)
    deliveries: bool = False
    clean: list[str] = []
    runtime: list[str] = []
    per_reporter: int = Field(default=20, ge=1, le=1000)
    per_source: int = Field(default=600, ge=1, le=100_000)
    second: float = Field(default=0.1, ge=0, le=1)


class AppealRule(_Strict):
    """`hold`: blocked answers are kept encrypted for 72 hours, so that an appeal can be judged by what was blocked; erased unless there is
    one."""

    hold: bool = False


class ProbeRule(_Strict):
    """Asking the model itself again. `terms_allow`: the operator has read that the model's terms allow it. `answers` of a set, `per_minute`
    calls at most, `most` of one probe, and every `days` once more after a case was closed."""

    terms_allow: bool = False
    answers: int = Field(default=60, ge=60, le=2000)
    per_minute: int = Field(default=120, ge=1, le=6000)
    most: int = Field(default=400, ge=120, le=10_000)
    days: int = Field(default=30, ge=1, le=366)
    temperature: float = Field(default=1.0, ge=0, le=2)
    max_tokens: int = Field(default=512, ge=1, le=8192)


class IdentityPolicy(_Strict):
    """What becomes of a request for whose user nobody vouches (`missing`: no assertion, or one that says that no real name was checked),
    or whose assertion is not believed (`invalid`). Draft Measures, Article 9. `restrict`: the section `restricted` is laid over."""

    missing: Literal["allow", "restrict", "refuse"] = "allow"
    invalid: Literal["restrict", "refuse"] = "refuse"


class SubjectRule(_Strict):
    """What follows for a user, known by a pseudonym alone, who goes on asking for what Article 19 names. `counts`: categories whose
    messages count, [] for all that may. After `warn` such messages in a row a warning, after `limit` only `per_minute` requests, after
    `row` in a row or `day` within 24 hours a suspension for `hours`, the next time within 30 days for `longer`; the `review`th time
    somebody is asked whether to terminate. 0 switches a step off."""

    counts: list[str] = []
    warn: int = Field(default=1, ge=0, le=1000)
    limit: int = Field(default=2, ge=0, le=1000)
    row: int = Field(default=3, ge=0, le=1000)
    day: int = Field(default=5, ge=0, le=1000)
    per_minute: int = Field(default=2, ge=1, le=1000)
    hours: int = Field(default=24, ge=1, le=24 * 30)
    longer: int = Field(default=72, ge=1, le=24 * 30)
    review: int = Field(default=3, ge=2, le=100)


class LabelRule(_Strict):
    """How an answer says that a machine made it (draft Measures, Article 16; Labelling Measures, Articles 4 and 5; GB 45438-2025). `mode`:
    where the visible label stands, at the `start` or `end` of the text or, `interface`, beside it by the app. `producer`: the
    provider's name or code in the metadata; without it none is prepared and pictures are not served."""

    mode: Literal["start", "end", "interface"] = "interface"
    text: Wording = Wording(zh="（AI生成）", en="(AI-generated · AI生成)")
    image: str = Field(default="AI生成", min_length=4, max_length=40)
    producer: str = Field(default="", max_length=128)

    @model_validator(mode="after")
    def _sound(self) -> LabelRule:
        for name, words in (("text.zh", self.text.zh), ("text.en", self.text.en), ("image", self.image)):
            if not labelled(words):
                raise ValueError(f"{name}: must hold 人工智能 or AI, and 生成 or 合成 (GB 45438-2025)")
        if missing := undrawable(self.image):
            raise ValueError(f"image: the label's font has no {missing[0]!r} (docs/labels.md says what it has)")
        if not plain_value(self.producer):
            raise ValueError(
                "producer: only the characters ! # to [ and ] to ~ (GB 45438-2025, Annex E): for a Chinese name use its code"
            )
        return self


class NoticeRule(_Strict):
    """What an answer tells its reader besides (draft Measures, Article 10). `show`: beside the answer (`field`), or at its `end` too.
    `reliance`: topics on which an answer says that it is no substitute for a professional. After each `hours` of use without a break of
    `idle` minutes, and after each `turns` messages, a reminder; 0 for none."""

    show: Literal["field", "end"] = "field"
    reliance: list[Literal["medical", "legal", "financial", "emergency"]] = [
        "medical",
        "legal",
        "financial",
        "emergency",
    ]
    hours: float = Field(default=2, ge=0, le=24)
    turns: int = Field(default=100, ge=0, le=10_000)
    idle: int = Field(default=30, ge=1, le=1440)


class MediaRule(_Strict):
    """Pictures, sounds and files in a prompt are examined by nobody: they pass as `not_examined`, or are refused."""

    not_examined: Literal["pass", "refuse"] = "pass"


class GuidanceRule(_Strict):
    """What users are told about using answers well (Draft Measures, Article 18), and where they report: to the operator (`report`: a path
    here, or a URL) and to the authority. The words themselves stand in policy.yaml."""

    zh: str = Field(default="", min_length=1, max_length=2000)
    en: str = Field(default="", min_length=1, max_length=2000)
    report: str = Field(default="/sluice/v1/reports", max_length=500, pattern=r"^(/|https?://)[^\s{}<>\"']*$")
    authority: str = Field(default="https://www.12377.cn", max_length=500, pattern=r"^https?://[^\s{}<>\"']+$")

    @property
    def version(self) -> str:
        """Changes with the words or the places."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]


class AttributeRule(_Strict):
    """Attributes of the user in a request's `metadata` never reach the model. `strip`: fields that are taken away besides; `keep`:
    attributes that the service needs."""

    strip: list[Annotated[str, Field(min_length=1, max_length=64)]] = []
    keep: list[str] = []


class Surrogate(_Strict):
    """What is shown instead, per language. {category}, {clause}, {decision}, {report} and {authority} are filled in."""

    zh: str = Field(min_length=1, max_length=2000)
    en: str = Field(min_length=1, max_length=2000)


class Rules(_Strict):
    """The part of a policy that an app may have of its own."""

    categories: dict[str, CategoryRule] = {}
    degraded: DegradedRule = DegradedRule()
    suspects: SuspectRule = SuspectRule()
    stream: StreamRule = StreamRule()
    guard: GuardRule = GuardRule()
    reports: ReportRule = ReportRule()
    probes: ProbeRule = ProbeRule()
    appeals: AppealRule = AppealRule()
    identity: IdentityPolicy = IdentityPolicy()
    subjects: SubjectRule = SubjectRule()
    labels: LabelRule = LabelRule()
    notices: NoticeRule = NoticeRule()
    media: MediaRule = MediaRule()
    pace: int = Field(
        default=0, ge=0, le=100_000, description="requests a minute of one user, or of one address; 0: any"
    )
    attributes: AttributeRule = AttributeRule()
    blocked_as: Literal["answer", "error"] = "answer"
    shadow: list[str] = []
    surrogates: dict[str, Surrogate] = {}
    guidance: GuidanceRule = GuidanceRule()
    detector_ms: int = Field(default=300, ge=1, le=60_000)
    max_body_bytes: int = Field(default=4 << 20, ge=1024, le=64 << 20)


class PolicyFile(Rules):
    """policy.yaml."""

    profile: Profile = "draft_2023_04"
    unmoderated_routes: list[str] = []
    apps: dict[str, dict[str, Any] | None] = Field(default={}, description="app -> Rules laid over the common ones")
    minors: dict[str, Any] = Field(
        default={}, description="Rules laid over an app's where its user is said to be a minor"
    )
    restricted: dict[str, Any] = Field(default={}, description="Rules laid over where nobody vouches for the user")


def _fillable(template: str) -> bool:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError:
        return False
    return all(
        name in ("category", "clause", "decision", "report", "authority") and not spec and not conversion
        for name, spec, conversion in fields
    )


def check(file: PolicyFile, own: Mapping[str, Rules], overlaid: Mapping[str, Rules]) -> None:
    known = taxonomy()
    sections = [("", file), *((f"apps.{name}.", rules) for name, rules in own.items()), *overlaid.items()]
    for where, rules in sections:
        for id in rules.categories:
            if id not in known:
                raise PolicyError(f"{where}categories.{id}: no such category; the ids are in docs/categories.md")
        for id in rules.subjects.counts:
            if id not in known or not known[id].counts_for_article_19:
                may = ", ".join(c.id for c in known.values() if c.counts_for_article_19)
                raise PolicyError(
                    f"{where}subjects.counts: {id!r} must not count against a user: Article 19 is about conduct, never about opinions, "
                    f"beliefs, distress or errors; only {may} may"
                )
        for id in rules.reports.runtime:
            if id not in known:
                raise PolicyError(f"{where}reports.runtime: {id!r} is no category; the ids are in docs/categories.md")
        for attribute in rules.attributes.keep:
            if attribute not in ATTRIBUTES:
                raise PolicyError(
                    f"{where}attributes.keep: {attribute!r} is no attribute; they are {', '.join(ATTRIBUTES)}"
                )
        for id, surrogate in rules.surrogates.items():
            if id != "default" and id not in known:
                raise PolicyError(f"{where}surrogates.{id}: no such category ('default' is the one for all others)")
            for language in ("zh", "en"):
                if not _fillable(getattr(surrogate, language)):
                    raise PolicyError(
                        f"{where}surrogates.{id}.{language}: only {{category}}, {{clause}}, {{decision}}, {{report}} and {{authority}} "
                        "may stand in braces"
                    )
        if file.profile == "draft_2023_04" and rules.reports.months > DRAFT_MONTHS:
            raise PolicyError(
                f"{where}reports.months: Article 15 of the draft allows {DRAFT_MONTHS}; a longer period needs profile interim_2023_08"
            )
    for route in file.unmoderated_routes:
        if not route.startswith("/v1/"):
            raise PolicyError(f"unmoderated_routes: {route!r} must begin with /v1/")


def _unique(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    seen: set[Any] = set()
    for key in keys:
        if not isinstance(key, Hashable):
            continue  # no key of a mapping: the constructor says so
        if key in seen:
            raise PolicyError(f"the key {key!r} stands twice in one mapping (line {node.start_mark.line + 1})")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys."""


_Loader.add_constructor("tag:yaml.org,2002:map", _unique)


def read_yaml(raw: bytes, name: str) -> dict[str, Any]:
    """A mapping. Raises PolicyError with the line."""
    try:
        value = yaml.load(raw, _Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        raise PolicyError(f"{name}: not valid YAML" + (f" at line {mark.line + 1}" if mark else "")) from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        # A date that does not exist, a mapping in a mapping in a mapping, a tag that its value does not fit…
        raise PolicyError(f"{name}: not valid YAML") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PolicyError(f"{name}: must be a mapping of keys")
    return value


def faults(e: ValidationError) -> list[tuple[str, str]]:
    """Each wrong field: its path and what is wrong, never its value."""
    return [
        (
            ".".join(map(str, error["loc"])),
            "no such key" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, "),
        )
        for error in e.errors(include_input=False, include_url=False)
    ]


def explain(e: ValidationError, name: str, *above: str) -> str:
    """One line per wrong field: its path (below `above`) and what is wrong."""
    return "\n".join(f"{name}: {'.'.join(filter(None, (*above, where)))}: {what}" for where, what in faults(e))
