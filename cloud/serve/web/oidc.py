"""Logging in at an OpenID Connect provider: authorization code with PKCE, by authlib."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from ruyicam.cloud.errors import Exit, RuyicamError, first_line

from ..accounts import Role
from ..config import Oidc
from .access import Backend
from .accounts import keep_login

log = logging.getLogger("ruyicam.oidc")
# How long someone may take at the provider.
_PATIENCE_S = 600


def role_of(claims: dict[str, Any], settings: Oidc) -> Role | None:
    """The highest role that the claim stands for; None: none."""
    said = claims.get(settings.role_claim) or []
    found = {settings.roles[value] for value in ([said] if isinstance(said, str) else said) if value in settings.roles}
    return next((role for role in reversed(Role) if role in found), None)


def _secret(settings: Oidc) -> str:
    try:
        return settings.client_secret.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{settings.client_secret}: {error}") from error


def add_oidc(app: FastAPI, backend: Backend, settings: Oidc) -> None:
    """`/v1/oidc/login` sends a browser to the provider, which sends it to `/v1/oidc/callback`. Raises RuyicamError for a
    secret that cannot be read."""
    secret, here = _secret(settings), f"{settings.url}/v1/oidc/callback"
    # The same for all services on the database: which of them a browser comes back to is a balancer's choice.
    key = hashlib.sha256(f"ruyicam session {secret}".encode()).hexdigest()
    secure = settings.url.startswith("https:")
    app.add_middleware(
        SessionMiddleware,
        secret_key=key,
        session_cookie="ruyicam_oidc",
        max_age=_PATIENCE_S,
        path="/v1/oidc",
        https_only=secure,
    )
    provider = OAuth().register(
        "provider",
        server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_id=settings.client_id,
        client_secret=secret,
        client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256", "timeout": 10},
    )

    def refused(why: str) -> RedirectResponse:
        return RedirectResponse(f"/?login={why}", 303)

    @app.get("/v1/oidc/login", include_in_schema=False)
    async def login(request: Request) -> RedirectResponse:
        try:
            return await provider.authorize_redirect(request, here)
        except Exception as error:
            # Of which HTTP library authlib is built on, its release decides.
            log.error("%s does not answer: %s", settings.issuer, first_line(error))
            return refused("away")

    @app.get("/v1/oidc/callback", include_in_schema=False)
    async def callback(request: Request) -> RedirectResponse:
        try:
            token = await provider.authorize_access_token(request)
            claims = dict(token.get("userinfo") or {})
            if settings.role_claim not in claims or settings.name_claim not in claims:
                claims |= await provider.userinfo(token=token)
        except Exception as error:
            # Whatever authlib and its library for signatures raise: nobody is let in.
            log.warning("a log-in failed: %s", first_line(error))
            return refused("failed")
        name, role = str(claims.get(settings.name_claim) or claims["sub"]), role_of(claims, settings)
        if role is None:
            await asyncio.to_thread(backend.accounts.note, name[:64], "log in refused", settings.issuer)
            return refused("refused")
        try:
            who, kept = await asyncio.to_thread(backend.accounts.log_in_from_outside, name, role)
        except RuyicamError as error:
            log.warning("a log-in is refused: %s", error)
            return refused("refused")
        await asyncio.to_thread(backend.accounts.note, who.name, "log in", settings.issuer)
        answer = RedirectResponse("/", 303)
        keep_login(answer, kept, secure)
        return answer
