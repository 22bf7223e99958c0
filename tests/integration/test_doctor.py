"""`sluice doctor`: effective values with secrets masked, and what is wrong named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app.demo.story import free_port
from tests.conftest import SECRET, TOKEN, Model


def doctor(tmp_path: Path, **environment: str) -> tuple[int, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {"SLUICE_DATA_DIR": str(tmp_path / "data")} | {f"SLUICE_{k}": v for k, v in environment.items()}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor"], env=env, capture_output=True, text=True, timeout=30
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_sound_machine_is_said_to_be_sound(model: Model, tmp_path: Path) -> None:
    status, said = doctor(tmp_path, UPSTREAM_URL=model.url, SECRET_KEY=SECRET, ADMIN_TOKEN=TOKEN, WORKERS="3")
    assert status == 0, said
    assert "✗" not in said
    assert "SLUICE_WORKERS=3" in said
    assert "SLUICE_ADMIN_TOKEN=********" in said
    assert SECRET not in said
    assert TOKEN not in said


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "violence").mkdir()
    (tmp_path / "violence" / "terms.tsv").write_text("term\tcolour\n", "utf-8")
    status, said = doctor(
        tmp_path,
        UPSTREAM_URL=f"http://127.0.0.1:{free_port()}/v1",
        UPSTREAM_KEY="operator-key",
        HOST="0.0.0.0",
        LEXICONS=str(tmp_path),
        REDIS_URL=f"redis://:hidden@127.0.0.1:{free_port()}/0",
    )
    assert status == 1
    assert said.count("✗") == 4
    for word in ("open proxy", "SLUICE_SECRET_KEY", "'colour'", "SLUICE_UPSTREAM_URL", "SLUICE_REDIS_URL"):
        assert word in said, word
    assert "operator-key" not in said
    assert "hidden" not in said


def test_a_guard_that_cannot_be_used_is_named_with_the_way_out(model: Model, tmp_path: Path) -> None:
    sound = {"UPSTREAM_URL": model.url, "SECRET_KEY": SECRET, "ADMIN_TOKEN": TOKEN, "GUARD": "llama-guard-3"}
    status, said = doctor(tmp_path, GUARD_URL=model.url, **sound)
    assert status == 0 and "llama-guard-3, version" in said, said
    status, said = doctor(tmp_path, GUARD_PATH=str(tmp_path), **sound)
    assert status == 1 and f"{tmp_path}: no model here" in said
    status, said = doctor(tmp_path, GUARD_URL=f"http://127.0.0.1:{free_port()}/v1", **sound)
    assert status == 1 and "SLUICE_GUARD_URL" in said
    status, said = doctor(tmp_path, GUARD_URL=model.url, **sound | {"GUARD": "unheard-of"})
    assert status == 1 and "unheard-of" in said and "model.toml" in said


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    status, said = doctor(tmp_path, WORKER="3")
    assert status == 2
    assert "SLUICE_WORKER:" in said


def test_a_policy_that_would_refuse_every_user_is_told_before_it_does(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("identity: {missing: refuse}")
    status, said = doctor(tmp_path, POLICY=str(policy))
    assert status == 1 and "every request would be refused" in said.replace("\n", " ")
