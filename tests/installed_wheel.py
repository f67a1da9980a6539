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
    "image": "from PIL import Image\nImage.new('L', (28, 28)).save('a.png')\nprint(diffcls.classify('a.png').label)",
    "plot": "import diffcls.cli as c\nassert c.main(['demo', '--out', 'sheet.png']) == 0",
    "progress": "r = diffcls.classify(pictures[:2], progress=True)\nassert 'tqdm' in sys.modules",
    "results": "assert diffcls.classify(pictures[0]).to_arrow().num_rows == 20",
    "sklearn": "from diffcls.sklearn import DiffusionClassifier\nimport numpy as np\n"
    "print(DiffusionClassifier().fit(np.eye(4)[[0, 1, 2, 3] * 3], [0, 1, 2, 3] * 3).predict(np.eye(4)))",
    "ray": "import diffcls.ray\nassert diffcls.ray.BatchClassifier",
    "diffusers": "assert len(diffcls.diffusers.families()) > 5\nimport diffusers, transformers, torch",
    "web": "from diffcls.web.server import make_app\nassert make_app(8320)",
    "train": "import torch, safetensors, scipy, PIL\nimport diffcls.models.torch_dit",
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
        probe = FIRST + PROBES.get(extra, "")
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
