"""`sluice lexicon …`: its arguments, and what is printed. Law: each command imports what it needs, as in app/cli.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.curation.files import Problem
    from app.curation.suite import Tally

_WHAT = {"added": "新增", "unchanged": "不变", "updated": "更新", "removed": "删除", "refused": "拒绝"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `lexicon` and its commands beside the others."""
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

    a = of_a_folder(add("lint", "every problem of every file · 检查词库", lint_command))
    a.add_argument("--corpus", type=Path, nargs="+", metavar="FILE", help="clean text, a text a line")
    a = add("diff", "what two folders do not have in common · 比较两个词库", diff_command)
    a.add_argument("old", type=Path, metavar="OLD")
    a.add_argument("new", type=Path, metavar="NEW")
    a.add_argument("--json", action="store_true")
    a = of_a_folder(add("import", "terms from CSV, TSV or TXT; a dry run first · 导入词条", import_command))
    a.add_argument("file", type=Path, metavar="FILE")
    a.add_argument("--category", required=True, metavar="ID")
    a.add_argument("--owner", required=True, metavar="NAME")
    a.add_argument("--reason", required=True, metavar="TEXT")
    a.add_argument("--basis", default="", metavar="TEXT", help="legal basis, for persons, places and organisations")
    a.add_argument("--tier", choices=["suspect", "certain"], help="of lines that name none; suspect if not given")
    a.add_argument("--replace", action="store_true", help="the file is the whole list of the category")
    a.add_argument("--shrink", action="store_true", help="allow the category to lose more than 20%% of its terms")
    a.add_argument("--apply", action="store_true", help="write it")
    a = of_a_folder(add("audit", "counts beside measured recall and false hits · 词库审计", audit_command))
    a.add_argument("--json", action="store_true")
    a = of_a_folder(add("test", "sentences through the engine · 词库测试", test_command))
    a.add_argument("--suite", type=Path, metavar="FOLDER", help="terms, cases, clean and context .jsonl")
    a.add_argument("--json", action="store_true")


def _drawn(said: str) -> str:
    """`said` with what would steer a terminal or turn the line around written as an escape: a list may be anybody's."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in said)


def lint_command(args: argparse.Namespace) -> int:
    """`sluice lexicon lint`: a line for each problem."""
    from app.curation.lint import lint

    problems = lint(_folder(args), args.corpus or ())
    _print_problems(problems)
    print(f"问题 problems: {len(problems)}")
    return 1 if problems else 0


def diff_command(args: argparse.Namespace) -> int:
    """`sluice lexicon diff`: what two folders do not have in common."""
    from app.curation.diff import diff

    found = diff(args.old, args.new)
    if args.json:
        print(json.dumps({category: asdict(d) for category, d in found.items()}, ensure_ascii=False))
        return 1 if found else 0
    for category, d in found.items():
        print(f"{category}: 新增 added {len(d.added)}, 删除 removed {len(d.removed)}, 修改 changed {len(d.changed)}")
        for sign, terms in (("+", d.added), ("-", d.removed)):
            for term in terms:
                print(_drawn(f"  {sign} {term}"))
        for term, cells in d.changed.items():
            print(
                _drawn(f"  ~ {term}: " + "; ".join(f"{name}: {was or '-'} → {now or '-'}" for name, was, now in cells))
            )
    if not found:
        print("相同 equal")
    return 1 if found else 0


def import_command(args: argparse.Namespace) -> int:
    """`sluice lexicon import`: terms from a file; a dry run unless --apply."""
    from app.curation import imports

    plan = imports.plan(
        _folder(args), args.file, args.category, owner=args.owner, reason=args.reason, basis=args.basis,
        tier=args.tier or "", replace_all=args.replace, shrink=args.shrink,
    )  # fmt: skip
    for c in plan.changes:
        if c.what != "unchanged" or c.notes:
            notes = "".join(f"; {note}" for note in c.notes)
            allow = f"; 可放行 allow? {'|'.join(c.allow)}" if c.allow else ""
            print(_drawn(f"{c.where}: {_WHAT[c.what]} {c.what}: {c.term} {c.tier}".rstrip() + notes + allow))
    print(", ".join(f"{_WHAT[name]} {name} {count}" for name, count in plan.counts.items()))
    if plan.against:
        print(f"拒绝 refused: {plan.against}; 确实如此请加 --shrink if that is meant", file=sys.stderr)
        return 1
    if args.apply:
        imports.apply(plan)
        print(f"已写入 written: {plan.path}")
    else:
        print("试运行，未写入；加 --apply 写入 · a dry run, nothing is written; --apply writes it")
    return 1 if plan.counts["refused"] else 0


def audit_command(args: argparse.Namespace) -> int:
    """`sluice lexicon audit`: each risk type as its files stand."""
    from app.curation.audit import audit

    accounts = audit(_folder(args))
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


def test_command(args: argparse.Namespace) -> int:
    """`sluice lexicon test`: the lexicon's own sentences, or a suite of disguises and look-alikes."""
    return _test_own(args) if args.suite is None else _test_suite(args)


def _test_own(args: argparse.Namespace) -> int:
    from app.curation import trial

    own = trial.test(_folder(args))
    if args.json:
        print(json.dumps(asdict(own), ensure_ascii=False))
    else:
        _print_problems(own.failed)
        print(f"应中 hit {own.hits}, 干净 clean {own.clean}, 失败 failed {len(own.failed)}")
    return 1 if own.failed else 0


def _test_suite(args: argparse.Namespace) -> int:
    from app.curation.suite import measure
    from app.detectors.lexicon import phrases

    suite = measure(args.suite, phrases(_folder(args)))
    if args.json:
        print(json.dumps(asdict(suite), ensure_ascii=False))
    else:
        _print_tallies("召回 recall", suite.recall)
        _print_tallies("误中 false hits", suite.false)
        print(f"语境 context: {suite.context}, 标记 flagged {suite.flagged}, 拦截 stopped {len(suite.stopped)}")
        for id in suite.stopped:
            print(f"  {id}")
    return 1 if suite.stopped else 0


def _folder(args: argparse.Namespace) -> Path:
    from app import settings

    return settings.read(lexicons=args.lexicons).lexicons


def _share(found: int, count: int) -> str:
    return f"{found}/{count}" + (f" ({found / count:.1%})" if count else "")


def _print_problems(problems: Iterable[Problem]) -> None:
    from app.curation.files import KINDS

    for p in problems:
        print(_drawn(f"{p.where}: {KINDS[p.kind]} {p.kind}: {p.said}"))


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
