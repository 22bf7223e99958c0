"""`sluice pairs`. Law: nothing is asked before the operator has said that the model's terms allow it; a report is written whole or not at
all, and holds no answer; imports what it needs, as in app/cli.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import PolicyError, SettingsError, UpstreamError

if TYPE_CHECKING:
    from app.moderation import Moderator
    from app.pairs import Answer, Language, Prompt
    from app.policyfile import ProbeRule
    from app.probes import Said
    from app.settings import Settings

_TOGETHER = 20
"""Questions put before the next ones are; where none of the first has an answer, nothing more is asked."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser(
        "pairs",
        help="does the model treat people alike who differ in one attribute? · 成对提问：模型是否因属性不同而区别对待",
    )
    c.add_argument("--model", required=True, metavar="NAME", help="as the model's server names it · 模型名称")
    c.add_argument("--language", choices=["zh", "en", "both"], default="both", help="default both · 语言，默认两种")
    c.add_argument(
        "--attribute", nargs="+", action="extend", metavar="A",
        help="race ethnicity belief nationality region gender age occupation health; default all · 属性，默认全部",
    )  # fmt: skip
    c.add_argument(
        "--answers", type=_between(2, 200), default=5, metavar="N",
        help="to each question for each value, default 5 · 每问每个取值的回答数，默认 5",
    )  # fmt: skip
    c.add_argument(
        "--per-minute", type=_between(1, 6000), metavar="N",
        help="instead of probes.per_minute of the policy · 每分钟提问数",
    )  # fmt: skip
    c.add_argument(
        "--most", type=_between(1, 100_000), default=2500, metavar="N",
        help="a run that would ask more is refused, default 2500 · 提问总数上限，默认 2500",
    )  # fmt: skip
    c.add_argument("--seed", type=_between(0, 2**32), default=0, help="of the order and the permutations · 随机种子")
    c.add_argument("--policy", type=Path, help="a policy file instead of SLUICE_POLICY · 策略文件")
    c.add_argument(
        "--keep-answers", action="store_true",
        help="write the answers too (answers.jsonl, readable by you alone) · 同时保存回答",
    )  # fmt: skip
    c.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder · 新的输出目录")
    c.set_defaults(run=pairs_command)


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if least <= (value := int(text)) <= most:
            return value
        raise argparse.ArgumentTypeError(f"must be from {least} to {most}")

    return number


class _Heard(NamedTuple):
    """What was said to all prompts (in their order), and the name and version that the model gave itself."""

    said: list[Said | None]
    model: str
    version: str


def pairs_command(args: argparse.Namespace) -> int:
    """`sluice pairs`. Exit status 1 if some comparison is significant."""
    import asyncio

    from app import clock, pairs, pipeline, settings
    from app.fairness import page
    from app.fairness.report import Run, report

    conf = settings.read(policy=args.policy)
    if reasons := settings.unsafe(conf, app_keys=True):
        raise SettingsError("refusing to start:\n- " + "\n- ".join(reasons))
    moderator = pipeline.moderator(conf)
    rule = moderator.policies.common.rules.probes
    if not rule.terms_allow:
        raise PolicyError(
            "nothing is asked before you have read that the model's terms allow it: set probes.terms_allow: true in the policy "
            "(请先确认模型的服务条款允许此类提问，再在策略中设置 probes.terms_allow: true)"
        )
    if args.per_minute:
        rule = rule.model_copy(update={"per_minute": args.per_minute})
    attributes = _attributes(args.attribute)
    languages: list[Language] = ["zh", "en"] if args.language == "both" else [args.language]
    prompts = pairs.prompts(attributes, languages, args.answers, args.seed)
    if len(prompts) > args.most:
        raise SettingsError(
            f"sluice pairs: would ask {len(prompts):,} questions, --most is {args.most:,}: fewer --attribute, --answers or one "
            "--language, or a higher --most (提问数超过 --most：请减少属性、回答数或语言，或调高 --most)"
        )
    _fresh(args.out)
    _say(f"{len(prompts):,} 次提问 questions, 约 about {len(prompts) / rule.per_minute:.0f} 分钟 minutes")
    began = clock.now()
    heard = asyncio.run(_asked(conf, args.model, rule, [p.text for p in prompts]))
    answers = [_answer(moderator, p, s) for p, s in zip(prompts, heard.said, strict=True)]
    made = report(
        Run(
            clock.stamp(began), clock.stamp(), args.model, heard.model, heard.version, attributes, languages, args.answers, args.seed,
            {"temperature": rule.temperature, "max_tokens": rule.max_tokens, "per_minute": rule.per_minute},
            moderator.policies.common.profile,
            {
                "policy": moderator.policies.common.version, "pairs": pairs.material().version,
                **{d.name: d.version for d in moderator.detectors}, **{s.name: s.version for s in moderator.scorers},
            },
        ),
        answers,
        pairs.compared(answers, args.seed),
    )  # fmt: skip
    if args.keep_answers:
        _private(args.out / "answers.jsonl", "".join(map(_line, prompts, heard.said, answers)))
    _private(args.out / "report.json", json.dumps(made, ensure_ascii=False, indent=1) + "\n")
    _private(args.out / "report.html", page.html(made))
    counts = made["counts"]
    _say(
        f"{args.out}: {counts['significant']} 项差异显著，共 {counts['comparisons']} 项比较 of {counts['comparisons']} comparisons "
        f"{counts['significant']} significant; 拒答 refused {counts['refused']}, 无回答 unanswered {counts['unanswered']}"
    )
    return 1 if counts["significant"] else 0


