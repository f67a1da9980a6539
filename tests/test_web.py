"""The page's server over real sockets: what it answers, what it refuses, and that it ends what nobody waits for."""

import json
import re
import socket
import struct
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from web_server import address_of, ask, classify, png, running  # noqa: E402

import diffcls  # noqa: E402
from diffcls.models import demo_pictures  # noqa: E402
from diffcls.web import server as web  # noqa: E402
from diffcls.web.jobs import Job, Jobs  # noqa: E402

PICTURES, LABELS = demo_pictures.load()
pytestmark = pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")


@pytest.fixture(scope="module")
def port():
    with running() as port:
        yield port


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


# ---- the answer is classify's ----------------------------------------------------------------------------------------


def test_the_printed_python_gives_the_same_numbers(port, tmp_path, monkeypatch):
    picture = png(PICTURES[30])
    events = classify(port, picture, name="a 'shirt'.png", prompts=["shirt", "coat", "T-shirt", "digit one"])
    assert [event["event"] for event in events if event["event"] not in ("loading", "round")] == [
        "start", "result", "evidence",
    ]  # fmt: skip
    told, evidence = of_kind(events, "result")[0], of_kind(events, "evidence")[0]
    (tmp_path / "a 'shirt'.png").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(told["code"].replace("evidence.plot()", ""), names)  # the page's own code, without its figure
    result, found = names["result"], names["evidence"]
    for name in ("losses", "stderr", "excess", "n_trials", "alive", "probabilities"):
        np.testing.assert_array_equal(np.array(told[name], float), getattr(result, name).astype(float))
    for name in ("label", "n_evals", "status", "p_disagree", "trace", "warnings", "unlike_training"):
        assert told[name] == getattr(result, name)
    assert told["kind"] == result.kind_of_probability
    np.testing.assert_array_equal(evidence["map"], found.spatial(smoothing=1.0))
    assert (evidence["a"], evidence["b"]) == (result.to_list(2)[0]["label"], result.to_list(2)[1]["label"])
    assert (evidence["mean"], evidence["n_evals"]) == (found.mean, 200)


def test_rounds_are_told_one_by_one(port):
    events = classify(port, png(PICTURES[0]))
    rounds, result = of_kind(events, "round"), of_kind(events, "result")[0]
    assert [len(event["trace"]) for event in rounds] == list(range(1, len(result["trace"]) + 1))
    assert [sum(event["alive"]) for event in rounds] == [row["n_alive"] for row in result["trace"]]
    assert rounds[-1]["probabilities"] == result["probabilities"]
    start = of_kind(events, "start")[0]
    assert start["classes"] == diffcls.Classifier().classes and start["max_evals"] == 10_000
    assert start["seen"].startswith("data:image/png;base64,")


