"""The docs say what the code does: settings, categories, policy keys, commands and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app import policy
from app.cli import parser
from app.policyfile import PolicyFile
from app.retention import TABLE
from app.settings import PREFIX, Settings
from app.taxonomy import taxonomy
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("lexicons/*.md")])


def _read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("page", ["docs/configuration.md", "docs/zh/configuration.md"])
def test_every_setting_stands_in_the_table_with_its_default(page: str) -> None:
    rows = dict(re.findall(r"^\| `(SLUICE_\w+)` \| (\S*) ?\|", _read(page), re.M))
    assert set(rows) == {PREFIX + name.upper() for name in Settings.model_fields}
    shown = Settings().shown()
    for name, default in rows.items():
        assert default in (shown[name], "shipped", "自带"), name


def test_every_category_stands_in_the_table_with_its_actions() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (\w+) \| (\w+) \|", _read("docs/categories.md"), re.M)
    assert rows == [(c.id, c.zh, c.en, c.clause, c.answer.word, c.prompt.word) for c in taxonomy().values()]


@pytest.mark.parametrize(
    ("page", "title"), [("docs/configuration.md", "## The policy file"), ("docs/zh/configuration.md", "## 策略文件")]
)
def test_every_key_of_the_policy_is_explained(page: str, title: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", _read(page).split(title)[1], re.M)
    assert set(rows) == set(PolicyFile.model_fields)


def test_article_11_every_class_that_is_kept_stands_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)`( ●)? \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", _read("docs/privacy.md"), re.M)
    assert rows == [(r.name, " ●" * r.personal, r.where, r.kept, r.basis, r.eraser) for r in TABLE]


def test_the_chinese_page_tells_the_same_classes_that_are_kept() -> None:
    rows = re.findall(r"^\| `(\w+)` \S+( ●)? \| (.*?) \|", _read("docs/zh/privacy.md"), re.M)
    assert [(name, mark) for name, mark, _ in rows] == [(r.name, " ●" * r.personal) for r in TABLE]


@pytest.mark.parametrize("page", ["operations", "reports", "configuration", "privacy", "disclosure"])
def test_a_chinese_page_names_nothing_that_its_english_page_does_not(page: str) -> None:
    """Settings, metrics and addresses: what an operator types."""
    english, chinese = (
        {
            name
            for name in re.findall(r"`([^`\n]+)`", _read(path))
            if re.fullmatch(r"SLUICE_\w+|sluice_\w+(\{.*\})?|(GET |POST )?/\S+", name)
        }
        for path in (f"docs/{page}.md", f"docs/zh/{page}.md")
    )
    assert not chinese - english


def test_every_command_stands_in_a_page() -> None:
    commands = next(a for a in parser()._subparsers._group_actions).choices or {}  # type: ignore[union-attr]
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for command in commands:
        assert f"sluice {command}" in text, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def _anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a page: lower case, punctuation dropped, spaces as hyphens."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    titles = [re.sub(r"\]\([^)]*\)", "", title) for title in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_into_a_page_lead_to_a_heading_of_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert anchor in _anchors((page.parent / target) if target else page), f"{target}#{anchor}"


COOKBOOK = re.findall(r"^## (.+?)$|^```yaml\n(.*?)^```", _read("docs/cookbook.md"), re.M | re.S)


@pytest.mark.parametrize("block", [b for _, b in COOKBOOK if b])
def test_every_recipe_of_the_cookbook_is_a_policy(block: str) -> None:
    made = policy.parse(block.encode())
    assert made.common.version != policy.parse(b"").common.version


def test_every_section_of_the_cookbook_has_a_recipe() -> None:
    titles = [i for i, (title, _) in enumerate(COOKBOOK) if title]
    assert len(titles) >= 15
    assert all(COOKBOOK[i + 1][1] for i in titles)


def test_pages_that_the_code_names_exist() -> None:
    for source in ROOT.glob("app/**/*.py"):
        for name in re.findall(r"docs/(?:adr/\d{4}|\w+\.md)", source.read_text("utf-8")):
            assert list(ROOT.glob(f"{name}*")), f"{source}: {name}"


def test_the_readme_shows_its_two_commands_first() -> None:
    first = _read("README.md").splitlines()[:25]
    assert any(line.startswith("scripts/demo") for line in first)
    assert any(line.startswith("scripts/test") for line in first)
    assert "scripts/test" in _read(".ci/run")
