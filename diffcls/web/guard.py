"""Who may talk to the server: this machine's browser, under this server's own name, from its own page.

A site that the user visits can not read the page, but it could send requests to it: under its own name, once that name is
made to point to 127.0.0.1 (DNS rebinding), or across sites.  `Host` and `Origin` tell both.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, nobody frames the page, nothing stays in a cache."""


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : ASGI application
    port : int
        That the server listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self.hosts |= {"127.0.0.1", "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's own start and end
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refuse(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refuse(self, method: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return JSONResponse({"error": f"this server is not {host!r}"}, 421)
        foreign = origin is not None and origin.removeprefix("http://") not in self.hosts
        if method != "GET" and (foreign or headers.get("sec-fetch-site", "same-origin") != "same-origin"):
            return JSONResponse({"error": "only this server's own page may ask"}, 403)
        return None
