"""People at the console, as a browser without a script would be: they follow links, fill in forms and send them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx

PASSWORD = "a long enough password"
_FORM = re.compile(r"<form\b[^>]*>.*?</form>", re.S)
_FIELD = re.compile(r"<(?:input|button)\b[^>]*>", re.S)


def attributes(tag: str) -> dict[str, str]:
    """Of an opening tag."""
    return {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}


def text_of(page: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


class Person:
    """Somebody at the console of an admin port."""

    def __init__(self, admin: str, language: str = "en") -> None:
        self.http = httpx.Client(
            base_url=admin,
            timeout=20,
            headers={"accept-language": language, "sec-fetch-site": "same-origin", "origin": admin},
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

    def hidden(self, action: str) -> dict[str, str]:
        """What the form that goes there carries by itself."""
        for form in _FORM.findall(self.page):
            if (
                attributes(form).get("action", "").split("?")[0] == f"/console{action}"
                or f'formaction="/console{action}"' in form
            ):
                fields = [attributes(tag) for tag in _FIELD.findall(form)]
                return {f["name"]: f.get("value", "") for f in fields if f.get("type") == "hidden"}
        raise AssertionError(f"no form for {action} on this page: {text_of(self.page)[:400]}")

    def send(self, path: str, *, part: bool = False, **said: Any) -> str:
        """Fill in the form that goes to `path` and send it."""
        return self.post(path, self.hidden(path) | said, part=part)

    def post(self, path: str, data: dict[str, Any], *, part: bool = False) -> str:
        return self._took(self.http.post(f"/console{path}", data=data, headers={"hx-request": "true"} if part else {}))

    def enter(self, name: str, password: str = PASSWORD) -> str:
        self.get("/login")
        return self.send("/login", id=name, password=password)

    @property
    def said(self) -> str:
        return text_of(self.page)


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
