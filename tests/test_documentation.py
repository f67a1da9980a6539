"""The documentation is whole: every public name is in the reference, every error on its page, every figure has its command."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import diffcls

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MODULES = sorted({*diffcls._MODULES, *diffcls._EXTRAS})

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the tests are not in a whole checkout")


def names_of(module):
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


def public():
    """(name, object) of functions and classes, each object once."""
    found = {}
    places = [(diffcls, diffcls._HOME)]
    for name in MODULES:
        module = importlib.import_module(f"diffcls.{name}")
        places.append((module, names_of(module)))
    for module, names in places:
        for name in names:
            value = getattr(module, name)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value not in found.values():
                found[f"{module.__name__}.{name}"] = value
    return found


PUBLIC = public()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_a_text(name):
    assert inspect.cleandoc(PUBLIC[name].__doc__ or "")


def test_every_public_name_is_in_the_reference():
    text = (DOCS / "reference.md").read_text()
    listed = re.findall(r"^   (\w+)$", text, re.M)
    assert len(listed) == len(set(listed))
    wanted = {*diffcls._HOME, *MODULES}
    assert set(listed) == wanted, f"add to docs/reference.md: {wanted - set(listed)}; take out: {set(listed) - wanted}"


def test_errors_page_tells_of_every_error():
    text = (DOCS / "errors.md").read_text()
    for name, value in PUBLIC.items():
        if inspect.isclass(value) and issubclass(value, (diffcls.DiffclsError, Warning)):
            assert f"## {name.rpartition('.')[2]}\n" in text, name


def test_every_script_and_record_is_in_the_table_of_figures():
    text = (DOCS / "reproduce.md").read_text()
    scripts = [path.name for path in (ROOT / "benchmarks").glob("*.py") if path.name != "common.py"]
    records = [path.name for path in (ROOT / "benchmarks" / "results").iterdir()]
    lacking = [name for name in [*scripts, *records] if f"{name}`" not in text]
    assert scripts and records and not lacking, f"docs/reproduce.md does not tell of {lacking}"
    for path in re.findall(r"`((?:benchmarks|diffcls|docs|notebooks)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"docs/reproduce.md tells of {path}, which is not there"


def test_every_path_in_the_pages_exists():
    for page in DOCS.glob("*.md"):
        for path in re.findall(
            r"`((?:csrc|diffcls|tests|benchmarks|docs|notebooks|release)/[\w./-]*\w)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name} tells of {path}"


def test_info_asks_for_what_the_extras_bring():
    tomllib = pytest.importorskip("tomllib")
    from diffcls.info import PACKAGES

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {
        re.match(r"[\w-]+", line)[0]
        for name, lines in extras.items()
        for line in lines
        if name not in ("test", "bench", "docs")
    }
    assert wanted <= set(PACKAGES)
