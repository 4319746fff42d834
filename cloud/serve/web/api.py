"""The HTTP side: the API, health, metrics, and the page."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import DataError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ruyicam.cloud.errors import Exit, RuyicamError, first_line

from ..config import Oidc
from . import accounts, cameras, events, rules
from .access import Backend, Viewer
from .models import Problem
from .oidc import add_oidc

PAGE = Path(__file__).resolve().parent / "page"
# Everything comes from here, and nothing is run that does not lie in a file of its own.
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
# Swagger's page begins with a script in itself, and its styles are made by one.
_DOCS_POLICY = _POLICY + "; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"

_TEXT: dict[int | str, dict] = {200: {"content": {"text/plain": {}}}}
_REFUSED: dict[int | str, dict] = {code: {"model": Problem} for code in (400, 401, 403, 404, 422)}


class _SafeHeaders:
    """Tells browsers what they may do with an answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = _DOCS_POLICY if scope["path"] == "/docs" else _POLICY
            await send(message)

        await self._app(scope, receive, tell if scope["type"] == "http" else send)


def make_api(backend: Backend, oidc: Oidc | None = None) -> FastAPI:
    """The application; every answer is JSON but /metrics, /v1/labels, the streams and the page. Raises RuyicamError for a
    secret of `oidc` that cannot be read."""
    app = FastAPIOffline(title="ruyicam", version=backend.version, redoc_url=None)
    app.state.backend, app.state.oidc = backend, oidc
    if oidc is not None:
        add_oidc(app, backend, oidc)
    app.add_middleware(_SafeHeaders)

    @app.exception_handler(RuyicamError)
    async def refused(request: Request, error: RuyicamError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422 if error.code == Exit.USAGE else 503)

    @app.exception_handler(DataError)
    async def not_storable(request: Request, error: DataError) -> JSONResponse:
        # PostgreSQL takes no NUL in texts; SQLite does.
        return JSONResponse({"detail": f"the database takes no such value: {first_line(error.orig or error)}"}, 422)

    @app.get("/healthz", tags=["operations"])
    def healthz() -> dict:
        """Whether the database answers."""
        backend.store.events(limit=1)
        return {"status": "ok", "version": backend.version}

    @app.get("/metrics", tags=["operations"], response_class=Response, responses=_REFUSED | _TEXT)
    def metrics(who: Viewer) -> Response:
        """For Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    for part in (events, cameras, rules, accounts):
        app.include_router(part.router, responses=_REFUSED)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app
