"""`sluice case …`, `sluice statement …`, `sluice evidence …` and `sluice privacy …`: the admin API from the command line. Law: nothing
is done here that the API would not do, and write down, for anybody."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from app import clock, settings
from app.errors import SettingsError, SluiceError


class OfficeError(SluiceError):
    """The admin API refused, or nobody answers there; the message says which."""


def call(method: str, path: str, body: Any = None, url: str | None = None) -> Any:
    """The answer of the admin API to one call. `url`: of its listener. Raises OfficeError, SettingsError."""
    conf = settings.read()
    tokens = list(settings.admins(conf.admin_token or ""))
    if not tokens:
        raise SettingsError("SLUICE_ADMIN_TOKEN must be set (需要管理令牌)")
    host = f"[{conf.admin_host}]" if ":" in conf.admin_host else conf.admin_host
    base = url or f"http://{host}:{conf.admin_port}"
    if not base.startswith(("http://", "https://")):
        raise OfficeError(f"--admin: {base}: must be an address like http://127.0.0.1:8102 必须是 http 地址")
    request = urllib.request.Request(
        f"{base.rstrip('/')}/sluice/v1/admin{path}", method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {tokens[0]}", "Content-Type": "application/json"},
    )  # fmt: skip
    # No proxy of the environment: what goes there is evidence.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        try:
            message = json.load(e)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = e.reason
        raise OfficeError(f"{e.code}: {message}") from None
    except OSError as e:
        raise OfficeError(
            f"{base} cannot be reached: is `sluice serve` running? 管理端口连不上 ({type(e).__name__})"
        ) from None


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser("case", help="cases: from a report to proof · 案件")
    c.add_argument(
        "--admin", metavar="URL", help="the admin listener; default: SLUICE_ADMIN_HOST and SLUICE_ADMIN_PORT"
    )
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    p = what.add_parser("list", help="what waits to be worked on · 待办列表")
    p.add_argument("--state", help="only those in this state")
    p.add_argument("--page", type=int, default=1)
    p.set_defaults(run=list_command)
    p = what.add_parser("show", help="one case · 查看案件")
    p.add_argument("case", help="a case or a ticket")
    p.set_defaults(run=show_command)
    p = what.add_parser("probe", help="have the model asked again, past the filter · 复测")
    p.add_argument("case")
    p.add_argument("--model", help="the name of the model to ask; default: as the last time")
    p.add_argument("--prompt", help="where the report came without one")
    p.add_argument("--variant", action="append", default=[], help="a paraphrase of the prompt; may be given again")
    p.set_defaults(run=probe_command)
    p = what.add_parser("export", help="training sets from confirmed cases · 导出训练数据")
    p.add_argument("--out", type=Path, required=True, help="a folder")
    p.add_argument("--case", action="append", default=[], dest="cases", help="only this one; may be given again")
    p.set_defaults(run=export_command)
    p = what.add_parser("close", help="by a written exception; a passing probe closes by itself · 书面例外结案")
    p.add_argument("case")
    p.add_argument("--reason", required=True)
    p.add_argument("--role", required=True, help="whose decision it is · 决定人的职务")
    p.set_defaults(run=close_command)

    c = commands.add_parser("statement", help="what the operator publishes of its service · 公示与文件")
    c.add_argument("--admin", metavar="URL")
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    p = what.add_parser("publish", help="the next version of a statement · 发布新版本")
    p.add_argument("kind", metavar="KIND", help="disclosure, or that of a document: docs/disclosure.md · 种类")
    p.add_argument(
        "file", type=Path, metavar="FILE", help="YAML or JSON: fields, or zh and en; else a text · 字段或文本"
    )
    p.add_argument("--private", action="store_true", help="for the authority only · 不对外公开")
    p.add_argument("--note", default="", help="why, for your own people · 内部备注")
    p.set_defaults(run=publish_command)
    p = what.add_parser("list", help="every version · 所有版本")
    p.set_defaults(run=statements_command)
    p = what.add_parser("show", help="one version · 查看一个版本")
    p.add_argument("kind", metavar="KIND")
    p.add_argument("--version", type=int, help="default: the newest · 默认最新")
    p.set_defaults(run=statement_command)

    c = commands.add_parser("evidence", help="what an auditor is given · 合规证据")
    c.add_argument("--admin", metavar="URL")
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    p = what.add_parser("export", help="JSON and a readable page · 导出 JSON 与网页")
    p.add_argument("--out", type=Path, required=True, help="a folder")
    p.set_defaults(run=evidence_command)
    p = what.add_parser("transparency", help="the report of a half-year: JSON, CSV and a page · 半年度透明度报告")
    p.add_argument("--half", required=True, help="for example 2026H2 · 半年")
    p.add_argument("--out", type=Path, required=True, help="a folder")
    p.add_argument("--public", action="store_true", help="for everybody: small figures are hidden · 公开版，隐去小数目")
    p.set_defaults(run=transparency_command)

    c = commands.add_parser("privacy", help="what is held about one person · 个人信息查阅与删除")
    c.add_argument("--admin", metavar="URL")
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, does in (("export", "hand it out · 导出"), ("erase", "erase it · 删除")):
        p = what.add_parser(name, help=does)
        p.add_argument("--app", required=True, help="an app of the apps file")
        p.add_argument(
            "--user", required=True, help="the id that the trusted header carries; -: read it from standard input"
        )
        p.add_argument("--out", type=Path, help="a file, for you alone; default: standard output")
        p.set_defaults(run=privacy_command)


def list_command(args: argparse.Namespace) -> int:
    state = f"&state={quote(args.state)}" if args.state else ""
    found = call("GET", f"/cases?page={args.page}{state}", url=args.admin)
    for case in found["cases"]:
        print(
            f"{case['id']}  {case['state']:<16} {case['category']:<28} {case['reports']:>5}  {case['due'][:10]}  {case['days_left']:>4}"
        )
    print(f"{found['total']} 件 cases, 第 page {found['page']}/{max(1, found['pages'])}", file=sys.stderr)
    return 0


def show_command(args: argparse.Namespace) -> int:
    print(json.dumps(call("GET", f"/cases/{quote(args.case)}", url=args.admin), ensure_ascii=False, indent=2))
    return 0


def probe_command(args: argparse.Namespace) -> int:
    body = {"decision": "probe", "model": args.model, "prompt": args.prompt, "variants": args.variant}
    given = {k: v for k, v in body.items() if v}
    case = call("POST", f"/cases/{quote(args.case)}/decision", given, args.admin)
    print(f"{case['id']}: {case['state']}; `sluice case show {case['id']}` 查看结果 shows the outcome")
    return 0


def close_command(args: argparse.Namespace) -> int:
    body = {"decision": "except", "reason": args.reason, "role": args.role}
    case = call("POST", f"/cases/{quote(args.case)}/decision", body, args.admin)
    print(f"{case['id']}: {case['state']}")
    return 0


def export_command(args: argparse.Namespace) -> int:
    from app.training.cases import fresh, read, write
    from app.training.record import digest

    named = "&".join(f"case={quote(c)}" for c in args.cases)
    found = call("GET", f"/samples?{named}", url=args.admin)
    for left in found["left_out"]:
        print(f"{left['case']}: {left['why']}", file=sys.stderr)
    fresh(args.out)
    args.out.chmod(0o700)
    source = args.out / "samples.jsonl"
    _private(source, "".join(json.dumps(s, ensure_ascii=False, sort_keys=True) + "\n" for s in found["samples"]))
    write(args.out / "sets", read(source), [], digest(source), clock.now())
    print(f"{args.out}: {len(found['samples'])} 个样本 samples", file=sys.stderr)
    return 0


def publish_command(args: argparse.Namespace) -> int:
    from app.policyfile import read_yaml
    from app.text import is_han

    try:
        raw = args.file.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise OfficeError(f"{args.file}: cannot be read as UTF-8 文件无法读取 ({type(e).__name__})") from None
    if args.file.suffix in (".yaml", ".yml", ".json"):
        # What YAML takes for a date goes as it was written.
        content = json.loads(json.dumps(read_yaml(raw, str(args.file)), default=str))
        content = {"fields": content} if args.kind == "disclosure" else content
    else:
        content = {"zh" if any(map(is_han, text)) else "en": text}
    if args.kind != "disclosure" and (unknown := sorted(set(content) - {"zh", "en"})):
        raise OfficeError(f"{args.file}: {unknown[0]}: only zh and en may stand here 只能有 zh 与 en")
    given = {**content, "kind": args.kind, "public": not args.private, "note": args.note}
    done = call("POST", "/statements", given, args.admin)
    print(f"{done['kind']} {done['version']}  {done['at']}  {done['sha256']}")
    return 0


def statements_command(args: argparse.Namespace) -> int:
    found = call("GET", "/statements", url=args.admin)["statements"]
    for one in found:
        seen = "公开 public" if one["public"] else "不公开 private"
        print(
            f"{one['kind']:<16} {one['version']:>4}  {one['at']}  {one['sha256'][:16]}  {seen}  {one['by']}  {one['note']}"
        )
    print(f"{len(found)} 个版本 versions", file=sys.stderr)
    return 0


def statement_command(args: argparse.Namespace) -> int:
    number = args.version
    if number is None:
        found = call("GET", f"/statements?kind={quote(args.kind)}", url=args.admin)["statements"]
        if not found:
            raise OfficeError(f"{args.kind}: nothing published yet 尚未发布")
        number = found[-1]["version"]
    one = call("GET", f"/statements/{quote(args.kind)}/{number}", url=args.admin)
    print(json.dumps(one, ensure_ascii=False, indent=2))
    return 0


def evidence_command(args: argparse.Namespace) -> int:
    from app.evidence import html

    _made(args.out)
    found = call("GET", "/evidence", url=args.admin)
    _private(args.out / "evidence.json", json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    _private(args.out / "evidence.html", html(found))
    print(f"{args.out}: evidence.json, evidence.html; 审计链 audit chain: {found['audit']['chain']}", file=sys.stderr)
    return 0 if found["audit"]["chain"] == "whole" else 1


def transparency_command(args: argparse.Namespace) -> int:
    from app.transparency import csv, half, html

    half(args.half)  # before anything is asked for or made
    _made(args.out)
    found = call("GET", f"/transparency?half={quote(args.half)}&public={str(args.public).lower()}", url=args.admin)
    name = f"transparency-{args.half}{'-public' if args.public else ''}"
    _private(args.out / f"{name}.json", json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    _private(args.out / f"{name}.html", html(found))
    _private(args.out / f"{name}.csv", csv(found))
    print(f"{args.out}: {name}.json, .html, .csv; 审计链 audit chain: {found['chain']}", file=sys.stderr)
    return 0 if found["chain"] == "whole" else 1


def privacy_command(args: argparse.Namespace) -> int:
    # What cannot be written down must not be erased first.
    out = None if args.out is None else _opened(args.out)
    # What stands on a command line, every process of the machine can read.
    if args.user == "-" and sys.stdin.isatty():
        print("用户标识 user id:", end=" ", file=sys.stderr, flush=True)
    user = sys.stdin.readline().rstrip("\r\n") if args.user == "-" else args.user
    found = call("POST", f"/privacy/{args.what}", {"app": args.app, "user": user}, args.admin)
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        with out:
            out.write(text)
    if not found["known_app"]:
        print(f"{args.app}: 应用文件中没有此应用 no such app in the apps file", file=sys.stderr)
    counts = found["erased"] if args.what == "erase" else {k: len(v) for k, v in found["held"].items() if v}
    said = "，".join(f"{name} {n}" for name, n in counts.items()) or "无 nothing"
    print(f"{'已删除 erased' if args.what == 'erase' else '持有 held'}: {said}", file=sys.stderr)
    for row in found.get("kept", ()):
        print(f"保留 kept: {row['class']}: {row['basis']}; 至 until {row['until']}", file=sys.stderr)
    return 0


def _made(folder: Path) -> None:
    """Raises OfficeError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise OfficeError(f"{folder}: cannot be made 无法创建 ({e.strerror})") from None


def _opened(path: Path) -> TextIO:
    """A file that only its owner can read. Raises OfficeError."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")
    except OSError as e:
        raise OfficeError(f"{path}: cannot be written 无法写入 ({e.strerror})") from None


def _private(path: Path, text: str) -> None:
    with _opened(path) as f:
        f.write(text)
