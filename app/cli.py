"""The `sluice` command. Law: says what is wrong and the way out, in Chinese and English; holds no logic of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.curation.commands import add_parser as lexicon_parser
from app.errors import RequestError, SettingsError, SluiceError
from app.evaluation.commands import add_parser as eval_parser
from app.fairness.commands import add_parser as pairs_parser
from app.lists import add_parser as list_parser
from app.office import add_parsers as office_parsers
from app.training.commands import add_parser as train_parser

if TYPE_CHECKING:
    from app.moderation import Moderator
    from app.types import Direction, Scope

# Each command imports what it needs: `serve` must set the metrics folder before prometheus_client is imported, and
# `check` starts without a server.


def _check_moderator(args: argparse.Namespace) -> Moderator:
    from app import pipeline, policy, settings
    from app.curation import suite
    from app.detectors.lexicon import phrases

    conf = settings.read(policy=args.policy)
    if args.terms:
        policies = policy.load(conf.policy) if args.policy else None
        return suite.only(suite.terms(args.terms), phrases(conf.lexicons), policies)
    return pipeline.moderator(conf)


def _check_one(moderator: Moderator, row: Any, scope: Scope, stream: bool) -> dict[str, Any]:
    from app.pipeline import screened

    if not isinstance(row, dict):
        raise RequestError("a line must be a JSON object", code="invalid_type")
    name = "chunks" if stream else "text"
    chunks = row.get("chunks") if stream else [row.get("text")]
    if not isinstance(chunks, list) or not all(isinstance(c, str) for c in chunks):
        raise RequestError(f"{name!r} must be {'a list of strings' if stream else 'a string'}", code="invalid_type")
    verdict, released, _ = screened(moderator, chunks, scope)
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


def policy_check_command(args: argparse.Namespace) -> int:
    """`sluice policy check`: what is wrong with a policy file, and what it would change."""
    from app import policy, settings
    from app.proposal import policy_check

    try:
        raw = args.file.read_bytes()
    except OSError as e:
        raise SettingsError(f"{args.file}: cannot be read 无法读取 ({e.strerror})") from None
    found = policy_check(raw, policy.load(settings.read().policy))
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0 if found["ok"] else 1
    for error in found["errors"]:
        print(f"{error['where']}: {error['message']}" if error["where"] else error["message"], file=sys.stderr)
    for c in found["changes"]:
        mode = f" ({c['mode']})" if c["mode"] else ""
        print(f"{c['app']}{mode}  {c['category']}  {c['direction']}: {c['from']} → {c['to']}")
    for c in found["rules"]:
        mode = f" ({c['mode']})" if c["mode"] else ""
        print(
            f"{c['app']}{mode}  {c['rule']}: {json.dumps(c['from'], ensure_ascii=False)} → {json.dumps(c['to'], ensure_ascii=False)}"
        )
    if found["ok"]:
        changes = len(found["changes"]) + len(found["rules"])
        print(f"可以加载 can be loaded: {args.file}, {changes} 处变化 changes", file=sys.stderr)
    return 0 if found["ok"] else 1


def policy_show_command(args: argparse.Namespace) -> int:
    """`sluice policy show`: what the policy that is set does about every category."""
    from app import policy, settings
    from app.taxonomy import taxonomy

    policies = policy.load(settings.read().policy)
    for app, rules in {"*": policies.common, **policies.apps}.items():
        if args.app and app != args.app:
            continue
        print(f"{app}  {rules.profile}  {rules.version}")
        for category in taxonomy().values():
            words = (rules.usual(category.id, direction).word for direction in ("prompt", "answer"))
            shadow = "  影子 shadow" if category.id in rules.shadow else ""
            print(f"  {category.id:<28} {'  '.join(f'{word:<8}' for word in words)}{shadow}  {category.zh}")
    return 0


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


def backup_command(args: argparse.Namespace) -> int:
    """`sluice backup`: one moment of the store, in a file."""
    from app import backup

    return backup.backup_command(args)


def restore_command(args: argparse.Namespace) -> int:
    """`sluice restore`: a backup, put into force."""
    from app import restore

    return restore.restore_command(args)


def demo_command(args: argparse.Namespace) -> int:
    """`sluice demo`: a gateway before a stand-in model, and a short conversation through it."""
    from app.demo import story

    return story.run(stay=args.serve)


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

    eval_parser(commands)

    pairs_parser(commands)

    train_parser(commands)

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

    c = commands.add_parser("policy", help="the policy file · 策略文件")
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    q = what.add_parser("check", help="a file before it is loaded: its faults, and what it would change · 加载前检查")
    q.add_argument("file", type=Path, metavar="FILE")
    q.add_argument("--json", action="store_true", help="as JSON · 以 JSON 输出")
    q.set_defaults(run=policy_check_command)
    q = what.add_parser("show", help="what is done about every category · 查看生效动作")
    q.add_argument("--app", help="of one section alone; *: the common one · 只看一个应用")
    q.set_defaults(run=policy_show_command)

    lexicon_parser(commands)

    office_parsers(commands)

    list_parser(commands)

    c = commands.add_parser("backup", help="the store and the logs in one file · 备份")
    c.add_argument("file", type=Path, metavar="FILE", help="a .tar.gz, for you alone · 仅本人可读")
    c.add_argument("--force", action="store_true", help="write over FILE · 覆盖已有文件")
    c.add_argument("--journal", action="store_true", help="the decision records of DATA_DIR too · 含日志")
    c.add_argument(
        "--secret-key", action="store_true", help="DATA_DIR/secret_key too: whoever has FILE can open it · 含密钥"
    )
    c.set_defaults(run=backup_command)

    c = commands.add_parser("restore", help="put a backup into force · 恢复")
    c.add_argument("file", type=Path, metavar="FILE")
    c.add_argument(
        "--replace",
        action="store_true",
        help="in the place of what is there, once that is backed up beside FILE · 替换现有数据",
    )
    c.add_argument(
        "--without-keys",
        action="store_true",
        help="although what needs keys that are not here cannot be opened · 缺少密钥也恢复",
    )
    c.set_defaults(run=restore_command)

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
