"""People at the console, as a browser without a script would be: they follow links, fill in forms and send them; and the house in which
they work: a gateway on a real store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.conftest import RedisServer, Whole, redis_binaries, wait_for, whole_gateway

PASSWORD = "a long enough password"
POLICY = """
reports: {deliveries: true, per_reporter: 1000, per_source: 100000, second: 1.0}
probes: {terms_allow: true, per_minute: 6000}
"""
APPS = "apps: [{id: default, trusted_headers: {subject: x-user}}]"
_FORM = re.compile(r"<form\b[^>]*>.*?</form>", re.S)
_FIELD = re.compile(r"<(?:input|button)\b[^>]*>", re.S)


def attributes(tag: str) -> dict[str, str]:
    """Of an opening tag."""
    return {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}


def text_of(page: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


class Shown(HTMLParser):
    """What a page is made of: its elements with their attributes, and its text, as a browser would read them. `texts`: what stands in
    each element of a kind, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = True
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, said = self.texts[-1]
            self.texts[-1] = (tag, said + data)

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]

    def written(self, field: str) -> str:
        """What stands in a field of a form: a textarea's text, or an input's value."""
        areas = iter(said for tag, said in self.texts if tag == "textarea")
        for tag, attrs in self.elements:
            text = next(areas) if tag == "textarea" else ""
            if attrs.get("name") == field and tag in ("textarea", "input"):
                return text.removeprefix("\n") if tag == "textarea" else attrs.get("value", "")
        raise AssertionError(f"no field {field} on this page")


class Person:
    """Somebody at the console of an admin port. `source`: the address that they come from."""

    def __init__(self, admin: str, language: str = "en", source: str = "127.0.0.1") -> None:
        self.http = httpx.Client(
            base_url=admin,
            timeout=20,
            headers={"accept-language": language, "sec-fetch-site": "same-origin", "origin": admin},
            transport=httpx.HTTPTransport(
                verify=False, local_address=source
            ),  # no time for authorities that nobody asks
        )
        self.page = ""
        self.status = 0

    def _took(self, response: httpx.Response) -> str:
        hops = 0
        while response.is_redirect:
            hops += 1
            assert hops < 10
            response = self.http.get(response.headers["location"])
        self.page, self.status, self.response = response.text, response.status_code, response
        return self.page

    def get(self, path: str) -> str:
        return self._took(self.http.get(f"/console{path}"))

    def _form(self, path: str) -> tuple[str, dict[str, str]]:
        """Of the form that goes there: its whole address below /console, and what it carries by itself."""
        for form in _FORM.findall(self.page):
            action = attributes(form).get("action", "").removeprefix("/console")
            if action.split("?")[0] == path or f'formaction="/console{path}"' in form:
                fields = [attributes(tag) for tag in _FIELD.findall(form)]
                carried = {f["name"]: f.get("value", "") for f in fields if f.get("type") == "hidden"}
                return action if action.split("?")[0] == path else path, carried
        raise AssertionError(f"no form for {path} on this page: {text_of(self.page)[:400]}")

    def hidden(self, path: str) -> dict[str, str]:
        """What the form that goes there carries by itself."""
        return self._form(path)[1]

    def send(self, path: str, *, htmx: bool = False, **said: Any) -> str:
        """Fill in the form that goes to `path` and send it. `htmx`: as the script of a page does, for a part of it."""
        address, carried = self._form(path)
        return self.post(address, carried | said, htmx=htmx)

    def post(self, path: str, data: dict[str, Any], *, htmx: bool = False) -> str:
        return self._took(self.http.post(f"/console{path}", data=data, headers={"hx-request": "true"} if htmx else {}))

    def enter(self, name: str, password: str = PASSWORD) -> str:
        self.get("/login")
        return self.send("/login", id=name, password=password)

    @property
    def said(self) -> str:
        return text_of(self.page)

    @property
    def shown(self) -> Shown:
        return Shown(self.page)

    @property
    def at(self) -> str:
        """The page on which they are, below /console."""
        return self.response.url.raw_path.decode().removeprefix("/console")

    @property
    def csrf(self) -> str:
        """What the forms of their session carry."""
        found = re.search(r'name="csrf" value="([^"]*)"', self.http.get("/console/me").text)
        assert found
        return found[1]

    @property
    def cookie(self) -> str:
        """The secret of their session."""
        return str(self.http.cookies.get("sluice_console", ""))

    def alias(self) -> str:
        """By what their colleagues know them."""
        found = re.search(r"R-[A-Z2-7]{5}", self.http.get("/console/me").text)
        assert found
        return found[0]


