"""Logs: one JSON object a line on stderr. Law: no text of a user. Of an exception the type and the places are logged,
never its message, which could quote what it choked on."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback

from app import clock

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": clock.stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": os.getpid(),
            # Libraries format their arguments into the message; ours never do.
            "message": record.getMessage()
            if record.name.startswith("sluice") or record.levelno < logging.ERROR
            else str(record.msg),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _KNOWN}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["where"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(record.exc_info[2])[-8:]]
        return json.dumps(line, ensure_ascii=False, default=str)


def setup(level: str = "INFO") -> None:
    """Configure the root logger of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.captureWarnings(True)  # a warning is a line like any other
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("asyncio").setLevel(logging.WARNING)
