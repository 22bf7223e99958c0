"""The policy in force, a new one before it is loaded, and the playground. Law: nothing here changes what is enforced, and nothing that is
typed here is kept."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from app import metrics
from app.taxonomy import taxonomy
from app.types import Action
from app.web.console.call import Call, Fault, Pages

PAGES = Pages()


async def policy_page(call: Call, fault: Fault | None = None) -> Response:
    policies = await asyncio.to_thread(call.desk.policies)
    families = await asyncio.to_thread(metrics.families)
    shadow = [
        (labels, int(value)) for f in families if f.name == "sluice_shadow" for name, labels, value in f.samples if name.endswith("_total")
    ]  # fmt: skip
    apps = {"*": policies.common, **policies.apps}
    chosen = call.query("app") if call.query("app") in apps else "*"
    policy = apps[chosen]
    rows = [
        {"id": id, "prompt": policy.usual(id, "prompt").word, "answer": policy.usual(id, "answer").word, "shadow": id in policy.shadow}
        for id in taxonomy()
    ]  # fmt: skip
    waiting = [row for row in call.desk.shadows.rows() if row.get("shadow")]
    return call.page(
        "policy.html", fault=fault, rows=rows, shadow=sorted(shadow, key=lambda s: -s[1]), apps=list(apps), chosen=chosen, policy=policy,
        fail_modes=policies.fail_modes(), waiting=waiting, workers=call.desk.replica().get("workers", []), checked=None,
    )  # fmt: skip


@PAGES.get("/policy", "operate", "lists")
async def policy(call: Call) -> Response:
    return await policy_page(call)


@PAGES.post("/policy/check", "operate", "lists", again=policy_page)
async def check(call: Call) -> Response:
    """What a file would change, before it is loaded."""
    raw = call.form.get("policy", [""])[0]
    found = await call.desk.playground.check(raw)
    return (
        call.page("part_checked.html", checked=found)
        if call.part
        else call.page("checked.html", checked=found, raw=raw)
    )


@PAGES.get("/playground", "review", "lists", "operate")
async def playground(call: Call) -> Response:
    return call.page("playground.html", apps=sorted(await asyncio.to_thread(call.desk.apps)), looked=None)


async def playground_page(call: Call, fault: Fault | None = None) -> Response:
    if call.part:
        return call.page("part_fault.html", fault=fault or Fault("", "", 422))
    return call.page("playground.html", fault=fault, apps=sorted(await asyncio.to_thread(call.desk.apps)), looked=None)


@PAGES.post("/playground", "review", "lists", "operate", again=playground_page)
async def look(call: Call) -> Response:
    text = call.form.get("text", [""])[0]
    size = int(call.one("size")) if call.one("size").isdecimal() and len(call.one("size")) < 6 else 0
    chunks = [text[at : at + size] for at in range(0, len(text), size)] if size else None
    found = await call.desk.playground.look(
        text,
        direction="prompt" if call.one("direction") == "prompt" else "answer",
        app=call.one("app") or "default",
        chunks=chunks,
    )
    if call.part:
        return call.page("part_looked.html", looked=found, text=text, actions=[a.word for a in Action])
    return call.page("playground.html", apps=sorted(await asyncio.to_thread(call.desk.apps)), looked=found, text=text)