@pytest.mark.torch
def test_prompts_of_the_model_of_shapes(port, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    _, _, body = ask(port, "GET", "/facts.json")
    example = next(e for e in json.loads(body)["examples"] if e["model"] == "shapes")
    _, _, picture = ask(port, "GET", "/" + example["address"])
    asked = {"model": "shapes", "prompts": example["prompts"], "name": "scene.png"}
    told = of_kind(classify(port, picture, **asked), "result")[0]
    (tmp_path / "scene.png").write_bytes(picture)
    expected = diffcls.classify(tmp_path / "scene.png", example["prompts"], model="shapes")
    np.testing.assert_array_equal(told["losses"], expected.losses)
    assert told["label"] == expected.label
    assert 'diffcls.Classifier("shapes", [' in told["code"] and told["kind"] == "uncalibrated probability"
    strange = classify(port, picture, model="shapes", prompts=["a red circle", "a red elephant"])
    assert "has the word 'elephant'" in strange[-1]["message"]


def test_a_photograph_is_turned_as_its_camera_says(port, tmp_path):
    from PIL import Image

    upright = Image.fromarray(np.kron(PICTURES[26], np.ones((8, 8), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright.rotate(90).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    events = classify(port, (tmp_path / "photo.jpg").read_bytes(), name="photo.jpg")
    expected = diffcls.classify(tmp_path / "photo.jpg")
    assert of_kind(events, "result")[0]["losses"] == expected.losses.tolist() and expected.label == "ankle boot"


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"%PDF-1.7 no picture at all", "boot.png is not a picture that Pillow reads (it is none of PNG, JPEG"),
        (png(PICTURES[0])[:200], "boot.png is not a picture that Pillow reads"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of PNG"),
        (png(PICTURES[0], "TIFF"), "it is none of PNG"),
    ],
)
def test_what_is_no_picture(port, body, sentence):
    (event,) = classify(port, body, name="boot.png")
    assert event["event"] == "error" and sentence in event["message"]


def bomb(width, height):
    """A PNG of so many black pixels in a few hundred bytes; only its header needs to be true."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(999)))]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [*chunks, (b"IEND", b"")]:
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


@pytest.mark.parametrize(("width", "height"), [(5001, 5001), (13_000, 13_000), (30_000, 30_000)])
def test_a_bomb_is_refused_by_its_header(port, width, height):
    (event,) = classify(port, bomb(width, height), name="bomb.png")
    assert event["event"] == "error" and "bomb.png has" in event["message"] and "pixels" in event["message"]


def test_a_huge_file(port):
    (event,) = classify(port, bytes(web.MAX_BYTES + 1))
    assert (event["status"], event["error"]) == (
        413,
        "the picture has more than 16 MB, which is all that this page takes",
    )
    assert ask(port, "POST", "/classify", b"", {"Content-Length": str(10**15)})[0] == 413  # nothing is waited for


def test_a_huge_file_that_does_not_say_so(port):
    """It is read to its end, so that its sender reads the refusal, and not kept."""
    part = bytes(1 << 20)
    tracemalloc.start()
    try:
        assert ask(port, "POST", "/classify", (part for _ in range(100)))[0] == 413
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * web.MAX_BYTES


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"prompts": ["bag"]}, "there are 1 prompts, must be 2 to 50"),
        ({"prompts": ["bag"] * 51}, "there are 51 prompts"),
        ({"prompts": ["bag", "x" * 201]}, "is longer than 200 characters"),
        ({"prompts": "not json"}, "prompts is no JSON"),
        ({"prompts": "[1, 2]"}, "prompts must be a list of texts"),
        ({"prompts": "[" * 5_000}, "prompts is no JSON"),
    ],
)
def test_impossible_prompts(port, query, sentence):
    (event,) = classify(port, png(PICTURES[0]), **query)
    assert event["status"] == 400 and sentence in event["error"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"model": "/etc"}, "model is '/etc', must be one of digits-and-clothes, shapes"),
        ({"model": "owner/name"}, "model is 'owner/name', must be one of"),
        ({"prompts": ["bag", "zebra"]}, "zebra"),
        ({"prompts": ["shoe", "bag"]}, "shoe"),
        ({"prompts": ["bag", "bag"]}, "bag"),
    ],
)
def test_what_the_models_do_not_know(port, query, sentence):
    events = classify(port, png(PICTURES[0]), **query)
    assert events[-1]["event"] == "error" and sentence in events[-1]["message"]


def test_a_request_without_a_picture(port):
    assert classify(port, b"")[0]["error"] == "the request has no picture"
    assert ask(port, "GET", "/classify")[0] in (404, 405)
    assert ask(port, "PUT", "/classify", b"x")[0] == 405


# ---- who may ask, and for what ---------------------------------------------------------------------------------------


def test_every_file_of_the_page_is_served_and_nothing_comes_from_elsewhere(port):
    for name in (
        "",
        "index.html",
        "style.css",
        "page.js",
        "picture.js",
        "race.js",
        "evidence.js",
        "icon.svg",
        "facts.json",
    ):
        status, headers, body = ask(port, "GET", f"/{name}")
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        foreign = re.findall(r"""https?:[^"' ]*|["'(]//""", body.decode())
        assert set(foreign) <= {"http://www.w3.org/2000/svg"}  # a name, not an address


@pytest.mark.parametrize(
    "address",
    [
        "/../pyproject.toml", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd",
        "/etc/passwd", "/page/index.html", "/./style.css", "/style.css/", "/..\\..\\etc\\passwd", "/style.css%00.png", "/server.py",
        "/../server.py", "/%252e%252e/server.py", "/file:///etc/passwd", "/index.html/../server.py",
    ],
)  # fmt: skip
def test_no_file_outside_the_page(port, address):
    status, _, body = ask(port, "GET", address)
    assert (status, json.loads(body)) == (404, {"error": "there is no such page"})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "", "127.0.0.1:{port}."]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_name_is_refused(port, host, method):
    """DNS rebinding: the browser believes that this server is the site that it just visited."""
    status, headers, body = ask(port, method, "/", b"", {"Host": host.format(port=port)})
    assert status == 421 and "this server is not" in json.loads(body)["error"] and "diffcls" not in body.decode()
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_its_own_names(port):
    for name in ("127.0.0.1", "localhost"):
        assert ask(port, "GET", "/", headers={"Host": f"{name}:{port}"})[0] == 200


def test_another_site_can_not_ask(port):
    picture = png(PICTURES[0])
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert ask(port, "POST", "/classify", picture, headers)[0] == 403
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(port, "POST", "/classify", picture, own)[0] == 200


def test_only_this_machine_is_listened_to():
    with web.listen(0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


# ---- several users, and users who leave ------------------------------------------------------------------------------


class Gate:
    """Holds `diffcls.web`'s classification at its start: jobs that run as long as a test wants."""

    def __init__(self, monkeypatch):
        self.open, self.begun, self.ended = threading.Event(), [], []
        monkeypatch.setattr(web, "classification", self.work)

    def work(self, models, question, data, job):
        self.begun.append(question.name)
        try:
            yield {"event": "start"}
            while not self.open.wait(0.01):
                job.check()
            yield {"event": "result"}
        finally:
            self.ended.append(question.name)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def post(port, name):
    """A socket on which a classification was asked for and not answered yet."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(
        f"POST {address_of(name=name)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 1\r\n\r\nx".encode()
    )
    return sock


def test_some_run_some_wait_and_more_are_told_that_it_is_busy(gate):
    jobs, answers = Jobs(n_running=2, n_waiting=1), []
    with running(jobs) as port:
        users = [threading.Thread(target=lambda: answers.append(classify(port, b"x"))) for _ in range(3)]
        for user in users:
            user.start()
        wait_for(lambda: jobs._n_taken == 3 and len(gate.begun) == 2)
        (refused,) = classify(port, bytes(8 << 20))  # though it is still being sent when there is no seat for it
        assert refused["error"] == "busy: 2 pictures are being classified and 1 wait; try again in a moment"
        assert len(gate.begun) == 2
        gate.open.set()
        for user in users:
            user.join()
        assert [[event["event"] for event in told] for told in answers] == [["start", "result"]] * 3
        assert classify(port, b"x")[-1]["event"] == "result"  # seats are free again


def test_users_at_once_have_their_own_answers(port):
    chosen, told = (8, 3, 26, 34), {}
    expected = {i: diffcls.classify(PICTURES[i]) for i in chosen}
    users = [
        threading.Thread(target=lambda i=i: told.update({i: classify(port, png(PICTURES[i]), name=f"{i}.png")}))
        for i in chosen
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()
    for i in chosen:
        (result,) = of_kind(told[i], "result")
        assert result["losses"] == expected[i].losses.tolist() and f'"{i}.png"' in result["code"]


def test_refused_pictures_keep_no_seat(gate):
    gate.open.set()
    with running(Jobs(n_running=1, n_waiting=0)) as port:
        for _ in range(3):
            assert classify(port, bytes(web.MAX_BYTES + 1))[0]["status"] == 413
            assert classify(port, b"")[0]["status"] == 400
            with socket.create_connection(("127.0.0.1", port)) as sock:  # leaves in the middle of its picture
                sock.sendall(
                    f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\nx".encode()
                )
        wait_for(lambda: classify(port, b"x")[-1]["event"] == "result")


def test_a_slow_upload_gives_its_seat_back(gate, monkeypatch):
    monkeypatch.setattr(web, "UPLOAD_SECONDS", 0.2)
    gate.open.set()
    with running(Jobs(n_running=1, n_waiting=0)) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\nx".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 408")
        assert classify(port, b"x")[-1]["event"] == "result"


def test_who_leaves_stops_the_work(gate, monkeypatch):
    jobs, left, leave = Jobs(n_running=1, n_waiting=1), [], Job.leave
    monkeypatch.setattr(Job, "leave", lambda self: (left.append(self), leave(self)))
    with running(jobs) as port:
        first = post(port, "first")
        wait_for(lambda: gate.begun == ["first"])
        second = post(port, "second")
        wait_for(lambda: jobs._n_taken == 2)
        second.close()  # while it waits: it never begins
        wait_for(lambda: len(left) == 1)
        first.close()
        wait_for(lambda: gate.ended == ["first"] and jobs._n_taken == 0)
        gate.open.set()
        assert classify(port, b"x", name="third")[-1]["event"] == "result"
        assert gate.begun == ["first", "third"]


def test_a_race_stops_when_its_user_leaves(monkeypatch, gaussian):
    """The real classification, of a denoiser that counts: no evaluation after the browser is gone."""
    from diffcls.web import classification

    asked = []

    def slow(x_t, t, cond):
        asked.append(len(t))
        time.sleep(0.1)
        return np.zeros_like(x_t)

    denoiser = diffcls.Denoiser(
        slow,
        shape=(1, 28, 28),
        schedule=gaussian.schedule,
        n_classes=5,
        encode=lambda image: np.zeros((1, 28, 28), np.float32),
    )
    denoiser.policy = diffcls.Fixed(1000)
    monkeypatch.setattr(classification, "load", lambda name: denoiser)
    with running() as port:
        sock = socket.create_connection(("127.0.0.1", port))
        picture = png(PICTURES[0])
        head = f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(picture)}\r\n\r\n"
        sock.sendall(head.encode() + picture)
        wait_for(lambda: len(asked) > 3)
        sock.close()
        while (n_asked := len(asked)) and (time.sleep(0.5) or len(asked) > n_asked):
            pass
        assert sum(asked) < 5000  # of all that it would have been


def test_work_that_takes_too_long_ends(gate):
    with running(Jobs(seconds=0.2)) as port:
        assert classify(port, b"x")[-1] == {
            "event": "error",
            "message": "this took more than 0.2 seconds, which is all that one picture gets here",
        }


def test_a_mistake_of_ours_tells_the_user_no_secret(monkeypatch, caplog):
    def broken(models, question, data, job):
        raise ZeroDivisionError("secret")
        yield

    monkeypatch.setattr(web, "classification", broken)
    with running() as port:
        assert classify(port, b"x") == [
            {"event": "error", "message": "something broke in the server; its terminal says what"}
        ]
    assert "secret" in caplog.text
