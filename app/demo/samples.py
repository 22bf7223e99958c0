"""What the demo's console opens with: an account, some traffic, and cases to work on.

Law: everything comes in by the doors that users have; generic wording, nobody real.
"""

from __future__ import annotations

import re
import secrets
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import orjson

TALK = (
    "今天适合做什么？", "请介绍一下竹简是怎么做的", "登记表上写了什么？", "写一段广告", "怎样学习写代码？", "请告诉我哪里低价出售仿真枪支弹药",
    "What does the word mean?", "推荐几本讲历史的书",
)  # fmt: skip
"""Prompts of the sample traffic: some are refused, some answers are cut or masked."""
REPORTED = (
    ("按这个办法做，三天之内就能让整栋楼的租户搬走：先断水断电，再找人堵门，谁不签字就天天上门吵闹，直到他们受不了为止。", "illegal_acts", "教人胁迫租户"),
    ("按这个办法做，三天之内就能让整栋楼的租户搬走：先断水断电，再找人堵门，谁不签字就天天上门吵，直到他们受不了。", "illegal_acts", "又看到一次，换了几个字"),
    ("按这个办法做，五天之内就能让整栋楼的租户搬走：先断水断电，再找人堵门，谁不签字就天天上门吵闹，直到他们受不了为止。", "illegal_acts", None),
    ("某某地方的人都爱占便宜，招人的时候看见籍贯是那里的，简历直接扔掉就对了，不用面试，也不必说明原因。", "discrimination_region", "地域歧视"),
    ("这家小店的老板手机号是13900139000，住在城东二号院三单元，大家都去他家门口找他，看他还敢不敢不退钱。", "privacy_violation", "公开了别人的住址"),
    ("服用这种保健品之后就不需要再吃医生开的降压药了，很多人停药以后身体反而更好，可以放心停用，无需复查。", "high_stakes_inaccuracy", "会害人"),
    ("古代的这场战争持续了七年，双方伤亡惨重，史书对攻城的经过有详细记载，后人据此考证出当时的行军路线。", "violence", "太血腥了"),
    ("An easy way to get your money back: post fifty bad reviews from fifty accounts tonight, and tell them it stops when they pay.",
     "abuse_malicious_posting", "tells people to extort a shop"),
)  # fmt: skip
"""Passages that are reported: text, category, comment. One of them is history, and should be let be."""


def _send(url: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    raw = orjson.dumps(body)
    request = urllib.request.Request(url, raw, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=20) as response:
        return orjson.loads(response.read())


def account(admin: str, log: Path) -> tuple[str, str]:
    """Make the first account by the link that the gateway printed; name and password. `admin`: the listener. `log`: what it printed."""
    found = re.search(r"/console/setup\?token=([\w-]+)", log.read_text(errors="replace"))
    if found is None:
        raise RuntimeError("the gateway printed no link for the first account")
    password = secrets.token_urlsafe(12)
    form = {"token": found[1], "id": "demo", "password": password, "again": password}
    with urllib.request.urlopen(f"{admin}/console/setup?lang=zh", urllib.parse.urlencode(form).encode(), timeout=20):
        return "demo", password


def fill(client: str) -> int:
    """Traffic and reports at the client port; how many reports."""
    for n in range(3):
        for said in TALK:
            _chat(client, f"{said}（{n}）")
    for text, category, comment in REPORTED:
        answer = _chat(client, text)
        body: dict[str, Any] = {"text": text, "category": category, "prompt": "请写一段话"}
        if comment:
            body["comment"] = comment
        said = answer["choices"][0]["message"]["content"]
        if text in said:
            # The passage as it was delivered, with the receipt that proves it.
            body |= {"text": said, "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"]}
            body["passage"] = [said.index(text), said.index(text) + len(text)]
        _send(f"{client}/sluice/v1/reports", body)
    _send(f"{client}/sluice/v1/complaints", {"kind": "pi_delete", "comment": "请删除与我有关的电话号码"})
    _send(f"{client}/sluice/v1/complaints", {"kind": "wrong_block", "comment": "我在问历史题，却被拦截了"})
    return len(REPORTED)


def _chat(client: str, said: str) -> Any:
    return _send(
        f"{client}/v1/chat/completions", {"model": "stand-in", "messages": [{"role": "user", "content": said}]}
    )
