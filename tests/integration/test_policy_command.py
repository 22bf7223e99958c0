"""`sluice policy`: a file before it is loaded, and what the one that is set does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from app.taxonomy import taxonomy


def policy(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | environment
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "policy", *words], capture_output=True, text=True, env=env, timeout=60
    )


def test_a_good_file_is_told_with_what_it_would_change(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: {ip_infringement: {answer: block}}\n")
    done = policy("check", str(file))
    assert done.returncode == 0, done.stderr
    assert "ip_infringement  answer: flag → block" in done.stdout
    assert "can be loaded" in done.stderr


def test_the_same_as_json_for_programs(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: {ip_infringement: {answer: block}}\n")
    found = json.loads(policy("check", "--json", str(file)).stdout)
    assert found["ok"] and [c["category"] for c in found["changes"]] == ["ip_infringement"]


def test_a_bad_file_names_the_key_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("categories: {violence: {answer: shout}}\nblocked_as: shouting\n")
    done = policy("check", str(file))
    assert done.returncode == 1
    assert "categories.violence.answer" in done.stderr and "blocked_as" in done.stderr
    assert policy("check", str(tmp_path / "missing.yaml")).returncode == 2


def test_show_names_every_category_of_every_section(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("shadow: [violence]\napps: {chat: {categories: {violence: {prompt: block}}}}\n")
    done = policy("show", SLUICE_POLICY=str(file))
    assert done.returncode == 0, done.stderr
    for id in taxonomy():
        assert done.stdout.count(f"  {id} ") == 2, id
    assert done.stdout.count("shadow") == 2
    assert policy("show", "--app", "chat", SLUICE_POLICY=str(file)).stdout.count("violence") == 1
