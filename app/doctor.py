"""`sluice doctor`: the effective settings, secrets masked, and whether this machine can serve with them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from importlib.util import find_spec
from urllib.parse import urlsplit

from app import apps, native, policy, settings
from app.detectors import classifier
from app.detectors.lexicon import Lexicon, load
from app.errors import ModelError, SettingsError, SluiceError
from app.guards import named
from app.settings import Settings
from app.store.embedded import find_server


def run() -> int:
    """Print everything; exit status 1 if something is wrong, 2 (raised) if the settings cannot be read."""
    conf = settings.read()
    print("设置 settings")
    for name, value in conf.shown().items():
        print(f"  {name}={value}")
    print("检查 checks")
    bad = 0
    for title, check in _CHECKS:
        try:
            print(f"  ✓ {title}: {check(conf)}")
        except (SluiceError, OSError) as e:
            bad += 1
            print(f"  ✗ {title}: {e}")
    return 1 if bad else 0


def _safety(conf: Settings) -> str:
    if reasons := settings.unsafe(conf, app_keys=apps.load(conf.apps).keyed):
        raise SettingsError("; ".join(reasons))
    return "nothing unsafe"


def _policy(conf: Settings) -> str:
    loaded = policy.load(conf.policy)
    return f"{loaded.common.profile}, version {loaded.common.version}, {len(loaded.apps)} app sections"


def _users(conf: Settings) -> str:
    """Who vouches for users, and whether the policy asks for what nobody can give."""
    rules, told = policy.load(conf.policy), []
    for app in sorted(apps.load(conf.apps).all, key=lambda app: app.id):
        known = "subjects" if app.subject_header or app.identity is not None else "no subjects"
        vouched = "vouched for" if app.identity is not None else "nobody vouches"
        if rules.of(app.policy).rules.identity.missing == "refuse" and app.identity is None:
            raise SettingsError(
                f"{app.id}: the policy refuses users for whom nobody vouches, and the apps file names nobody who could: every request "
                "would be refused (apps file: identity)"
            )
        told.append(f"{app.id}: {vouched}, {known}")
    return "; ".join(told)


def _labels(conf: Settings) -> str:
    rule = policy.load(conf.policy).common.rules.labels
    producer = (
        rule.producer
        or "none: no metadata is prepared and no pictures are served until the policy names labels.producer"
    )
    shown = " (your app shows sluice.label)" if rule.mode == "interface" else ""
    return f"{rule.mode}{shown}, producer {producer}"


def _lexicons(conf: Settings) -> str:
    lexicon = Lexicon(load(conf.lexicons))
    return f"{len(lexicon)} terms, version {lexicon.version}"


def _engine(conf: Settings) -> str:
    if native.scan is None or native.grams is None:
        return (
            "the slower one, for the compiled one is missing: install a C compiler and Python's headers "
            "(apt-get install gcc python3-dev), then Sluice again"
        )
    return "compiled"


def _scorer(conf: Settings) -> str:
    scorer = classifier.load(conf.models)
    assert scorer.grams is not None
    return f"{len(scorer.grams.categories)} categories, version {scorer.version}"


def _guard(conf: Settings) -> str:
    if conf.guard is None:
        return "none; SLUICE_GUARD names one"
    guard = named.described(conf, b"")
    if conf.guard_path is not None:
        if not (conf.guard_path / "config.json").is_file():
            raise ModelError(f"SLUICE_GUARD_PATH: {conf.guard_path}: no model here: it has no config.json")
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise ModelError("SLUICE_GUARD_PATH needs transformers: pip install 'sluice-gateway[models]'")
    if conf.guard_url is not None:
        url = urlsplit(conf.guard_url)
        _connect(url.hostname or "", url.port or (443 if url.scheme == "https" else 80), "SLUICE_GUARD_URL")
    return f"{conf.guard}, version {guard.version}, tells {len(guard.covers)} categories"


def _store(conf: Settings) -> str:
    if conf.redis_url is None:
        return f"embedded, {find_server()}"
    url = urlsplit(conf.redis_url)
    if url.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            s.connect(url.path)
    else:
        _connect(url.hostname or "", url.port or 6379, "SLUICE_REDIS_URL")
    return "Redis accepts connections"


def _upstream(conf: Settings) -> str:
    url = urlsplit(conf.upstream_url)
    _connect(url.hostname or "", url.port or (443 if url.scheme == "https" else 80), "SLUICE_UPSTREAM_URL")
    return "the model accepts connections"


def _connect(host: str, port: int, name: str) -> None:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError as e:
        raise SettingsError(f"{name}: {host}:{port} cannot be reached ({e.strerror or type(e).__name__})") from None


def _data_dir(conf: Settings) -> str:
    conf.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(conf.data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"SLUICE_DATA_DIR: {conf.data_dir} is not writable")
    if conf.data_dir.stat().st_mode & 0o077:
        raise SettingsError(f"SLUICE_DATA_DIR: {conf.data_dir} is open to others: chmod 700 it")
    return f"{conf.data_dir}, private"


_CHECKS: list[tuple[str, Callable[[Settings], str]]] = [
    ("安全 safety", _safety),
    ("策略 policy", _policy),
    ("用户 users", _users),
    ("标识 labels", _labels),
    ("词库 lexicons", _lexicons),
    ("打分模型 scorer", _scorer),
    ("把关模型 guard", _guard),
    ("引擎 engine", _engine),
    ("数据目录 data directory", _data_dir),
    ("存储 store", _store),
    ("模型 model", _upstream),
]
