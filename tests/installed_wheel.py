"""A wheel in bare environments, far from the sources.  Not a pytest module: `make wheel` runs it.

    python tests/installed_wheel.py WHEEL                    # alone: NumPy and nothing else
    python tests/installed_wheel.py WHEEL --extras plot ray  # each extra in an environment of its own; "all": every one

WHEEL is a file, or a folder that has one for the interpreter.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

TORCH = "torch==2.13.0"  # a CPU build; a plain "torch" pulls gigabytes of CUDA
HEAVY = ("torch", "PIL", "matplotlib", "scipy", "pyarrow", "tqdm", "jax", "cupy", "sklearn", "ray", "diffusers")

BARE = """
import json, subprocess, sys
from pathlib import Path
import diffcls
assert Path(sys.prefix) in Path(diffcls.__file__).parents, diffcls.__file__
assert "numpy" not in sys.modules
from diffcls.models import demo_pictures
pictures, labels = demo_pictures.load()
answers = diffcls.classify(pictures[:12])
right = sum(int(i) == int(k) for i, k in zip(answers.index, labels))
assert right >= 10, right
assert not {heavy!r} & set(sys.modules), sys.modules
command = str(Path(sys.executable).with_name("diffcls"))
said = subprocess.run([command, "info", "--json"], check=True, capture_output=True, text=True).stdout
facts = json.loads(said)
assert facts["diffcls"] == diffcls.__version__ and facts["cuda"] and not any(facts["extras"][m] for m in ("torch", "ray"))
listed = subprocess.run([command, "models"], check=True, capture_output=True, text=True).stdout
assert "digits-and-clothes" in listed
shown = subprocess.run([command, "demo"], capture_output=True, text=True)
assert shown.returncode == 0 and "diffcls[plot]" in shown.stderr and " of 48 right" in shown.stdout, shown
print(f"{{right}} of 12 right, losses {{answers.losses.sum().hex()}}")
"""

# what an extra promises: this runs in an environment that has no other
PROBES = {
    "completion": "import diffcls.cli as c\nassert c.main(['completion', 'bash']) == 0",
    "image": """
from PIL import Image
Image.fromarray(pictures[0]).save("a.png")
assert diffcls.classify("a.png").index == labels[0]
""",
    "plot": """
import diffcls.cli as c
assert c.main(["demo", "--out", "sheet.png"]) == 0
diffcls.classify(pictures[0]).plot().figure_.savefig("race.png")
""",
    "progress": """
import io
sys.stderr = io.StringIO()
sys.stderr.isatty = lambda: True  # a bar is for somebody who watches
diffcls.classify(pictures[:2], progress=True)
assert "tqdm" in sys.modules and "2 pictures" in sys.stderr.getvalue()
""",
    "results": """
assert diffcls.classify(pictures[0]).to_arrow().num_rows == 20
report = diffcls.evaluate(diffcls.Classifier(), pictures[:8], labels=labels[:8], out="run", progress=False)
assert report.n_judged == 8 and diffcls.Report.load("run").accuracy == report.accuracy
table = diffcls.Classifier().error_table(pictures[:2], n_samples=20)
table.save("a.arrow")
assert (diffcls.ErrorTable.load("a.arrow").errors == table.errors).all()
""",
    "sklearn": """
from diffcls.sklearn import DiffusionClassifier
import numpy as np
X, y = np.eye(4)[[0, 1, 2, 3] * 3], np.array([0, 1, 2, 3] * 3)
assert (DiffusionClassifier().fit(X, y).predict(X) == y).all()
""",
    "ray": """
import numpy as np
import diffcls.ray
if __name__ == "__main__":
    report = diffcls.ray.evaluate(diffcls.Classifier, pictures[:4], labels=labels[:4], out="run", workers=1, shards=1)
    assert report.n_judged == 4
""",
    "torch": """
import torch
from diffcls.torch import DiffusionClassifier, twin
module = DiffusionClassifier(twin(), n_samples=2)
x = module.encode(pictures[:2]).requires_grad_()
module(x)[:, 0].sum().backward()
assert x.grad.abs().sum() > 0
""",
    "diffusers": """
from PIL import Image, ImageDraw
picture = Image.new("RGB", (32, 32), "black")
draw = ImageDraw.Draw(picture)
draw.ellipse((2, 10, 13, 21), fill="red")
draw.rectangle((18, 10, 29, 21), fill="blue")
result = diffcls.classify(picture, ["a red circle", "a green ring"], model="shapes", policy=diffcls.Fixed(20))
assert result.label == "a red circle", result
""",
    "cuda": """
from importlib.metadata import version
from cuda.pathfinder import load_nvidia_dynamic_lib
assert version("nvidia-cublas") and load_nvidia_dynamic_lib("cublasLt").abs_path
assert diffcls.cuda.is_available() or diffcls.cuda.why_not()
""",
    "web": "from diffcls.web.server import make_app\nassert make_app(8320)",
    "train": """
import runpy
sys.argv = ["train", "--help"]
try:
    runpy.run_module("diffcls.models.train", run_name="__main__")
except SystemExit as done:
    assert done.code == 0
from diffcls.models.torch_dit import Config, DiT
import torch, safetensors.torch, scipy, PIL
""",
}
FIRST = (
    "import sys, warnings\nwarnings.simplefilter('ignore')\nimport diffcls\n"
    "from diffcls.models import demo_pictures\npictures, labels = demo_pictures.load()\n"
)
NOT_FOR_USERS = ("test", "bench", "docs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter that makes the environment")
    parser.add_argument("--extras", nargs="+", default=[])
    options = parser.parse_args()
    wheel = wheel_for(options.python, options.wheel.resolve())
    known = [extra for extra in extras_of(wheel) if extra not in NOT_FOR_USERS]
    chosen = known if options.extras == ["all"] else options.extras
    for extra in set(chosen) - set(known):
        raise SystemExit(f"{wheel.name} has no extra {extra!r}; it has {', '.join(known)}")
    if not options.extras:
        try_out(options.python, [str(wheel)], BARE.format(heavy=set(HEAVY)), "bare")
    for extra in chosen:
        probe = FIRST + PROBES[extra]
        try_out(options.python, [f"diffcls[{extra}] @ {wheel.as_uri()}"], probe, extra)


def wheel_for(python, where):
    if where.is_file():
        return where
    version = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2], sep='')"], check=True, text=True, capture_output=True
    )
    (wheel,) = where.glob(f"diffcls-*-cp{version.stdout.strip()}-*.whl")
    return wheel


def extras_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_all("Provides-Extra")


def try_out(python, wanted, script, name):
    """A new environment in a temporary folder; the script runs there, isolated from this checkout."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        inside = f"{folder}/venv/bin/python"
        install = [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if name in ("diffusers", "train", "torch"):
            subprocess.run([*install, TORCH], check=True)
        subprocess.run([*install, *wanted], check=True)
        subprocess.run([inside, "-m", "pip", "check"], check=True, capture_output=True)
        subprocess.run([inside, "-I", "-c", script], check=True, cwd=folder)
        print(f"{name}: good, with {python}", flush=True)


if __name__ == "__main__":
    main()
