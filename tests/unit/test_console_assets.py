"""What the pages of the console are made of: files of others with their source, templates that parse, words in both languages, a
guideline for every category."""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes

from app.guide import guides
from app.taxonomy import taxonomy
from app.web.console import words
from app.web.console.call import KINDS, _templates
from tests.conftest import ROOT

CONSOLE = ROOT / "app" / "web" / "console"
STATIC, TEMPLATES = CONSOLE / "static", sorted((CONSOLE / "templates").iterdir())
OURS = {"console.css", "console.js", "sluice.svg", "VENDOR.txt"}
HAN = re.compile(r"[\u4e00-\u9fff]")
LETTER = re.compile(r"[^\W\d_]")


def vendored() -> list[dict[str, str]]:
    lines = (STATIC / "VENDOR.txt").read_text("utf-8").splitlines()
    head = next(line for line in lines if line.startswith("file\t")).split("\t")
    rows = [line.split("\t") for line in lines if "\t" in line and not line.startswith("file\t")]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_every_file_of_others_is_listed_with_version_licence_source_and_its_hash() -> None:
    rows = {row["file"]: row for row in vendored()}
    assert {path.name for path in STATIC.iterdir()} == OURS | set(rows)
    for name, row in rows.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == row["sha256"], name
        assert row["version"] in name and f"@{row['version']} " in row["source"] and row["source"].startswith("npm ")
    assert {(row["source"].split("@")[0], row["version"], row["licence"]) for row in rows.values()} == {
        ("npm htmx.org", "4.0.1", "0BSD"), ("npm uplot", "1.6.32", "MIT"),
    }  # fmt: skip
    assert "Copyright (c) 2022 Leon Sorokin" in (STATIC / "VENDOR.txt").read_text("utf-8"), "as its licence asks"


def test_no_file_asks_anything_of_another_machine() -> None:
    for path in STATIC.iterdir():
        if path.suffix in (".css", ".svg") or path.name == "console.js":
            found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", path.read_text("utf-8"))
            assert set(found) <= {"http://www.w3.org/2000/svg"}, path.name
    assert {path.suffix[1:] for path in STATIC.iterdir()} - {"txt"} == set(KINDS)


def parsed(path: Path) -> nodes.Template:
    return _templates().parse(path.read_text("utf-8"), path.name)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_template_parses_and_asks_only_for_files_that_are_there(path: Path) -> None:
    assert path.suffix == ".html"
    _templates().get_template(path.name)
    for call in parsed(path).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "static":
            (name,) = (arg.value for arg in call.args if isinstance(arg, nodes.Const))
            assert (STATIC / name).is_file()
    for use in parsed(path).find_all((nodes.Extends, nodes.Include, nodes.FromImport)):
        if path.name == "whole.html" and isinstance(use.template, nodes.Name):
            continue  # a part that is asked for without scripts: whichever it is
        assert isinstance(use.template, nodes.Const) and (CONSOLE / "templates" / use.template.value).is_file()


def said(zh: object, en: object, where: str) -> None:
    """Both are words, each in its language."""
    assert isinstance(zh, str) and isinstance(en, str) and zh.strip() and en.strip(), (where, zh, en)
    assert HAN.search(zh) or not LETTER.search(zh), (where, zh)
    assert not HAN.search(en), (where, en)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_word_of_a_template_is_there_in_both_languages(path: Path) -> None:
    tree = parsed(path)
    for call in tree.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == "t"):
            continue
        if call.dyn_args is not None or [getattr(arg, "name", "") for arg in call.args] == ["zh", "en"]:
            continue  # of a table of words, or of a list that stands below
        assert len(call.args) == 2, (path.name, call.lineno)
        zh, en = call.args
        assert isinstance(zh, nodes.Const) and isinstance(en, nodes.Const), (path.name, call.lineno)
        said(zh.value, en.value, f"{path.name}:{call.lineno}")
        named = {kw.key for kw in call.kwargs}
        assert set(re.findall(r"\{(\w+)\}", zh.value)) == set(re.findall(r"\{(\w+)\}", en.value)) == named, call.lineno
    for group in tree.find_all((nodes.Tuple, nodes.Call)):
        items = group.items if isinstance(group, nodes.Tuple) else group.args
        values = [item.value if isinstance(item, nodes.Const) else None for item in items]
        for at, value in enumerate(values):
            if isinstance(value, str) and HAN.search(value):
                said(value, values[at + 1] if at + 1 < len(values) else None, f"{path.name}:{group.lineno}")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_chinese_stands_in_a_template_beside_its_words(path: Path) -> None:
    bare = "".join(piece.data for piece in parsed(path).find_all(nodes.TemplateData))
    assert set(HAN.findall(bare)) <= set("中文"), "but for the name of a language in itself"


def pairs(value: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from pairs(one, f"{where}[{key}]")
    elif isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, str) for v in value):
        yield value[0], value[1], where
    else:
        assert isinstance(value, tuple), where
        for one in value:
            yield from pairs(one, where)


def test_every_word_of_the_tables_is_there_in_both_languages() -> None:
    tables = {name: value for name, value in vars(words).items() if name.isupper()}
    assert len(tables) >= 10
    for name, table in tables.items():
        for zh, en, where in pairs(table, name):
            assert zh.lower() == en.lower() or said(zh, en, where) is None


@pytest.mark.parametrize("path", sorted(CONSOLE.glob("*.py")), ids=lambda path: path.name)
def test_every_word_in_the_code_is_there_in_both_languages(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "t" and node.args:
            zh, en = node.args
            assert isinstance(zh, ast.Constant) and isinstance(en, ast.Constant), node.lineno
            said(zh.value, en.value, f"{path.name}:{node.lineno}")


def test_the_guideline_is_of_every_category_in_both_languages_and_of_no_other() -> None:
    rows = tomllib.loads((ROOT / "app" / "data" / "guide.toml").read_text("utf-8"))
    assert set(rows) - {"usual"} == set(taxonomy()) == set(guides())
    for id, row in rows.items():
        assert set(row) in ({"zh", "en"}, {"zh", "en", "not_zh", "not_en"}), id
        said(row["zh"], row["en"], id)
        if "not_zh" in row:
            said(row["not_zh"], row["not_en"], id)
    assert all(guide.belongs["zh"] and guide.not_["en"] for guide in guides().values())
