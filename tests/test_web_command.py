"""``diffcls demo --web`` as a command: it serves, ends, says what is wrong in a sentence, and is whole in the package."""

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from web_server import ask  # noqa: E402

import diffcls  # noqa: E402
from diffcls.web import server as web  # noqa: E402

ROOT = Path(__file__).parent.parent


def command(*arguments, **options):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "diffcls", "demo", "--web", *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_the_command_serves_until_it_is_interrupted():
    process = command("--port", "0", "--no-browser")
    try:
        address = process.stdout.readline().split()[1]
        port = int(address.rstrip("/").rpartition(":")[2])
        assert ask(port, "GET", "/")[0] == 200
        with socket.create_connection(("127.0.0.1", port)) as sock:  # a request under way does not hold it up
            sock.sendall(f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\nx".encode())
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            told, errors = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, told, errors) == (0, "diffcls: ended\n", "")


def test_a_port_in_use_is_one_sentence():
    with web.listen(0) as sock:
        process = command("--port", str(sock.getsockname()[1]), "--no-browser")
        told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")
    assert errors.count("\n") == 1 and "can not be had (Address already in use): name another one" in errors


@pytest.mark.parametrize("port", [-1, 70_000])
def test_an_impossible_port(port):
    with pytest.raises(diffcls.InputError, match=f"port {port} can not be had"):
        web.listen(port)


@pytest.mark.parametrize(("wanted", "screen", "opened"), [(True, ":0", 1), (True, "", 0), (False, ":0", 0)])
def test_the_page_is_opened_where_it_can_be_seen(monkeypatch, wanted, screen, opened):
    addresses, lines = [], []
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(web.webbrowser, "open", addresses.append)
    monkeypatch.setattr(web.Server, "run", lambda self, sockets: None)
    web.serve(0, browser=wanted, say=lines.append)
    assert len(addresses) == opened and all(address in lines[0] for address in addresses)


def test_options_that_need_the_page(capsys):
    from diffcls.cli import main

    with pytest.raises(SystemExit):
        main(["demo", "--port", "80"])
    assert "--port and --no-browser go with --web" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    from diffcls.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "diffcls.web.server")
    assert main(["demo", "--web"]) == 1
    assert "diffcls demo --web needs uvicorn: pip install 'diffcls[web]'" in capsys.readouterr().err


def test_the_page_is_in_the_package():
    """Of the installed package as of the checkout, and nothing that the build would leave out."""
    own = {path.name for path in (ROOT / "diffcls/web/page").iterdir()}
    assert {file.name for file in files("diffcls.web").joinpath("page").iterdir()} == own and len(own) > 5
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "diffcls.web" in stated["packages"] and stated["package-data"]["diffcls.web"] == ["page/*"]
