"""`sluice list …`: lists of an operator's own: protected texts, trade secrets, known rumours with what is right instead.

Law: nothing is sent before every line of the file was found good; what is wrong is said by its line, never by its words. Loading the same
file again changes nothing, a changed one adds and removes the difference: first what is new, then what is gone, so that nothing is
without its entry meanwhile. (Draft Measures, Article 4(3), 4(4), 4(5).)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from app import clock
from app.deadlines import SHANGHAI
from app.errors import SluiceError
from app.office import call

_BYTES = 600_000
"""Of one call's body, about; the admin port takes 1 MiB."""
_TOLD = 20
SHRINK = 0.2
"""Share of a list that a load may take away without being told to."""


class ListError(SluiceError):
    """A file that is no list; the message names its lines."""


class Kind(NamedTuple):
    """What an entry of such a list does. `action`: unless its owner chose another of `actions`."""

    category: str
    directions: tuple[str, ...]
    action: str
    actions: tuple[str, ...]


KINDS = {
    "protected": Kind("ip_infringement", ("answer",), "block", ("flag", "replace", "block")),
    "secret": Kind("trade_secret", ("prompt", "answer"), "block", ("flag", "mask", "replace", "block")),
    "rumour": Kind("false_harmful_info", ("answer",), "flag", ("flag", "replace")),
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser(
        "list", help="lists of your own: protected texts, secrets, rumours · 自有清单：受保护文本、商业秘密、已知谣言"
    )
    c.add_argument(
        "--admin", metavar="URL", help="the admin listener; default: SLUICE_ADMIN_HOST and SLUICE_ADMIN_PORT"
    )
    what = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    p = what.add_parser("load", help="put a file's list into force, and nothing else under its name · 载入清单")
    p.add_argument("file", type=Path, metavar="FILE", help="JSON lines (docs/lists.md)")
    p.add_argument("--kind", choices=list(KINDS), required=True)
    p.add_argument("--list", dest="name", metavar="NAME", help="what it is called; default: the file's name")
    p.add_argument("--owner-reason", metavar="TEXT", help="why; stands at every entry · 依据")
    p.add_argument("--expires", type=_day, metavar="DATE", help="its last day, Shanghai time: 2027-06-30 · 有效期")
    p.add_argument("--action", choices=["flag", "mask", "replace", "block"], help="instead of the kind's own · 处置")
    p.add_argument(
        "--shrink", action="store_true", help="allow the list to lose more than 20%% of its entries · 允许大幅缩减"
    )
    p.set_defaults(run=load_command)
    p = what.add_parser("show", help="what is in force of a list, passages without their text · 查看清单")
    p.add_argument("--list", dest="name", metavar="NAME", required=True)
    p.set_defaults(run=show_command)
    p = what.add_parser("remove", help="all of a list · 移除清单")
    p.add_argument("--list", dest="name", metavar="NAME", required=True)
    p.set_defaults(run=remove_command)


def _day(text: str) -> str:
    try:
        return datetime.combine(date.fromisoformat(text), time(23, 59, 59), SHANGHAI).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError("a date like 2027-06-30") from None


def read(path: Path, kind: str, common: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a file, as the admin API takes them. `common`: what stands at every one. Raises ListError with every line at fault."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ListError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or 'not UTF-8'}) · 无法读取") from None
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_entry(line, kind, common))
            except ValueError as e:
                wrong.append(f"{path}, line {number} 行: {e}")
    if wrong:
        more = [f"… {len(wrong) - _TOLD} more 另有"] if len(wrong) > _TOLD else []
        raise ListError("\n".join([*wrong[:_TOLD], *more, "nothing was loaded · 未载入任何条目"]))
    if not found:
        raise ListError(f"{path}: holds no entry; `sluice list remove` takes a list down · 文件为空")
    return found


