"""The server: the page's files, its examples, and one address that classifies."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import warnings
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server

from ..errors import DiffclsError, InputError, OutOfWorldWarning
from ..models.registry import DEFAULT, list_models
from .classification import FORMATS, MAX_PROMPTS, Models, Question, classification
from .examples import Example, examples
from .guard import Guard
from .jobs import BusyError, Job, Jobs

PORT = 8320
MAX_BYTES = 16 << 20
"""Of an uploaded picture."""
UPLOAD_SECONDS = 30.0
"""That a browser may take to send it, so that a slow one does not keep a seat."""
MAX_CONNECTIONS = 64
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "png": "image/png"}


class RefusedError(DiffclsError):
    """A request that is answered with `status` and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Stream:
    """A response that tells a job's events as lines of JSON, and lets the job go when the browser is gone."""

    def __init__(self, job: Job) -> None:
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        headers = [(b"content-type", b"application/x-ndjson")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while (event := await self._next(gone)) is not None:
                line = json.dumps(event, allow_nan=False).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            self.job.leave()
            gone.cancel()

    async def _next(self, gone: asyncio.Future[None]) -> dict[str, Any] | None:
        """The next event; None after the last, or when nobody is there to read it."""
        event = asyncio.ensure_future(self.job.events.get())
        both: set[asyncio.Future[Any]] = {event, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if event.done():
            return event.result()
        event.cancel()
        return None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def make_app(port: int, jobs: Jobs | None = None) -> Guard:
    """The whole server as an ASGI application for one port.

    Everything that a GET can answer is read here, once: an address is the key of a table and never becomes a path.
    """
    described = list_models()
    models = Models([model["name"] for model in described])
    shown = examples()
    table = {file.name: file.read_bytes() for file in files("diffcls.web").joinpath("page").iterdir()}
    table |= {example.name: example.png for example in shown}
    table |= {"": table["index.html"], "facts.json": json.dumps(_facts(described, shown)).encode()}
    taken = jobs or Jobs()

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in table:
            return JSONResponse({"error": "there is no such page"}, 404)
        kind = TYPES.get((name or "index.html").rpartition(".")[2], "application/json")
        return Response(table[name], media_type=kind)

    async def classify(request: Request) -> Response | Stream:
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                question, data = await accept(request)
        except TimeoutError:
            return _refusal(408, f"the picture did not arrive within {UPLOAD_SECONDS:g} seconds")
        except ClientDisconnect:
            return _refusal(400, "the picture did not arrive")
        except RefusedError as error:
            return _refusal(error.status, str(error))
        return Stream(taken.start(lambda job: classification(models, question, data, job)))

    async def accept(request: Request) -> tuple[Question, bytes]:
        """Leaves with a seat taken, or raises with none."""
        try:
            question = _question(request)
            taken.take_seat()
        except DiffclsError as error:
            await _body(request, 0)
            raise RefusedError(503 if isinstance(error, BusyError) else 400, str(error)) from None
        try:
            return question, await _body(request, MAX_BYTES)
        except BaseException:
            taken.free_seat()
            raise

    routes = [Route("/classify", classify, methods=["POST"]), Route("/{name:path}", page, methods=["GET"])]
    return Guard(Starlette(routes=routes), port)


def _facts(described: list[dict[str, Any]], shown: list[Example]) -> dict[str, Any]:
    """What the page needs to know before anything is asked."""
    models = [
        {name: model[name] for name in ("name", "classes", "words", "licence")}
        for model in sorted(described, key=lambda model: model["name"] != DEFAULT)
    ]
    pictures = [{"model": e.model, "address": e.name, "shows": e.shows, "prompts": e.prompts} for e in shown]
    return {
        "models": models,
        "examples": pictures,
        "max_bytes": MAX_BYTES,
        "max_prompts": MAX_PROMPTS,
        "formats": FORMATS,
    }


def _question(request: Request) -> Question:
    """Of the address: model, prompts (a JSON list) and the picture's name."""
    query = request.query_params
    prompts = None
    if "prompts" in query:
        try:
            prompts = json.loads(query["prompts"])
        except (ValueError, RecursionError):
            raise InputError("prompts is no JSON, must be a list of texts") from None
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError("prompts must be a list of texts")
    name = "".join(c for c in query.get("name", "").replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return Question(query.get("model", DEFAULT), prompts, name[-100:] or "picture.png")


async def _body(request: Request, keep: int) -> bytes:
    """No more than `keep` bytes are ever in memory, whatever the request says of its length.

    More is read and thrown away, up to a bound: a browser that is still sending does not read its refusal.
    """
    told = request.headers.get("content-length", "0")
    parts, n_bytes = [], int(told) if told.isdecimal() else 0
    if n_bytes <= 8 * MAX_BYTES:
        n_bytes = 0
        async for part in request.stream():
            n_bytes += len(part)
            if n_bytes <= keep:
                parts.append(part)
            elif n_bytes > 8 * MAX_BYTES:
                break
    if n_bytes > MAX_BYTES:
        raise RefusedError(413, f"the picture has more than {MAX_BYTES >> 20} MB, which is all that this page takes")
    if n_bytes == 0:
        raise RefusedError(400, "the request has no picture")
    return b"".join(parts)


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers={"Connection": "close"})


# ---- from the command line -------------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    """A listening socket on this machine's own address; port 0: any that is free.

    Raises
    ------
    ValueError
        The port is taken, or not to be had.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        sock.close()
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"port {port} can not be had ({why}): name another one, or --port 0 for any that is free"
        ) from None
    return sock


class Ending(Server):
    """A server that says nothing of the requests that its own end cuts off."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def serve(port: int = PORT, *, browser: bool = True, say: Callable[[str], None] = print) -> None:
    """Serves the page until Ctrl-C.

    Parameters
    ----------
    port : int
    browser : bool
        Open it, where there is a screen.
    say : callable(line)

    Raises
    ------
    ValueError
        The port can not be had.
    """
    sock = listen(port)
    port = sock.getsockname()[1]
    jobs = Jobs()
    config = Config(
        make_app(port, jobs), log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none", lifespan="off",
        limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}/"
    say(f"diffcls: {address} (this machine only; Ctrl-C ends it)")
    if browser and has_screen():
        webbrowser.open(address)
    with warnings.catch_warnings(), suppress(KeyboardInterrupt):
        warnings.simplefilter("ignore", OutOfWorldWarning)  # the page says it
        Ending(config).run(sockets=[sock])
    jobs.close()
    say("diffcls: ended")


def has_screen() -> bool:
    """Whether a browser that is opened would be seen, and not be one for terminals."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
