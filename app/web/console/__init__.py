"""The console: where reviewers and operators work, on the admin port. Server-rendered, Chinese and English, by mouse or by keys alone.

Law: a page does what the admin API would do, by the same parts, and writes it down under the name of whoever did it; nothing it needs
comes from another machine. What each part of it owns stands at its beginning.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.web.console import cases, doors, figures, lists, matters, people, rules
from app.web.console.call import HEADERS, KINDS, Call, Fault, Office, Page, _language, asset, endpoint, headed

PARTS = (doors, figures, cases, matters, lists, rules, people)


async def _static(request: Request) -> Response:
    """A file of ours. Its address names its version, so that it may be kept for ever."""
    name = str(request.path_params["name"])
    found = asset(name)
    if found is None:
        raise HTTPException(404)
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == found[1] else "no-cache"
    head = {"cache-control": kept, "x-content-type-options": "nosniff", "etag": f'"{found[1]}"'}
    return Response(found[0], media_type=KINDS[name.rpartition(".")[2]], headers=head)


def pages() -> list[Page]:
    """Every page, in the order in which they are tried."""
    return [page for part in PARTS for page in part.PAGES.all]


def console(office: Office) -> Starlette:
    """The ASGI app below /console."""

    async def lost(request: Request, e: Exception) -> Response:
        call = Call(request, office, None, {}, _language(request))
        status = e.status_code if isinstance(e, HTTPException) else 500
        said = (
            call.t("没有这个页面", "there is no such page")
            if status != 405
            else call.t("不支持该操作", "this page takes no such call")
        )
        return headed(
            call.page("fault.html", fault=Fault(said, "", status), status=status)
            if status < 500
            else Response(status_code=500)
        )

    routes = [Route(page.path, endpoint(page, office), methods=[page.method]) for page in pages()]
    app = Starlette(routes=[Route("/static/{name}", _static), *routes], exception_handlers={404: lost, 405: lost})
    app.router.redirect_slashes = False
    return app


__all__ = ["HEADERS", "Office", "console", "pages"]
