"""How long does ``diffcls classify`` take on one picture, from a cold process to the answer?  Target: 2 s."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from diffcls.models import demo_pictures


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        Image.fromarray(demo_pictures.load()[0][3]).resize((280, 280)).save(path)
        commands = {
            "classify": [sys.executable, "-m", "diffcls", "classify", str(path)],
            "import diffcls": [sys.executable, "-c", "import diffcls"],
            "python alone": [sys.executable, "-c", "pass"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, command in commands.items():
                began = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds[name].append(time.perf_counter() - began)
                assert name != "classify" or "digit seven" in done.stdout
    results = [
        {"command": name, "median_s": float(np.median(values)), "max_s": max(values)}
        for name, values in seconds.items()
    ]
    common.record("cold_start", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
