"""Who is let in to the API, and as what: a browser by its cookie, a program by its token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Path, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from ruyicam.cloud.bundles import BundleInfo

from ..accounts import Accounts, Identity, Role
from ..alerting.book import AlertBook
from ..care import EventCare
from ..live import Live
from ..replay import Replay
from ..store import Store
from ..subscribers import Subscribers

COOKIE = "ruyicam_login"
_bearer, _cookie = HTTPBearer(auto_error=False), APIKeyCookie(name=COOKIE, auto_error=False)


@dataclass(frozen=True)
class Backend:
    """What the API shows. open: everyone is an administrator; rate_hz: of ticks; idle_s: silence of a camera that sends."""

    store: Store
    accounts: Accounts
    care: EventCare
    subscribers: Subscribers
    live: Live
    replay: Replay
    alerts: AlertBook
    bundles: dict[str, BundleInfo]
    rate_hz: int
    idle_s: float
    version: str
    open: bool = False


def backend_of(request: Request) -> Backend:
    """Of the application."""
    return request.app.state.backend


BackendDep = Annotated[Backend, Depends(backend_of)]


def _from_elsewhere(request: Request) -> bool:
    """Whether a page of another site sends it."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def who_asks(
    request: Request,
    backend: BackendDep,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
    cookie: Annotated[str | None, Depends(_cookie)] = None,
) -> Identity:
    """Raises 401 for nobody, 403 for what another site's page sends with a browser's cookie."""
    if request.method not in ("GET", "HEAD") and bearer is None and _from_elsewhere(request):
        raise HTTPException(403, "requests from pages of other sites are refused")
    if bearer is not None:
        found = backend.accounts.of_token(bearer.credentials)
    elif cookie is not None:
        found = backend.accounts.of_login(cookie)
    else:
        found = Identity("everyone", Role.ADMIN) if backend.open else None
    if found is None:
        raise HTTPException(401, "log in, or show a token: Authorization: Bearer SECRET", {"WWW-Authenticate": "Bearer"})
    return found


def _least(role: Role):
    def check(who: Annotated[Identity, Depends(who_asks)]) -> Identity:
        if not who.role.may(role):
            raise HTTPException(403, f"this needs the role {role.value}; yours is {who.role.value}")
        return who

    return check


# Numbers of rows: what a database would not take is not there either.
RowId = Annotated[int, Path(ge=0, lt=1 << 31)]
Viewer = Annotated[Identity, Depends(_least(Role.VIEWER))]
Operator = Annotated[Identity, Depends(_least(Role.OPERATOR))]
Admin = Annotated[Identity, Depends(_least(Role.ADMIN))]