def _entry(line: str, kind: str, common: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError that names the field, never its value."""
    from pydantic import ValidationError

    from app.entries import EntryIn
    from app.passages import sized
    from app.policyfile import faults

    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(row, dict):
        raise ValueError('must be an object like {"passage": "…"}')
    known = {"term", "passage"} | ({"correction", "source"} if kind == "rumour" else set())
    if unknown := set(row) - known:
        raise ValueError(f"only {', '.join(sorted(known))} may stand here, {len(unknown)} other keys do")
    if kind == "rumour" and not isinstance(row.get("correction"), dict):
        raise ValueError('correction: must be given as {"zh": "…", "en": "…"}')
    entry = {k: row[k] for k in ("term", "passage") if k in row} | common
    if "correction" in row:
        entry["correction"] = row["correction"] | ({"source": row["source"]} if "source" in row else {})
    try:
        given = EntryIn.model_validate(entry)
    except ValidationError as e:
        where, what = faults(e)[0]
        raise ValueError(f"{where}: {what}" if where else what) from None
    if given.passage is not None:
        try:
            sized(given.passage)
        except ValueError as e:
            raise ValueError(f"passage: {e}") from None
    return entry


def _batches(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    from app.entries import AT_ONCE

    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        more = len(json.dumps(entry))
        if batch and (size + more > _BYTES or len(batch) == AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += more
    yield batch


def _in_force(name: str, admin: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after, more = 0, True
    while more:
        page = call("GET", f"/entries?list={quote(name)}&after={after}&limit=1000", url=admin)
        found += page["entries"]
        more, after = page["more"], found[-1]["version"] if found else 0
    return found


def _removed(name: str, ids: list[str], admin: str | None) -> int:
    from app.entries import AT_ONCE

    path = f"/lists/{quote(name, safe='')}/remove"
    parts = [ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)]
    return sum(call("POST", path, {"ids": part}, admin)["removed"] for part in parts)


def load_command(args: argparse.Namespace) -> int:
    """`sluice list load`."""
    kind, name = KINDS[args.kind], args.name or args.file.stem
    action = args.action or kind.action
    if action not in kind.actions:
        raise ListError(f"--action: of a {args.kind} list one of 只能是 {', '.join(kind.actions)}")
    if not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ListError(
            f"{name!r}: a list's name has 1 to 64 letters, digits, _ . -; --list gives it one "
            "清单名只能含字母、数字、_ . -，请用 --list 指定"
        )
    if args.expires is not None and clock.seconds(args.expires) <= clock.now():
        raise ListError("--expires: is in the past 日期已过")
    common = {
        "category": kind.category, "action": action, "scope": {"directions": list(kind.directions)},
        "reason": args.owner_reason or f"list {name} ({args.kind})", "expires_at": args.expires, "list": name,
    }  # fmt: skip
    entries = read(args.file, args.kind, {k: v for k, v in common.items() if v is not None})
    before = len(_in_force(name, args.admin))
    if len(entries) < before * (1 - SHRINK) and not args.shrink:
        raise ListError(
            f"{name} would shrink from {before} to at most {len(entries)} entries, by more than {SHRINK:.0%}; --shrink if that is meant "
            "条目将大幅减少；确实如此请加 --shrink"
        )
    kept: set[str] = set()
    added = 0
    for batch in _batches(entries):
        done = call("POST", f"/lists/{quote(name, safe='')}/entries", {"entries": batch}, args.admin)
        kept.update(done["ids"])
        added += done["added"]
    gone = [entry["id"] for entry in _in_force(name, args.admin) if entry["id"] not in kept]
    removed = _removed(name, gone, args.admin)
    print(f"{name}: {len(kept)} 条 entries, +{added} -{removed}")
    return 0


def show_command(args: argparse.Namespace) -> int:
    """`sluice list show`: an entry a line."""
    found = _in_force(args.name, args.admin)
    for entry in found:
        print(json.dumps(entry, ensure_ascii=False))
    print(f"{args.name}: {len(found)} 条 entries", file=sys.stderr)
    return 0


def remove_command(args: argparse.Namespace) -> int:
    """`sluice list remove`."""
    ids = [entry["id"] for entry in _in_force(args.name, args.admin)]
    if not ids:
        raise ListError(f"{args.name}: nothing of such a list is in force 没有此清单的有效条目")
    print(f"{args.name}: -{_removed(args.name, ids, args.admin)}")
    return 0
