"""The `sluice` command. Law: says what is wrong and the way out, in Chinese and English; holds no logic of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.errors import LexiconError, RequestError, SluiceError

if TYPE_CHECKING:
    from app.curation import Tally
    from app.detectors.lexicon import Term
    from app.moderation import Moderator
    from app.policy import Policies
    from app.types import Direction, Scope, Tier

# Each command imports what it needs: `serve` must set the metrics folder before prometheus_client is imported, and
# `check` starts without a server.


def _terms_file(path: Path) -> list[Term]:
    from app import strictjson
    from app.detectors.lexicon import Term, check

    terms = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise LexiconError(f"{path}: cannot be read ({e.strerror})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = strictjson.loads(line)
        except RequestError as e:
            raise LexiconError(f"{where}: {e.message}") from None
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("term"), str)
            or not isinstance(row.get("category"), str)
        ):
            raise LexiconError(
                f'{where}: must be an object like {{"term": "…", "category": "violence", "tier": "certain"}}'
            )
        if extra := sorted(set(row) - {"term", "category", "tier"}):
            raise LexiconError(f"{where}: unknown key {extra[0]!r}")
        terms.append(check(Term(row["term"].strip(), row["category"], cast("Tier", row.get("tier", "certain"))), where))
    return terms


def _every_category_blocks() -> Policies:
    from app.policy import CategoryRule, Policies, Policy, Rules, taxonomy

    rules = Rules(categories={id: CategoryRule(answer="block", prompt="block") for id in taxonomy()})
    return Policies(Policy(rules, "draft_2023_04", "terms"), {})


def _check_moderator(args: argparse.Namespace) -> Moderator:
    from app import policy, settings
    from app.detectors import readers, shipped
    from app.detectors.blocklist import Blocklist
    from app.detectors.lexicon import Lexicon, cues, load, phrases
    from app.detectors.rules import Rules
    from app.detectors.rules import load as load_rules
    from app.moderation import Moderator

    conf = settings.read(policy=args.policy)
    if args.terms:
        lexicon = Lexicon(_terms_file(args.terms), phrases(conf.lexicons))
        rules = policy.load(conf.policy) if args.policy else _every_category_blocks()
        return Moderator([lexicon], rules, [lexicon])
    lexicon = Lexicon(load(conf.lexicons), phrases(conf.lexicons), cues(conf.lexicons))
    blocklist = Blocklist()
    detectors = shipped(lexicon, blocklist, Rules(load_rules(conf.lexicons)))
    return Moderator(detectors, policy.load(conf.policy), readers(lexicon, blocklist))


def _check_one(moderator: Moderator, row: Any, scope: Scope, stream: bool) -> dict[str, Any]:
    from app.moderation import conclude

    if not isinstance(row, dict):
        raise RequestError("a line must be a JSON object", code="invalid_type")
    name = "chunks" if stream else "text"
    chunks = row.get("chunks") if stream else [row.get("text")]
    if not isinstance(chunks, list) or not all(isinstance(c, str) for c in chunks):
        raise RequestError(f"{name!r} must be {'a list of strings' if stream else 'a string'}", code="invalid_type")
    policy = moderator.policies.common
    channel = moderator.channel(scope, policy)
    released = [channel.push(c) for c in chunks]
    released.append(channel.finish())
    verdict = conclude([channel], policy, scope)
    delivered = "".join(released)
    out: dict[str, Any] = {
        "id": row.get("id"),
        "action": verdict.action.word,
        "categories": verdict.categories,
        "findings": [f.public() for f in verdict.findings],
        "delivered": "" if verdict.action.stops and not stream else delivered,
        "degraded": verdict.degraded,
    }
    if stream:
        out["released"] = released
    return out


def _lines() -> Iterator[bytes]:
    return iter(sys.stdin.buffer)


def check_command(args: argparse.Namespace) -> int:
    """`sluice check`: JSON lines in, a verdict a line out, in order."""
    from app import strictjson
    from app.types import Scope

    moderator = _check_moderator(args)
    scope = Scope("default", cast("Direction", args.direction))
    out = sys.stdout.buffer
    status = 0
    for number, line in enumerate(_lines(), 1):
        if not line.strip():
            continue
        try:
            result = _check_one(moderator, strictjson.loads(line), scope, args.stream)
        except RequestError as e:
            status, result = 1, {"error": e.message, "line": number}
        out.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        out.flush()
    return status


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    names = ("host", "port", "ops_port", "admin_port", "workers", "data_dir", "upstream_url", "policy")
    return {name: getattr(args, name, None) for name in names}


def serve_command(args: argparse.Namespace) -> int:
    """`sluice serve`: the gateway, until SIGTERM."""
    from app import settings

    os.umask(0o077)
    conf = settings.read(**_overrides(args))
    folder = settings.metrics_folder(conf)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    from app import server

    return server.serve(conf)


def doctor_command(args: argparse.Namespace) -> int:
    """`sluice doctor`: effective settings, secrets masked, and what is wrong with them."""
    from app import doctor

    return doctor.run()


def demo_command(args: argparse.Namespace) -> int:
    """`sluice demo`: a gateway before a stand-in model, and a short conversation through it."""
    from app.demo import story

    return story.run(stay=args.serve)


def _folder(args: argparse.Namespace) -> Path:
    from app import settings

    return settings.read(lexicons=args.lexicons).lexicons


def lexicon_lint(args: argparse.Namespace) -> int:
    """`sluice lexicon lint`: a line for each problem."""
    from app import curation

    problems = curation.lint(_folder(args), args.corpus or ())
    for p in problems:
        print(f"{p.where}: {curation.KINDS[p.kind]} {p.kind}: {p.said}")
    print(f"问题 problems: {len(problems)}")
    return 1 if problems else 0


def lexicon_diff(args: argparse.Namespace) -> int:
    """`sluice lexicon diff`: what two folders do not have in common."""
    from dataclasses import asdict

    from app import curation

    found = curation.diff(args.old, args.new)
    if args.json:
        print(json.dumps({category: asdict(d) for category, d in found.items()}, ensure_ascii=False))
        return 1 if found else 0
    for category, d in found.items():
        print(f"{category}: 新增 added {len(d.added)}, 删除 removed {len(d.removed)}, 修改 changed {len(d.changed)}")
        for sign, terms in (("+", d.added), ("-", d.removed)):
            for term in terms:
                print(f"  {sign} {term}")
        for term, cells in d.changed.items():
            print(f"  ~ {term}: " + "; ".join(f"{name}: {was or '-'} → {now or '-'}" for name, was, now in cells))
    if not found:
        print("相同 equal")
    return 1 if found else 0


_WHAT = {"added": "新增", "unchanged": "不变", "updated": "更新", "removed": "删除", "refused": "拒绝"}


def lexicon_import(args: argparse.Namespace) -> int:
    """`sluice lexicon import`: terms from a file; a dry run unless --apply."""
    from app import curation

    plan = curation.plan(
        _folder(args), args.file, args.category, owner=args.owner, reason=args.reason, basis=args.basis,
        tier=args.tier or "", replace_all=args.replace, shrink=args.shrink,
    )  # fmt: skip
    for c in plan.changes:
        if c.what != "unchanged" or c.notes:
            notes = "".join(f"; {note}" for note in c.notes)
            allow = f"; 可放行 allow? {'|'.join(c.allow)}" if c.allow else ""
            print(f"{c.where}: {_WHAT[c.what]} {c.what}: {c.term} {c.tier}".rstrip() + notes + allow)
    print(", ".join(f"{_WHAT[name]} {name} {count}" for name, count in plan.counts.items()))
    if plan.against:
        print(f"拒绝 refused: {plan.against}; 确实如此请加 --shrink if that is meant", file=sys.stderr)
        return 1
    if args.apply:
        curation.apply(plan)
        print(f"已写入 written: {plan.path}")
    else:
        print("试运行，未写入；加 --apply 写入 · a dry run, nothing is written; --apply writes it")
    return 1 if plan.counts["refused"] else 0


def _share(found: int, count: int) -> str:
    return f"{found}/{count}" + (f" ({found / count:.1%})" if count else "")


def lexicon_audit(args: argparse.Namespace) -> int:
    """`sluice lexicon audit`: each risk type as its files stand."""
    from dataclasses import asdict

    from app import curation

    accounts = curation.audit(_folder(args))
    if args.json:
        print(json.dumps([asdict(a) for a in accounts], ensure_ascii=False, default=str))
        return 0
    for a in accounts:
        print(f"{a.category} · {a.zh} · {a.clause}")
        print(f"  词条 terms: certain {a.certain}, suspect {a.suspect}")
        if a.certain or a.suspect:
            print(f"  召回 recall on its hit sentences: {_share(*a.recall)}")
            print(f"  误中 false hits: own clean {_share(*a.false_own)}, others' clean {_share(*a.false_other)}")
            print(f"  最近新增 newest: {a.newest or '-'}" + (f", {a.age_days} 天 days ago" if a.newest else ""))
        for term, day in a.expiring:
            print(f"  即将过期 expires {day}: {term}")
    return 0


def lexicon_test(args: argparse.Namespace) -> int:
    """`sluice lexicon test`: the lexicon's own sentences, or a suite of disguises and look-alikes."""
    from dataclasses import asdict

    from app import curation
    from app.detectors.lexicon import phrases

    folder = _folder(args)
    if args.suite is None:
        own = curation.test(folder)
        if args.json:
            print(json.dumps(asdict(own), ensure_ascii=False))
        else:
            for p in own.failed:
                print(f"{p.where}: {curation.KINDS[p.kind]} {p.kind}: {p.said}")
            print(f"应中 hit {own.hits}, 干净 clean {own.clean}, 失败 failed {len(own.failed)}")
        return 1 if own.failed else 0
    terms = _terms_file(args.suite / "terms.jsonl")
    suite = curation.suite(args.suite, terms, phrases(folder), _every_category_blocks())
    if args.json:
        print(json.dumps(asdict(suite), ensure_ascii=False))
    else:
        _print_tallies("召回 recall", suite.recall)
        _print_tallies("误中 false hits", suite.false)
        print(f"语境 context: {suite.context}, 标记 flagged {suite.flagged}, 拦截 stopped {len(suite.stopped)}")
        for id in suite.stopped:
            print(f"  {id}")
    return 1 if suite.stopped else 0


