"""What Sluice needs of its host, and what it shows to a neighbour there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from app.demo.story import free_port, running
from tests.conftest import SECRET, TOKEN, Model, RedisServer, wait_for, whole_gateway
from tests.doctoring import doctor, marked

READ_ONLY = 'mount -t tmpfs -o size=64m none "$0" && mount -o remount,bind,ro / && ! touch "$0/../written" 2>/dev/null && exec "$@"'


def test_it_serves_where_data_dir_alone_can_be_written(model: Model, redis_server: RedisServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    alone = ["unshare", "-rm", "sh", "-c", READ_ONLY, str(data)]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("needs a kernel that lets users mount")
    port, ops = free_port(), free_port()
    names = {
        "UPSTREAM_URL": model.url, "REDIS_URL": redis_server.url, "SECRET_KEY": SECRET, "DATA_DIR": str(data / "sluice"),
        "PORT": str(port), "OPS_PORT": str(ops), "ADMIN_PORT": str(free_port()),
    }  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {
        f"SLUICE_{k}": v for k, v in names.items()
    }
    model.script.chat("今天天气不错。")
    command = [*alone, sys.executable, "-m", "app.cli", "serve"]
    with running(command, f"http://127.0.0.1:{ops}/readyz", env, tmp_path / "log"):
        asked = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
        done = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=20)
        assert done.status_code == 200 and "今天天气不错。" in done.json()["choices"][0]["message"]["content"]
    assert not (tmp_path / "written").exists()


def test_no_secret_stands_on_a_command_line(model: Model, redis_server: RedisServer, tmp_path: Path) -> None:
    redis.Redis(port=redis_server.port).config_set("requirepass", "open-sesame")
    url = f"redis://:open-sesame@127.0.0.1:{redis_server.port}/0"
    with whole_gateway(tmp_path, model.url, REDIS_URL=url, UPSTREAM_KEY="operator-key") as whole:
        parent = psutil.Process(whole.process.pid)
        shown = [word for process in (parent, *parent.children(recursive=True)) for word in process.cmdline()]
        assert shown.count("-m") >= 2, "a parent and a worker"
        for secret in ("open-sesame", "operator-key", SECRET, TOKEN):
            assert not any(secret in word for word in shown)


def test_the_private_store_is_its_owners_alone_and_takes_no_dangerous_command(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path, model.url) as whole:
        # A running server shows where it listens: `redis-server unixsocket:/…`, and no port.
        titles = [" ".join(child.cmdline()) for child in psutil.Process(whole.process.pid).children()]
        (title,) = (title for title in titles if "unixsocket:" in title)
        socket = Path(title.partition("unixsocket:")[2].strip())
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        store = redis.Redis(unix_socket_path=str(socket))
        assert store.ping()
        for refused in (
            "FLUSHALL",
            "FLUSHDB",
            "CONFIG SET appendonly no",
            "DEBUG SLEEP 0",
            "MODULE LIST",
            "SHUTDOWN",
            "KEYS *",
        ):
            with pytest.raises(redis.ResponseError, match=r"permission|not allowed"):
                store.execute_command(*refused.split())


def test_a_redis_user_with_the_rights_that_security_names_is_enough(
    model: Model, redis_server: RedisServer, tmp_path: Path
) -> None:
    rights = "on >narrow ~{sluice:default}:* &{sluice:default}:* +@all -@dangerous +info +config|get +bgrewriteaof"
    redis.Redis(port=redis_server.port).execute_command("ACL", "SETUSER", "sluice", *rights.split())
    url = f"redis://sluice:narrow@127.0.0.1:{redis_server.port}/0"
    passage = "把甲仓库的蓝色木箱依次搬到乙码头的第三个泊位，再用红色的绳子把每一个木箱捆成双层。"
    with whole_gateway(tmp_path, model.url, REDIS_URL=url) as whole:
        assert whole.add({"passage": passage}).status_code == 201
        sent = whole.http.post("/sluice/v1/reports", json={"text": passage, "category": "other_prohibited"})
        assert sent.status_code == 202, sent.text
        model.script.chat(passage)
        wait_for(lambda: whole.chat("说吧").json()["sluice"]["action"] == "block")
        denied = [row for row in redis.Redis(port=redis_server.port).acl_log() if row["reason"] != "auth"]
        assert denied == []
        assert marked(doctor(tmp_path, UPSTREAM_URL=model.url, REDIS_URL=url, SECRET_KEY=SECRET)[1], "✗") == []
