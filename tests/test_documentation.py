"""The documentation is whole: every public name is in the reference, every error on its page, every figure has its command."""

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
import textwrap
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


# what raises nothing of its own though it takes something, and why
RAISES_NOTHING = {
    "diffcls.Results": "a sequence around what a classifier or a replay gives it",
    "diffcls.plotting.EliminationDisplay": "parts of a Result",
    "diffcls.plotting.ErrorMapDisplay": "an ErrorMap was checked where it was made",
    "diffcls.plotting.ReliabilityDisplay": "a ReliabilityCurve was checked where it was made",
    "diffcls.plotting.ReportDisplay": "a Report was checked where it was made",
    "diffcls.plotting.RiskCoverageDisplay": "a RiskCoverageCurve was checked where it was made",
    "diffcls.plotting.WinogroundDisplay": "a WinogroundReport was checked where it was made",
    "diffcls.sklearn.DiffusionClassifier": "scikit-learn's estimators check nothing before fit",
    "diffcls.sklearn.gaussian_denoiser": "called by fit, with arrays that it has checked",
    "diffcls.denoiser.Denoiser.time_of": "called by the core, with rows of the schedule",
    "diffcls.denoiser.Denoiser.to": "a device that is none is told of when the model is asked",
    "diffcls.denoiser.Denoiser.with_predict": "a function that is none is told of when it is called",
    "diffcls.profile.Profile.density": "a weighting was checked where it was made",
    "diffcls.selective.RiskCoverageCurve.coverage_at": "any number has an answer",
    "diffcls.tables.ErrorTable.terms": "a weighting was checked where it was made",
    "diffcls.testing.report.DenoiserReport.add": "appends",
    "diffcls.torch.evaluator.Evaluation.to_dict": "any text can stand before a name",
}

STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def sections_of(value, home=None):
    """{name: entries} of a NumPy docstring; an entry is a line that is not indented.

    "Parameters, result and errors are those of `other`": what it has not of its own, of the same `home`.
    """
    text = inspect.cleandoc(value.__doc__)
    parts = re.split(r"^(.+)\n-{3,}$", text, flags=re.M)
    own = {name: re.findall(r"^\S.*", body, re.M) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    for other in re.findall(r"(?:Parameters|`n`), result and errors are those of `(\w+)`", text):
        theirs = sections_of(getattr(home or inspect.getmodule(value), other), home)
        takes = inspect.signature(value).parameters
        theirs["Parameters"] = [name for name in names_in(theirs["Parameters"]) if name in takes]
        own = {name: own.get(name, []) + theirs.get(name, []) for name in {**own, **theirs}}
    return own


def methods():
    """(name, class, function, is a property) of the public methods that public classes and their bases have here."""
    found = {}
    for klass in {base: None for value in PUBLIC.values() if inspect.isclass(value) for base in value.__mro__}:
        for name, member in vars(klass).items() if klass.__module__.startswith("diffcls") else ():
            function = next(
                (getattr(member, part) for part in ("__func__", "fget", "func") if hasattr(member, part)), member
            )
            if inspect.isfunction(function) and not name.startswith("_"):
                is_property = not hasattr(member, "__func__") and function is not member
                found[f"{klass.__module__}.{klass.__name__}.{name}"] = (klass, function, is_property)
    return found


METHODS = methods()


def names_in(entries):
    return [name.strip() for entry in entries for name in entry.split(" : ")[0].split(",")]


def is_record(value):
    return inspect.isclass(value) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields"))


def parameters_of(value):
    if inspect.isclass(value) and issubclass(value, BaseException) and "__init__" not in vars(value):
        return {}  # a text, as every exception takes
    return inspect.signature(value).parameters


def raised_by(value):
    """Classes of errors that stand in a raise of a function's body, or of those that make an object."""
    made_by = [vars(value).get(name) for name in ("__init__", "__post_init__")] if inspect.isclass(value) else [value]
    found = set()
    for function in map(inspect.unwrap, filter(inspect.isfunction, made_by)):
        if function.__code__.co_filename != "<string>":  # what dataclasses write
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
                if (
                    isinstance(node, ast.Raise)
                    and isinstance(node.exc, ast.Call)
                    and isinstance(node.exc.func, ast.Name)
                ):
                    found.add(error_class(node.exc.func.id))
    return found


def error_class(name):
    return getattr(diffcls, name, None) or getattr(builtins, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_tell_what_they_take_give_and_raise(name):
    value = PUBLIC[name]
    hold(name, value, sections_of(value), parameters_of(value))


def hold(name, value, told, parameters):
    wanted = [STARS.get(p.kind, "") + name for name, p in parameters.items()]
    listed = names_in(told.get("Parameters", told.get("Attributes", []) if is_record(value) else []))
    if not any(name.startswith("**") for name in wanted) and "Parameters" in told:  # their names may be told one by one
        assert set(listed) <= set(wanted), "Parameters has what is none"
    assert len(listed) == len(set(listed))
    assert set(wanted) <= set(listed), f"Parameters lacks {[name for name in wanted if name not in listed]}"
    if inspect.isfunction(value) and inspect.signature(value).return_annotation not in (None, "None"):
        assert told.get("Returns") or told.get("Yields"), "has neither Returns nor Yields"
    checks_nothing = is_record(value) and not hasattr(value, "__post_init__")
    is_error = inspect.isclass(value) and issubclass(value, BaseException)
    if name in RAISES_NOTHING:
        assert "Raises" not in told, "take it out of RAISES_NOTHING"
    elif parameters and not checks_nothing and not is_error:
        assert told.get("Raises"), "Raises is missing"
    known = tuple(map(error_class, names_in(told.get("Raises", []))))
    unknown = [error.__name__ for error in raised_by(value) if not issubclass(error, known)]
    assert not unknown, f"Raises lacks {unknown}"


@pytest.mark.parametrize("name", METHODS)
def test_methods_tell_what_they_take_give_and_raise(name):
    klass, function, is_property = METHODS[name]
    assert function.__doc__ and inspect.cleandoc(function.__doc__).splitlines()[0]
    if not is_property:
        parameters = dict(inspect.signature(function).parameters)
        parameters.pop("self", parameters.pop("cls", None))
        hold(name, function, sections_of(function, klass), parameters)


def test_no_exception_is_left_over():
    assert set(RAISES_NOTHING) <= {*PUBLIC, *METHODS}


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


def test_fences_of_pages_run(gaussian, rng):
    """What a page shows without an answer is no doctest; on stand-ins for the reader's own model and pictures it runs."""
    images = gaussian.sample(rng.integers(0, 5, 60), rng)
    things = [f"thing {k}" for k in range(5)]
    model = gaussian.denoiser(class_names=[diffcls.protocol("cifar10").template.format(thing) for thing in things])
    names = {"diffcls": diffcls, "model": model, "class_names": things, "images": list(images), "denoiser": model}
    names["classifier"] = diffcls.Classifier(model, policy=diffcls.Race(pool=60))
    run = []
    for page in sorted(DOCS.glob("*.md")):
        for fence in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            if page.name != "ray.md":  # a cluster: tests/test_ray.py
                exec(fence, dict(names))
                run.append(page.name)
    assert {"denoisers.md", "policies.md", "published-defects.md"} <= set(run)


def extras():
    """{extra: what it asks for} of those that are for users."""
    tomllib = pytest.importorskip("tomllib")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {name: lines for name, lines in listed.items() if name not in ("test", "bench", "docs")}


def test_every_extra_is_told_and_tried():
    from installed_wheel import PROBES

    told = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), re.M)
    assert sorted(told) == sorted(PROBES) == sorted(extras())


def test_info_asks_for_what_the_extras_bring():
    from diffcls.info import PACKAGES

    wanted = {re.match(r"[\w-]+", line)[0] for lines in extras().values() for line in lines}
    assert wanted <= set(PACKAGES)