def _attributes(named: Sequence[str] | None) -> list[str]:
    from app import pairs

    known = pairs.material().attributes
    for id in named or ():
        if id not in known:
            raise SettingsError(f"--attribute {id}: no such attribute (没有这个属性); there are {', '.join(known)}")
    return [id for id in known if named is None or id in named]


async def _asked(conf: Settings, model: str, rule: ProbeRule, prompts: Sequence[str]) -> _Heard:
    """Past the filter. Raises UpstreamError where the model says nothing at all."""
    from app.probes import Asking
    from app.upstream import Upstream

    upstream = Upstream(conf.upstream_url, conf.upstream_key, conf, credentials=False)
    asking = Asking(upstream, model, {"temperature": rule.temperature, "max_tokens": rule.max_tokens}, rule)
    said: list[Said | None] = []
    await upstream.outbound.start()
    try:
        for first in range(0, len(prompts), _TOGETHER):
            said += await asking.said(prompts[first : first + _TOGETHER])
            if said.count(None) == len(said):
                raise UpstreamError(
                    f"the model gave no answer to the first {len(said)} questions; look at SLUICE_UPSTREAM_URL, SLUICE_UPSTREAM_KEY "
                    "and --model (模型没有给出任何回答：请检查地址、密钥与模型名称)",
                    code="upstream_unreachable",
                )
    finally:
        await upstream.outbound.close()
    return _Heard(said, asking.model, asking.version)


def _answer(moderator: Moderator, prompt: Prompt, said: Said | None) -> Answer:
    from app import pairs
    from app.pipeline import screened
    from app.types import Action, Scope

    if said is None:
        return pairs.Answer(prompt, "unanswered")
    if said.filtered or pairs.refused(said.text):
        return pairs.Answer(prompt, "refused")
    text = pairs.material().attributes[prompt.attribute].masked(said.text, prompt.language)
    findings = screened(moderator, [text], Scope("default", "answer")).verdict.findings
    found = frozenset(f.category for f in findings if f.action >= Action.FLAG and not f.shadow)
    return pairs.Answer(prompt, "answered", len(text), pairs.words(text), found)


def _line(prompt: Prompt, said: Said | None, answer: Answer) -> str:
    row: dict[str, Any] = {**prompt._asdict(), "outcome": answer.outcome, "answer": None if said is None else said.text}
    return json.dumps(row | {"prompt": row.pop("text")}, ensure_ascii=False) + "\n"


def _fresh(out: Path) -> None:
    """Make a folder to write to. Raises SettingsError if there is something in it."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise SettingsError(f"{out}: is not empty; name a new folder (请指定新目录)")
    except OSError as e:
        raise SettingsError(f"{out}: cannot be written ({e.strerror})") from None


def _private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        # Half of an emoji may stand in an answer.
        f.write(text.encode("utf-8", "replace"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
