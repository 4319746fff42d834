"""Logging in and out; users, tokens and the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Cookie, HTTPException, Query, Request, Response

from ..accounts import LOGIN_S, TooManyTriesError
from .access import COOKIE, Admin, BackendDep, Viewer
from .models import AuditOut, LoginIn, LoginWays, MeOut, NewToken, Problem, TokenIn, TokenOut, UserChange, UserIn, UserOut

router = APIRouter(prefix="/v1", tags=["accounts"])


def keep_login(response: Response, secret: str, secure: bool) -> None:
    """Has the browser show it from now on; secure: only over HTTPS."""
    response.set_cookie(COOKIE, secret, max_age=int(LOGIN_S), httponly=True, samesite="strict", secure=secure)


@router.get("/login")
def ways(request: Request) -> LoginWays:
    """How people may log in, beside with a password."""
    settings = request.app.state.oidc
    return LoginWays(oidc=settings.name if settings else None)


@router.post("/login", responses={429: {"model": Problem}})
def login(request: Request, response: Response, backend: BackendDep, said: LoginIn) -> MeOut:
    """Lets a browser in, by a cookie, for twelve hours."""
    try:
        found = backend.accounts.log_in(said.name, said.password)
    except TooManyTriesError:
        raise HTTPException(429, "too many tries: wait a minute", {"Retry-After": "60"}) from None
    if found is None:
        backend.accounts.note(said.name, "log in refused", "")
        raise HTTPException(401, "no user of that name has that password")
    who, secret = found
    backend.accounts.note(who.name, "log in", "")
    keep_login(response, secret, request.url.scheme == "https")
    return MeOut.of(who, backend.care.labels)


@router.post("/logout", status_code=204)
def logout(response: Response, backend: BackendDep, who: Viewer, ruyicam_login: Annotated[str | None, Cookie()] = None) -> None:
    """Lets this browser in no more."""
    if ruyicam_login is not None:
        backend.accounts.log_out(ruyicam_login)
        backend.accounts.note(who.name, "log out", "")
    response.delete_cookie(COOKIE)


@router.get("/me")
def me(backend: BackendDep, who: Viewer) -> MeOut:
    """Who asks."""
    return MeOut.of(who, backend.care.labels)


@router.get("/users")
def users(backend: BackendDep, who: Admin) -> list[UserOut]:
    """By name."""
    return [UserOut.of(u) for u in backend.accounts.users()]


@router.post("/users", status_code=201)
def add_user(backend: BackendDep, who: Admin, said: UserIn) -> UserOut:
    """A new one."""
    backend.accounts.add_user(said.name, said.role, said.password)
    backend.accounts.note(who.name, "add user", f"{said.name} as {said.role.value}")
    return next(UserOut.of(u) for u in backend.accounts.users() if u.name == said.name)


@router.patch("/users/{name}", status_code=204)
def change_user(backend: BackendDep, who: Admin, name: str, said: UserChange) -> None:
    """Another role or password."""
    backend.accounts.change_user(name, said.role, said.password)
    backend.accounts.note(who.name, "change user", name)


@router.delete("/users/{name}", status_code=204)
def remove_user(backend: BackendDep, who: Admin, name: str) -> None:
    """And its logins."""
    backend.accounts.remove_user(name)
    backend.accounts.note(who.name, "remove user", name)


@router.get("/tokens")
def tokens(backend: BackendDep, who: Admin) -> list[TokenOut]:
    """By name."""
    return [TokenOut.of(t) for t in backend.accounts.tokens()]


@router.post("/tokens", status_code=201)
def new_token(backend: BackendDep, who: Admin, said: TokenIn) -> NewToken:
    """For a program."""
    secret = backend.accounts.new_token(said.name, said.role, who.name, said.days)
    backend.accounts.note(who.name, "new token", f"{said.name} as {said.role.value}")
    return NewToken(name=said.name, secret=secret)


@router.delete("/tokens/{name}", status_code=204)
def remove_token(backend: BackendDep, who: Admin, name: str) -> None:
    """It lets nobody in from now on."""
    backend.accounts.remove_token(name)
    backend.accounts.note(who.name, "remove token", name)


@router.get("/audit")
def audit(
    backend: BackendDep,
    who: Admin,
    before: int | None = Query(None, ge=0, lt=1 << 62, description="only entries with smaller numbers"),
    limit: int = Query(100, ge=1, le=1000),
) -> list[AuditOut]:
    """Who saw or did what, newest first."""
    return [AuditOut.of(a) for a in backend.accounts.audit(before, limit)]