def first(admin: str, link: str, name: str = "first") -> Person:
    """Whoever makes the first account, by the link that was printed."""
    person = Person(admin)
    person.get("/setup?token=" + link.partition("token=")[2])
    person.send("/setup", id=name, password=PASSWORD, again=PASSWORD)
    assert person.status == 200, person.said
    return person


def hire(operator: Person, name: str, *roles: str, language: str = "en") -> Person:
    """An account that the operator makes, and its owner logged in."""
    operator.get("/accounts")
    operator.send(
        "/accounts", id=name, password=PASSWORD, roles=list(roles), language=language, name=f"{name} of the tests"
    )
    assert operator.status == 200, operator.said
    person = Person(str(operator.http.base_url).rstrip("/"), language)
    person.enter(name)
    assert person.status == 200, person.said
    return person


# ---- the house in which they work


def printed(log: Path) -> str:
    """The one-time link that a start wrote to its terminal."""
    wait_for(lambda: "token=" in log.read_text("utf-8"))
    found = re.search(r"\S+/setup\?token=\S+", log.read_text("utf-8"))
    assert found
    return found[0]


class House:
    """A gateway on a store of its own, and the operator who made the first account. `whole`: the gateway."""

    def __init__(self, whole: Whole, server: RedisServer) -> None:
        self.whole, self.server, self.admin = whole, server, whole.admin
        self.store = redis.Redis(port=server.port, decode_responses=True)

    @staticmethod
    def key(name: str) -> str:
        return f"{{sluice:default}}:{name}"

    @property
    def link(self) -> str:
        """The one-time link, as it was printed."""
        return printed(self.whole.folder / "log")

    def report(self, text: str, category: str = "violence", **more: Any) -> str:
        """Somebody reports a text; the id of its case."""
        taken = self.whole.http.post("/sluice/v1/reports", json={"text": text, "category": category, **more})
        assert taken.status_code == 202, taken.text
        return str(self.whole.call("GET", f"/cases/{taken.json()['ticket']}").json()["id"])

    def case(self, id: str) -> dict[str, Any]:
        return dict(self.whole.call("GET", f"/cases/{id}").json())

    def chain(self, **where: Any) -> list[dict[str, Any]]:
        """The rows of the audit, whole, that say so."""
        found = self.whole.call("GET", "/audit").json()
        assert found["chain"] == "whole"
        rows = [json.loads(raw) for raw in self.store.lrange(self.key("audit"), 0, -1)]  # type: ignore[union-attr]
        return [row for row in rows if all(row.get(name) == said for name, said in where.items())]

    def edit(self, table: str, id: str, **fields: Any) -> None:
        """What time would have brought about: a row of the store as it would be by then."""
        version, _, body = str(self.store.hget(self.key(table), id)).partition(" ")
        row = json.loads(body)
        for name, value in fields.items():
            row[name] = row[name] | value if isinstance(value, dict) and row.get(name) else value
        self.store.hset(self.key(table), id, f"{version} {json.dumps(row)}")

    def forgive(self) -> None:
        """Forget who guessed at passwords."""
        for key in self.store.scan_iter("*login:*"):
            self.store.delete(key)


@contextmanager
def house(folder: Path, upstream: str, **settings: str) -> Iterator[House]:
    """A gateway with its store, on which nobody has an account yet."""
    (folder / "redis").mkdir(parents=True)
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    (folder / "apps.yaml").write_text(APPS, "utf-8")
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    try:
        with whole_gateway(
            folder, upstream, REDIS_URL=server.url, WORKERS="1", POLICY=str(folder / "policy.yaml"),
            APPS=str(folder / "apps.yaml"), **settings,
        ) as whole:  # fmt: skip
            yield House(whole, server)
    finally:
        server.kill()