def _print_tallies(title: str, tallies: dict[str, Tally]) -> None:
    languages = sorted({language for t in tallies.values() for language in t.by_language})
    print(title)
    for name, t in tallies.items():
        parts = ", ".join(f"{language} {_share(*t.by_language[language])}" for language in sorted(t.by_language))
        print(f"  {name}: {_share(t.found, t.all)} · {parts}")
    for language in languages:
        pairs = [t.by_language.get(language, (0, 0)) for t in tallies.values()]
        print(f"  总计 total {language}: {_share(sum(p[0] for p in pairs), sum(p[1] for p in pairs))}")
    print(f"  总计 total: {_share(sum(t.found for t in tallies.values()), sum(t.all for t in tallies.values()))}")


def _lexicon_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser(
        "lexicon", help="lint, compare, import and measure lexicon files · 词库的检查、比较、导入与度量"
    )
    kinds = c.add_subparsers(dest="lexicon_command", required=True, metavar="COMMAND")

    def add(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = kinds.add_parser(name, help=help)
        made.set_defaults(run=run)
        return made

    def of_a_folder(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--lexicons", type=Path, metavar="FOLDER", help="a folder instead of SLUICE_LEXICONS")
        return made

    a = of_a_folder(add("lint", "every problem of every file · 检查词库", lexicon_lint))
    a.add_argument("--corpus", type=Path, nargs="+", metavar="FILE", help="clean text, a text a line")
    a = add("diff", "what two folders do not have in common · 比较两个词库", lexicon_diff)
    a.add_argument("old", type=Path, metavar="OLD")
    a.add_argument("new", type=Path, metavar="NEW")
    a.add_argument("--json", action="store_true")
    a = of_a_folder(add("import", "terms from CSV, TSV or TXT; a dry run first · 导入词条", lexicon_import))
    a.add_argument("file", type=Path, metavar="FILE")
    a.add_argument("--category", required=True, metavar="ID")
    a.add_argument("--owner", required=True, metavar="NAME")
    a.add_argument("--reason", required=True, metavar="TEXT")
    a.add_argument("--basis", default="", metavar="TEXT", help="legal basis, for persons, places and organisations")
    a.add_argument("--tier", choices=["suspect", "certain"], help="of lines that name none; suspect if not given")
    a.add_argument("--replace", action="store_true", help="the file is the whole list of the category")
    a.add_argument("--shrink", action="store_true", help="allow the category to lose more than 20%% of its terms")
    a.add_argument("--apply", action="store_true", help="write it")
    a = of_a_folder(add("audit", "counts beside measured recall and false hits · 词库审计", lexicon_audit))
    a.add_argument("--json", action="store_true")
    a = of_a_folder(add("test", "sentences through the engine · 词库测试", lexicon_test))
    a.add_argument("--suite", type=Path, metavar="FOLDER", help="terms, cases, clean and context .jsonl")
    a.add_argument("--json", action="store_true")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="sluice", description="生成式 AI 内容审核网关 · a content-moderation gateway for generative AI"
    )
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    c = commands.add_parser("check", help="screen JSON lines from stdin · 审核标准输入中的 JSON 行")
    c.add_argument("--direction", choices=["answer", "prompt"], default="answer")
    c.add_argument("--stream", action="store_true", help='lines are {"chunks": [...]}: screen them as a stream')
    c.add_argument("--policy", type=Path, help="a policy file instead of SLUICE_POLICY")
    c.add_argument("--terms", type=Path, help="only these terms (JSON lines), every category blocks")
    c.set_defaults(run=check_command)

    c = commands.add_parser("serve", help="run the gateway · 运行网关")
    c.add_argument("--workers", type=int)
    c.add_argument("--host")
    c.add_argument("--port", type=int)
    c.add_argument("--ops-port", type=int)
    c.add_argument("--admin-port", type=int)
    c.add_argument("--data-dir", type=Path)
    c.add_argument("--upstream-url")
    c.add_argument("--policy", type=Path)
    c.set_defaults(run=serve_command)

    c = commands.add_parser("doctor", help="check this machine and the settings · 检查环境与配置")
    c.set_defaults(run=doctor_command)

    _lexicon_parser(commands)

    c = commands.add_parser("demo", help="a gateway before a stand-in model · 演示")
    c.add_argument("--serve", action="store_true", help="stay up afterwards")
    c.set_defaults(run=demo_command)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some input was wrong, 2 refused to start."""
    args = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except SluiceError as e:
        print(f"sluice: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
