"""The page in a real browser, headless: what people do with it, by mouse and by keyboard, wide and narrow, light and dark.

apt install chromium fonts-inter; pip install playwright     # what it needs beside the test extra's packages
python tests/test_web_page.py                                # draws the pictures of docs/web.md anew
"""

import io
import os
import re
import shutil
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffcls
from diffcls.models import demo_pictures

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")

from web_server import png, running  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs"
PICTURES, LABELS = demo_pictures.load()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH: see CONTRIBUTING.md"),
    pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a browser does not start under a sanitizer"),
    pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning"),
]


@contextmanager
def started_browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FAKE_CAMERA)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def port():
    with running() as port:
        yield port


@contextmanager
def opened(browser, port, *, expected="status of [45]", **options):
    """The page; at the end nothing may have been asked from elsewhere, and the browser may have complained of what is
    `expected` only: by itself it does of every refusal.
    """
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write", "camera"], **options)
    page, complaints, addresses = context.new_page(), [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(f"http://127.0.0.1:{port}/")
    page.get_by_role("button", name="All 20").wait_for()
    yield page
    context.close()
    own = (f"http://127.0.0.1:{port}/", f"blob:http://127.0.0.1:{port}/", "data:image/png;base64,")
    assert [address for address in addresses if not address.startswith(own)] == []
    assert [text for text in complaints if not re.search(expected, text)] == []


@pytest.fixture
def page(browser, port):
    with opened(browser, port, viewport={"width": 1200, "height": 900}) as page:
        yield page


def choose(page, name, data):
    page.get_by_label("Choose a picture").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
    page.locator(f'[alt="The chosen picture, {name}"]').wait_for(state="attached")


def finish(page, seconds=60):
    """Waits until nothing runs any more."""
    page.locator('#answer[aria-busy="false"]').wait_for(timeout=1000 * seconds)
    return page.locator("#label").inner_text()


def table(page):
    """Rows of the race as it is shown: (class, probability, trials, state)."""
    rows = page.locator("#rows tr").all()
    return [tuple(row.locator("td").all_inner_texts()[i] for i in (0, 2, 4, 5)) for row in rows]


def run_shown_code(code, folder, monkeypatch):
    """The `Result` that the page's Python gives."""
    names = {}
    monkeypatch.chdir(folder)
    exec(code.replace("evidence.plot()", ""), names)  # without its figure
    return names["result"]


# ---- ways to bring a picture -----------------------------------------------------------------------------------------


def test_upload_and_copy_the_python(page, tmp_path, monkeypatch):
    choose(page, "shirt.png", png(PICTURES[30]))
    page.get_by_role("button", name="Classify").click()
    label = finish(page)
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied.").wait_for()
    stage, preview = page.locator("#drop").bounding_box(), page.locator("#preview").bounding_box()
    assert preview["height"] <= stage["height"] and preview["width"] <= stage["width"]  # the whole picture is seen
    (tmp_path / "shirt.png").write_bytes(png(PICTURES[30]))
    expected = run_shown_code(page.evaluate("() => navigator.clipboard.readText()"), tmp_path, monkeypatch)
    assert label == expected.label
    best = {row[0]: row for row in table(page)}
    for i, name in enumerate(expected.classes):
        state = "the answer" if i == expected.index else "dropped"
        assert best[name] == (name, f"{expected.probabilities[i]:.3f}", str(expected.n_trials[i]), state)
    assert f"{expected.n_evals} evaluations instead of 10,000" in page.locator("#facts").inner_text()
    shown = page.locator("#map").evaluate("canvas => canvas.toDataURL().length")
    assert shown > 3000  # something is drawn
    assert (
        page.locator("#map")
        .get_attribute("aria-label")
        .startswith(f"Map over the picture. For {expected.label}: mostly")
    )


def test_draw_with_the_mouse(page, tmp_path, monkeypatch):
    page.get_by_label("Draw", exact=True).check()
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == "Draw something first."
    box = page.locator("#canvas").bounding_box()
    x, y, size = box["x"], box["y"], box["width"]
    for stroke in ([(0.25, 0.2), (0.75, 0.2), (0.45, 0.8)],):  # a seven
        page.mouse.move(x + stroke[0][0] * size, y + stroke[0][1] * size)
        page.mouse.down()
        for u, v in stroke[1:]:
            page.mouse.move(x + u * size, y + v * size, steps=12)
        page.mouse.up()
    page.get_by_role("button", name="Classify").click()
    assert finish(page) == "digit seven"
    with page.expect_download() as download:
        page.get_by_role("link", name="Save drawing.png").click()
    download.value.save_as(tmp_path / "drawing.png")
    expected = run_shown_code(page.locator("#code").inner_text(), tmp_path, monkeypatch)
    assert expected.label == "digit seven" and table(page)[0][1] == f"{expected.probabilities[expected.index]:.3f}"
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == "Draw something first."


def test_drop(page):
    page.evaluate(
        """bytes => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        list(png(PICTURES[13])),
    )
    page.get_by_alt_text("The chosen picture, dropped.png").wait_for()
    page.get_by_role("button", name="Classify").click()
    assert finish(page) == "digit zero"


def test_photograph(page):
    page.get_by_label("Camera", exact=True).check()
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_role("button", name="Take the photo").click()
    page.get_by_alt_text("The chosen picture, photo.png").wait_for()
    page.get_by_role("button", name="Classify").click()
    assert finish(page) in diffcls.Classifier().classes
    assert '"photo.png"' in page.locator("#code").inner_text()
    page.get_by_label("Camera", exact=True).check()  # the one before is off: it has to be started again
    page.get_by_role("button", name="Start the camera").wait_for()


def test_an_example_and_some_classes_only(page):
    for name in ("digit three", "digit eight", "digit five"):
        page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name="digit five", exact=True).click()  # and off again
    assert page.get_by_role("button", name="All 20").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Example: digit three").click()
    assert finish(page) == "digit three" and {row[0] for row in table(page)} == {"digit three", "digit eight"}
    page.get_by_role("button", name="All 20").click()
    page.get_by_role("button", name="Classify").click()
    finish(page)
    assert len(table(page)) == 20


@pytest.mark.torch
def test_prompts(page):
    pytest.importorskip("diffusers")
    page.get_by_label("shapes").check()
    page.get_by_role("button", name="Example:").first.click()
    label = finish(page, 120)
    prompts = page.get_by_label("One prompt a line").input_value().splitlines()
    assert label in prompts and sorted(prompts) == sorted(row[0] for row in table(page))
    assert page.locator("#kind").inner_text() == "uncalibrated probability"
    page.get_by_label("One prompt a line").fill(f"{prompts[0]}\n\n  {prompts[1]} \n")
    page.get_by_role("button", name="Classify").click()
    finish(page)
    assert sorted(row[0] for row in table(page)) == sorted(prompts[:2])
    page.get_by_label("One prompt a line").fill("a red circle\na red elephant")
    page.get_by_role("button", name="Classify").click()
    assert "has the word 'elephant'" in page.get_by_role("alert").inner_text()
    page.get_by_label("One prompt a line").fill("a red circle")
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == "Name two or more: a race needs at least two."
    page.get_by_label("Draw", exact=True).check()
    page.get_by_label("yellow").check()
    page.locator("#canvas").click()
    middle = page.locator("#canvas").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(140, 140, 1, 1).data]"
    )
    assert middle == [240, 225, 60, 255]  # the model's own yellow


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_wrong_file(page):
    choose(page, "letter.pdf", b"%PDF-1.7 no picture")
    page.get_by_text("letter.pdf can not be shown here").wait_for()
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text().startswith("letter.pdf is not a picture that Pillow reads")
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "<img src=x onerror=alert(1)>.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("alert").get_by_text(
        "<img src=x onerror=alert(1)>.png is not a picture"
    ).wait_for()  # read, not run
    choose(page, "three.png", png(PICTURES[8]))  # and on as if nothing had been
    page.get_by_role("button", name="Classify").click()
    assert finish(page) == "digit three" and page.get_by_role("alert").count() == 0


def test_a_huge_file_is_not_even_sent(page, tmp_path):
    (tmp_path / "huge.png").write_bytes(bytes(17 << 20))
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "huge.png")
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == "huge.png has 17 MB, more than the 16 that this page takes."
    assert "POST" not in sent


def test_no_picture(page):
    page.get_by_role("button", name="Classify").click()
    assert page.get_by_role("alert").inner_text() == "Choose a picture first, or take an example."


class Slow:
    """A classification that lasts until its user leaves."""

    def __init__(self, monkeypatch):
        self.begun, self.ended = threading.Event(), threading.Event()
        monkeypatch.setattr("diffcls.web.server.classification", self.work)

    def work(self, models, question, data, job):
        self.begun.set()
        try:
            yield {"event": "loading", "model": question.model}
            while True:
                self.ended.wait(0.01)
                job.check()
        finally:
            self.ended.set()


def test_stop(page, monkeypatch):
    slow = Slow(monkeypatch)
    page.get_by_role("button", name="Example:").first.click()
    page.get_by_text("Loading digits-and-clothes").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert slow.ended.wait(30) and page.get_by_role("button", name="Stop").is_disabled()


def test_closing_the_page_stops_the_work(browser, port, monkeypatch):
    slow = Slow(monkeypatch)
    with opened(browser, port) as page:
        page.get_by_role("button", name="Example:").first.click()
        assert slow.begun.wait(30)
    assert slow.ended.wait(30)


def test_busy_is_said(page, monkeypatch):
    from diffcls.web.jobs import Jobs

    monkeypatch.setattr(
        Jobs, "take_seat", lambda self: (_ for _ in ()).throw(diffcls.web.jobs.BusyError("busy: try again"))
    )
    page.get_by_role("button", name="Example:").first.click()
    assert page.get_by_role("alert").inner_text() == "busy: try again"


def test_what_the_library_refuses_is_said_too(page):
    page.route("**/classify?*", lambda route: route.fulfill(status=503, body="Service Unavailable"))
    page.get_by_role("button", name="Example:").first.click()
    assert page.get_by_role("alert").inner_text() == "The server refuses: Service Unavailable."


def test_a_server_that_has_ended(browser):
    with running() as port, opened(browser, port, expected="ERR_CONNECTION_REFUSED") as page:
        page.route("**/classify?*", lambda route: route.abort("connectionrefused"))
        choose(page, "a.png", png(PICTURES[0]))
        page.get_by_role("button", name="Classify").click()
        assert "is diffcls demo --web still running?" in page.get_by_role("alert").inner_text()


# ---- for everybody ---------------------------------------------------------------------------------------------------


def test_keyboard_only(page):
    """From the top of the page: draws a one, classifies it, copies the code; never a mouse, and the focus is always seen."""

    def tab_to(condition, key="Tab"):
        for _ in range(60):
            page.keyboard.press(key)
            focus = page.evaluate(
                """() => { const e = document.activeElement, o = e.closest("label") ?? e;
                return {id: e.id, value: e.value ?? "", text: e.textContent, outline: getComputedStyle(o).outlineStyle}; }"""
            )
            assert focus["outline"] == "solid", focus
            if condition(focus):
                return
        raise AssertionError("it can not be reached")

    tab_to(lambda focus: focus["value"] == "file")
    page.keyboard.press("ArrowRight")
    tab_to(lambda focus: focus["id"] == "canvas")
    for key, times in (("ArrowUp", 10), (" ", 1), ("ArrowDown", 20), (" ", 1)):
        for _ in range(times):
            page.keyboard.press(key)
    tab_to(lambda focus: focus["id"] == "go")
    page.keyboard.press("Enter")
    assert finish(page) == "digit one"
    tab_to(lambda focus: focus["id"] == "copy")
    page.keyboard.press("Enter")
    page.get_by_text("Copied.").wait_for()


def test_everything_that_can_be_operated_has_a_name(page):
    page.get_by_role("button", name="Example:").first.click()
    finish(page)
    for source in ("File", "Draw", "Camera"):
        page.get_by_label(source, exact=True).check()
        nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        operated = [
            node for node in nodes
            if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
        ]  # fmt: skip
        assert len(operated) > 30
        assert [node["role"]["value"] for node in operated if not node["name"]["value"].strip()] == []


def luminance(colour):
    """WCAG 2.2, relative luminance of sRGB in 0 to 255."""
    c = np.asarray(colour[:3], float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_every_text(browser, port, scheme):
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), of all texts that are shown, with a result and with a problem."""
    with opened(browser, port, color_scheme=scheme) as page:
        page.get_by_role("button", name="Example:").first.click()
        finish(page)
        page.evaluate(
            "() => { document.getElementById('problem').textContent = 'x'; document.getElementById('problem').hidden = false; }"
        )
        texts = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.disabled && !e.closest(".hidden")
                && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
                let b = e;
                while (b && getComputedStyle(b).backgroundColor === "rgba(0, 0, 0, 0)") b = b.parentElement;
                return [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, getComputedStyle(b).backgroundColor];
            })"""
        )
    assert len(texts) > 100
    for text, *colours in texts:
        front, ground = sorted(
            luminance([float(n) for n in colour[colour.index("(") + 1 : -1].split(",")]) for colour in colours
        )
        assert (ground + 0.05) / (front + 0.05) >= 4.5, (text, colours)


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_screen(browser, port, width):
    """Nothing is wider than the screen (WCAG 2.2, 1.4.10: 320 pixels), and a finger finds what it is to touch."""
    with opened(browser, port, viewport={"width": width, "height": 700}, has_touch=True) as page:
        page.get_by_role("button", name="Example:").first.tap()
        finish(page)
        assert 0 <= page.locator("#label").bounding_box()["y"] < 350  # the answer was brought into view
        for source in ("File", "Draw", "Camera"):
            page.get_by_label(source, exact=True).check()
            assert page.evaluate("() => document.documentElement.scrollWidth") == width
        assert page.get_by_role("button", name="Classify").bounding_box()["height"] >= 40
        for box in (button.bounding_box() for button in page.get_by_role("button").all()):
            assert box is None or (min(box["width"], box["height"]) >= 24 and box["x"] + box["width"] <= width)


def test_what_is_read_aloud(page):
    """The status line tells rounds and the answer, and is not hidden from screen readers while the race is shown."""
    page.get_by_role("button", name="Example: digit three").click()
    finish(page)
    assert page.get_by_role("status").first.inner_text().startswith("digit three, probability")
    assert page.locator("table caption").inner_text() == "Classes, best first"


# ---- pictures for the documentation ----------------------------------------------------------------------------------

SHOTS = {
    "web-light": {"color_scheme": "light", "viewport": {"width": 1180, "height": 1240}},
    "web-dark": {"color_scheme": "dark", "viewport": {"width": 1180, "height": 1240}},
    "web-narrow": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


def shoot(folder):
    """Digits in the light, prompts in the dark, clothes on a telephone; 256 colours each, so that they stay small."""
    with started_browser() as browser, running() as port:
        for name, options in SHOTS.items():
            with opened(browser, port, reduced_motion="reduce", **options) as page:
                if name == "web-dark":
                    page.get_by_label("shapes").check()
                example = {
                    "web-light": "Example: sandal",
                    "web-dark": "Example: a",
                    "web-narrow": "Example: ankle boot",
                }[name]
                page.get_by_role("button", name=example).first.click()
                finish(page, 120)
                page.mouse.move(0, 0)
                page.evaluate("() => document.activeElement.blur()")
                picture = Image.open(io.BytesIO(page.screenshot(full_page=name != "web-narrow")))
                few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                few.save(folder / f"{name}.png", optimize=True)
                print(folder / f"{name}.png", picture.size, (folder / f"{name}.png").stat().st_size)


def test_the_pictures_of_the_documentation_are_small():
    for name in SHOTS:
        assert (DOCS / f"{name}.png").stat().st_size < 150_000


if __name__ == "__main__":
    shoot(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
