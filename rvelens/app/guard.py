"""Who is let in: a browser on this machine that came by the printed address, from no other site.

A page elsewhere can make a browser send requests to 127.0.0.1, and by DNS rebinding it can read the
answers too. So each request must name this machine as its host, come from the page itself, and carry
the token of the printed address. The first request with the token sets a cookie, which later ones
carry.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
# Gradio's server asks itself for this path once, when it starts; it has no content.
_OPEN = "/gradio_api/startup-events"


class Guard:
    """ASGI middleware that refuses every request of the wrong host, origin or token.

    Args:
        app: what answers the others.
        token: the secret of the printed address.
        cookie: name of the cookie that carries it; browsers share cookies between ports.
    """

    def __init__(self, app: Any, token: str, cookie: str) -> None:
        self.app, self.token, self.cookie = app, token, cookie

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        connection = HTTPConnection(scope)
        reply = self._refusal(connection) or self._welcome(connection)
        if reply is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        return await reply(scope, receive, send)

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        host, origins = connection.headers.get("host", ""), connection.headers.getlist("origin")
        if len(connection.headers.getlist("host")) != 1 or not is_local(host):
            return _refused(
                f"host {host!r}: expected 127.0.0.1 or localhost; use the printed address."
            )
        if any(origin != f"http://{host}" for origin in origins):
            return _refused(f"a request of {origins[0]}: expected the page itself; open it anew.")
        if connection.url.path == _OPEN or self._is_known(connection):
            return None
        return _refused(
            "a request without the token: expected the whole address that `rvelens app` printed, with "
            "what follows token=; open that one."
        )

    def _is_known(self, connection: HTTPConnection) -> bool:
        tokens = (connection.query_params.get("token"), connection.cookies.get(self.cookie))
        return any(
            text is not None and secrets.compare_digest(text.encode(), self.token.encode())
            for text in tokens
        )

    def _welcome(self, connection: HTTPConnection) -> Response | None:
        """The page without the token in its address, which a screenshot would show."""
        if "token" not in connection.query_params or connection.scope.get("method") != "GET":
            return None
        others = [(k, v) for k, v in connection.query_params.multi_items() if k != "token"]
        state = f"?{urlencode(others)}" if others else ""
        reply = RedirectResponse(connection.url.path + state, status_code=303)
        reply.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return reply


def is_local(host: str) -> bool:
    """Whether a Host header names this machine; a forwarded port may be another one."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    return name in _LOCAL and host.lower() in _spellings(name, port)


def _spellings(name: str, port: int | None) -> tuple[str, ...]:
    shown = f"[{name}]" if ":" in name else name
    return (shown,) if port is None else (f"{shown}:{port}",)


def _refused(reason: str) -> Response:
    return PlainTextResponse(f"rvelens explorer: {reason}\n", status_code=403)
