"""Dependencies: each version that is used stands in constraints.txt, and each direct dependency says in ADR 2 why it is there."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

OWN = "sluice-gateway"
UNPINNED = {"torch", "triton"}
"""They come from an index of their own (scripts/install-models), and what torch brings from there with it."""


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"])


def _direct() -> dict[str, Requirement]:
    """Each dependency by its name, of the base install and of every extra, and what builds."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    project = _project()
    rows = [
        *build,
        *project["dependencies"],
        *(row for extra in project["optional-dependencies"].values() for row in extra),
    ]
    named = {canonicalize_name(r.name): r for r in map(Requirement, rows)}
    named.pop(OWN, None)
    return named


def _pinned() -> dict[str, str]:
    rows = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    return {canonicalize_name(name): version for name, version in rows}


def _installed() -> dict[str, str]:
    """Version by name, of all that Sluice asks for with all its extras, and that in turn, as far as it is installed."""
    found: dict[str, str] = {}
    waiting = [(OWN, frozenset(_project()["optional-dependencies"]))]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package.version
        for row in map(Requirement, package.requires or ()):
            wanted = row.marker is None or any(row.marker.evaluate({"extra": extra}) for extra in {"", *extras})
            following = (canonicalize_name(row.name), frozenset(row.extras))
            if wanted and following not in seen and following[0] not in UNPINNED:
                seen.add(following)
                waiting.append(following)
    found.pop(OWN)
    return found


def test_everything_that_is_installed_is_pinned_to_the_version_that_is_there() -> None:
    installed = {name: version for name, version in _installed().items() if name != "pip"}
    assert len(installed) > 50
    pinned = _pinned()
    assert {name: pinned.get(name) for name in installed} == installed


def test_every_direct_dependency_is_pinned_within_what_it_asks_for() -> None:
    pinned = _pinned()
    for name, row in _direct().items():
        assert name in pinned, f"{name} has no line in constraints.txt"
        assert row.specifier.contains(pinned[name]), (
            f"constraints.txt: {name} is {pinned[name]}, pyproject.toml asks for {row}"
        )


def test_every_direct_dependency_says_why_it_is_there() -> None:
    said = (ROOT / "docs/adr/0002-dependencies.md").read_text("utf-8").lower()
    assert [name for name in _direct() if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said)] == []


def test_constraints_name_each_package_once() -> None:
    rows = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert len({canonicalize_name(name) for name in rows}) == len(rows)
