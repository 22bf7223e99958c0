"""`sluice doctor`: the effective settings, secrets masked, and whether this machine can serve with them.

Law: it changes nothing, and makes DATA_DIR alone; every check is made, whatever the others found (docs/doctor.md).
"""

from __future__ import annotations

from collections.abc import Iterator

from app import settings
from app.doctor import files, keyring, machine, models, store
from app.doctor.symptoms import Check, Symptom, fault
from app.errors import SluiceError
from app.settings import Settings

CHECKS: list[tuple[str, Check]] = [
    ("安全 safety", keyring.safety),
    ("密钥 secret key", keyring.secret),
    ("管理令牌 admin token", keyring.tokens),
    ("入口 door", keyring.door),
    ("策略 policy", files.rules),
    ("用户 users", files.users),
    ("标识 labels", files.labels),
    ("词库 lexicons", files.lexicons),
    ("打分模型 scorer", files.scorer),
    ("把关模型 guard", models.guard),
    ("引擎 engine", machine.engine),
    ("端口 ports", machine.ports),
    ("进程 processes", machine.processes),
    ("内存转储 core dumps", machine.cores_dumped),
    ("数据目录 data directory", machine.data_dir),
    ("存储 store", store.store),
    ("模型 model", models.upstream),
    ("替补模型 model that stands in", models.surrogate),
]
"""What is looked at, in this order, under these titles."""


def run() -> int:
    """Print everything; exit status 1 if a fault was found, 2 (raised: SettingsError) if the settings cannot be read. Warnings are none."""
    conf = settings.read()
    print("设置 settings")
    for name, value in conf.shown().items():
        print(f"  {name}={value}")
    print("检查 checks")
    faults, said = 0, set[str]()
    for title, check in CHECKS:
        found = list(_symptoms(title, check, conf))
        facts = "; ".join(s.text for s in found if s.mark == "✓")
        for symptom in ([Symptom("✓", facts)] if facts else []) + [s for s in found if s.mark != "✓"]:
            # A file that cannot be read stops more than one check.
            if symptom.text not in said:
                print(f"  {symptom.mark} {title}: {symptom.text}")
            said.add(symptom.text)
        faults += any(s.mark == "✗" for s in found)
    return 1 if faults else 0


def _symptoms(title: str, check: Check, conf: Settings) -> Iterator[Symptom]:
    try:
        yield from check(conf)
    except (SluiceError, OSError) as e:
        yield fault(str(e))
    except ValueError:
        # Its message may hold the value, and the value be a secret.
        yield fault(f"a setting of {title} holds a character or a name that cannot be used there: correct it")
