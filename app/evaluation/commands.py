"""`sluice eval`. Law: says what it could not read and goes on; writes a report whole or not at all; imports what it needs, as in
app/cli.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from app.errors import TrainingError

if TYPE_CHECKING:
    from app.evaluation.bank import Row
    from app.evaluation.report import Bank
    from app.types import Direction


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser("eval", help="measure the whole pipeline on labelled texts · 用标注题库评测")
    c.add_argument(
        "banks", type=Path, nargs="*", metavar="BANK.jsonl", help="instead of the project's own · 题库，默认为随附题库"
    )
    c.add_argument("--direction", choices=["answer", "prompt"], default="answer")
    c.add_argument("--policy", type=Path, help="a policy file instead of SLUICE_POLICY")
    c.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON · 写出 JSON")
    c.add_argument("--html", type=Path, metavar="OUT", help="write a report with plots · 写出网页报告")
    c.set_defaults(run=eval_command)


def eval_command(args: argparse.Namespace) -> int:
    """`sluice eval`: a table on stdout, rows at fault on stderr. Exit status 1 if there were any; a gate that is not passed is a
    figure and no failure."""
    from app import clock, pipeline, settings
    from app.evaluation import measurement, page, table
    from app.evaluation.bank import shipped
    from app.evaluation.report import Measured, report
    from app.types import Scope

    files = args.banks or shipped()
    _check(files, [args.json, args.html])
    scope = Scope("default", cast("Direction", args.direction))
    banks: list[Bank] = []
    with _each_failure_said_once():
        moderator = pipeline.moderator(settings.read(policy=args.policy))
        measurement.warm(moderator, scope)
        outcomes = [measurement.measured(row, moderator, scope) for file in files for row in _rows(file, banks)]
    policy = moderator.policies.common
    made = report(
        Measured(
            clock.stamp(),
            args.direction,
            policy.profile,
            policy.version,
            {s.name: s.version for s in moderator.scorers},
        ),
        banks,
        outcomes,
    )
    if args.json:
        _write(args.json, json.dumps(made.json(), ensure_ascii=False, indent=1) + "\n")
    if args.html:
        _write(args.html, page.html(made))
    for line in table.lines(made):
        print(line)
    return 1 if any(bank.faulty for bank in banks) else 0


def _rows(file: Path, banks: list[Bank]) -> Iterator[Row]:
    """The rows that count; says what is wrong with others, and adds what was read to `banks`."""
    from hashlib import sha256

    from app.evaluation.bank import UNDECIDED, Fault, read
    from app.evaluation.report import Bank

    rows = undecided = faulty = 0
    for row in read(file):
        rows += 1
        if isinstance(row, Fault):
            faulty += 1
            print(f"sluice: {row}", file=sys.stderr)
        elif row.label == UNDECIDED:
            undecided += 1
        else:
            yield row
    name = file.name.encode("utf-8", "replace").decode()
    banks.append(Bank(name, sha256(file.read_bytes()).hexdigest(), rows, undecided, faulty))


def _check(banks: list[Path], outs: list[Path | None]) -> None:
    """What would fail at the end fails at the start. Raises TrainingError."""
    for bank in banks:
        if not bank.is_file():
            raise TrainingError(f"{bank}: no such file (没有这个文件)")
    for out in outs:
        if out is not None and (not out.parent.is_dir() or out.is_dir()):
            raise TrainingError(f"{out}: cannot be written there (无法写到那里): its folder must exist")


def _write(file: Path, text: str) -> None:
    if file.is_symlink() or (file.exists() and not file.is_file()):
        # A device, a pipe, or a name for another place: it stays what it is.
        file.write_text(text, "utf-8")
        return
    partial = file.with_name(f".{file.name}.tmp")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(file)
    except OSError as e:
        raise TrainingError(f"{file}: cannot be written (写不了): {e.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _each_failure_said_once() -> Iterator[None]:
    """What fails at every text: in how many it failed, the report says."""
    said: set[tuple[str, object]] = set()

    def first(record: logging.LogRecord) -> bool:
        key = record.getMessage(), getattr(record, "detector", "")
        known = key in said
        said.add(key)
        return not known

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(first)
    handler.setFormatter(
        logging.Formatter("sluice: %(message)s (%(detector)s%(reason)s)", defaults={"detector": "", "reason": ""})
    )
    log = logging.getLogger("sluice")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
