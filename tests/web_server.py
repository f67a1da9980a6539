"""The page's server in a thread of this process, and requests to it over real sockets."""

from __future__ import annotations

import http.client
import io
import json
import threading
import urllib.parse
from contextlib import contextmanager

import numpy as np
import uvicorn
from PIL import Image

from diffcls.web.server import listen, make_app


@contextmanager
def running(jobs=None):
    """Gives the port."""
    sock = listen(0)
    port = sock.getsockname()[1]
    config = uvicorn.Config(make_app(port, jobs), log_level="warning", lifespan="off", ws="none", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def ask(port, method, address, body=None, headers=None):
    """(status, headers, body) of one request, its address as it is written here."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, address, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def address_of(**query):
    return "/classify?" + urllib.parse.urlencode(
        {name: json.dumps(value) if isinstance(value, list) else value for name, value in query.items()}
    )


def classify(port, picture, **query):
    """The events of a picture that is classified, in order; a refusal is one event "refused"."""
    status, _, body = ask(port, "POST", address_of(**query), picture)
    if status != 200:
        return [{"event": "refused", "status": status, **json.loads(body)}]
    return [json.loads(line) for line in body.splitlines()]


def png(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(file, kind, **options)
    return file.getvalue()
