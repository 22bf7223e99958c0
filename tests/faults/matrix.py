"""The fault matrix: its rows, and what was measured of each in this run."""

from __future__ import annotations

import os

ROWS = {
    "F1": "the store is killed",
    "F2": "the store is paused",
    "F3": "the store is slow",
    "F4": "a reply is lost after the store has done it",
    "F5": "the store is full",
    "F6": "the store's disk is full",
    "F7": "the primary is lost",
    "F8": "READONLY, LOADING, MISCONF, NOSCRIPT, MASTERDOWN, NOREPLICAS",
    "F9": "another Redis answers at the port",
    "F10": "the model is down",
    "F11": "the model is slow, or its client leaves",
    "F12": "the model breaks off in mid-stream",
    "F13": "the model speaks nonsense, or without end",
    "F14": "the model answers with an error that has a text",
    "F15": "a detector raises",
    "F16": "a guard hangs, or is slow",
    "F17": "a guard returns NaN, a wrong label, an error within a 200",
    "F18": "the lexicon is corrupt at reload",
    "F19": "a rule that backtracks, or that hits everything",
    "F20": "SIGTERM during 100 streams",
    "F21": "SIGKILL of a worker, of the parent, of the store, under load",
    "F22": "a wrong clock",
    "F23": "two replicas decide one report",
    "F24": "a reviewer works on a stale page",
    "F25": "a probe that kills its worker each time",
    "F26": "10,000 idle streams",
    "F27": "no file descriptors left",
    "F28": "a client that reads nothing",
    "F29": "a client that sends half of a head, or of a body",
    "F30": "a storm of clients that leave",
    "F31": "the journal's disk is full",
    "F32": "little memory",
    "F33": "no key, or a rotated one",
    "F34": "old data",
    "F35": "no Redis server to start",
}

FIGURES: list[tuple[str, str]] = []


def told(row: str, figure: str) -> None:
    """Note what was measured of a row."""
    assert row in ROWS
    FIGURES.append((row, figure))


def within(seconds: float) -> float:
    """A limit as a machine gives it that does nothing else. Beside other test processes the clock says little of the gateway: there only
    a hang counts."""
    return seconds if "PYTEST_XDIST_WORKER" not in os.environ else 5 * seconds + 5
