"""What do the adapter and the loop cost above the bare module, and what does a process cost above the plain pipeline?

The module is a small UNet2DConditionModel of random weights, 32 rows a batch.  "module": it alone, on tensors that exist.
"adapter": what the core calls, NumPy in, tensor out.  "classify": a whole picture's trials, encoded once beforehand, a
batch's share of them.  All on one thread; target: 3 % above the module on a CPU (1 % at Stable Diffusion's shape on a GPU).
Processes: from their start to the first answer of the module, and the most memory that they held, for `diffcls.load` and for
diffusers' own `from_pretrained` of the same folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from diffusers import UNet2DConditionModel

import diffcls

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import pipelines

BATCH, TRIALS, PROMPTS = 32, 32, ["cat", "dog", "owl", "hen"]

ENDING = """
import json, time
seconds = time.time() - float(sys.argv[2])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # of this program, not of its parent
print(json.dumps({"seconds": seconds, "rss_mb": int(peak.split()[1]) / 1024}))
"""
PROCESSES = {
    "diffcls": """
import sys
import numpy as np
import diffcls
picture = np.zeros((16, 16, 3), np.uint8)
diffcls.classify(picture, ["cat", "dog"], model=sys.argv[1], policy=diffcls.Fixed(1), progress=False)
""",
    "plain pipeline": """
import sys
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
with torch.inference_mode():
    pixels = torch.zeros(1, 3, 16, 16)
    prompts, _ = pipe.encode_prompt(["cat", "dog"], "cpu", 1, False)
    latent = pipe.vae.encode(pixels).latent_dist.mean.repeat(2, 1, 1, 1)
    pipe.unet(latent, torch.tensor([500, 500]), prompts)
""",
}


def overhead(options: Any) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    diffcls.set_num_threads(1)
    pipe = pipelines.sd()
    wider = {**pipe.unet.config, "block_out_channels": (64, 128), "norm_num_groups": 8, "attention_head_dim": 4}
    pipe.register_modules(unet=pipelines.randomise(UNet2DConditionModel.from_config(wider), options.seed))
    model = diffcls.load(pipe)
    classifier = diffcls.Classifier(model, PROMPTS, policy=diffcls.Fixed(TRIALS), batch_size=BATCH, progress=False)
    rng = np.random.default_rng(options.seed)
    picture = classifier.encode(rng.integers(0, 256, (*model.adapter.size, 3), dtype=np.uint8))
    x_t = rng.standard_normal((BATCH, *model.shape)).astype(np.float32)
    timesteps = rng.integers(0, 1000, BATCH)
    conditions = np.arange(BATCH) % len(PROMPTS)
    hidden = classifier.denoiser.conditions["encoder_hidden_states"][torch.from_numpy(conditions)]
    tensors = torch.from_numpy(x_t), torch.from_numpy(timesteps), hidden
    entry = classifier.denoiser.entry()

    def module() -> Any:
        with torch.inference_mode():
            return pipe.unet(*tensors).sample

    def adapter() -> Any:
        return entry(x_t, timesteps, timesteps.astype(np.float64), conditions)

    def classify() -> Any:
        return next(classifier.classify_encoded([picture])).losses

    assert torch.allclose(module(), adapter(), atol=1e-5)
    timed = common.measure(
        {"module": module, "adapter": adapter, "classify": classify}, repeats=options.repeats, seed=options.seed
    )
    timed.seconds["classify"] = timed.seconds["classify"] / (TRIALS * len(PROMPTS) / BATCH)
    rows = []
    for name in ("adapter", "classify"):
        ratio = timed.ratio(name, "module")
        share = {f"above_{key}": 100 * (value - 1) for key, value in ratio.items()}
        rows.append({"what": f"{name}, % above the module", "module_ms": 1e3 * timed.median("module"), **share})
    return rows


def processes(options: Any) -> list[dict[str, Any]]:
    import time

    told: dict[str, list[dict[str, float]]] = {name: [] for name in PROCESSES}
    with tempfile.TemporaryDirectory() as folder:
        pipelines.sd().save_pretrained(folder)
        for _ in range(max(3, options.repeats // 4)):
            for name, code in PROCESSES.items():
                command = [sys.executable, "-c", code + ENDING, folder, str(time.time())]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                told[name].append(json.loads(done.stdout.splitlines()[-1]))
    return [
        {"what": f"process, {name}", **{key: float(np.median([one[key] for one in runs])) for key in runs[0]}}
        for name, runs in told.items()
    ]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    common.record("adapter", __doc__.splitlines()[0], [*overhead(options), *processes(options)], options)


if __name__ == "__main__":
    main()
