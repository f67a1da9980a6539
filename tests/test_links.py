"""Links inside of the checkout lead somewhere: files exist, anchors are headings.  Links to elsewhere: `make links`."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "diffcls/models/*.md", "notebooks/*.ipynb")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s>]+)>?\)")

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the tests are not in a whole checkout")


def words_of(page):
    """The Markdown of a page or of a notebook's cells, without code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^(```+).*?^\1|`[^`\n]+`", "", text, flags=re.M | re.S)


def anchors_of(page):
    """As GitHub and MyST make them of headings: lower case, without punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^(```+).*?^\1", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links_of(page):
    return LINK.findall(words_of(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links_of(page):
        if re.match(r"\w+:", link):
            assert re.fullmatch(r"https://[\w.-]+\.\w+(/[^\s\"<>]*)?", link), f"{link} is no address"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert ROOT in target.parents, f"{link} leads out of the checkout"
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        assert not anchor or anchor in anchors_of(target), f"{link}: no such heading"


def test_the_links_are_found():
    """By their number in a page that everybody reads: a pattern that matches nothing would pass above."""
    assert len(links_of(ROOT / "README.md")) == (ROOT / "README.md").read_text().count("](") > 5
