"""Turn a training run into the model ``shapes``: ``python -m diffcls.models.export_shapes RUN`` (extra ``diffusers``).

Writes the averaged weights (float16) as a folder in diffusers' layout, and the json by which `diffcls.load` finds it.
Nothing is fitted here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from .. import durable
from .shapes_model import ShapesModel, pipeline, tokenizer

NAME = "shapes"
HERE = Path(__file__).parent
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""By the name that every version of transformers has for it."""


def averaged(run: Path) -> tuple[ShapesModel, dict[str, Any]]:
    """A run's averaged model in float32, and its last checkpoint."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    model = ShapesModel(**state["config"]).eval()
    model.load_state_dict(state["ema"])
    return model, state


def save_pipeline(model: ShapesModel, folder: Path) -> None:
    """The folder in diffusers' layout, weights in float16; `model` is converted in place."""
    pipeline(model.half()).save_pretrained(folder)
    index, settings = folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"
    parts = json.loads(index.read_text())
    parts["tokenizer"] = ["transformers", TOKENIZER_CLASS]
    durable.write(index, (json.dumps(parts, indent=1) + "\n").encode())
    told = json.loads(settings.read_text()) | {"tokenizer_class": TOKENIZER_CLASS}
    durable.write(settings, (json.dumps(told, indent=1) + "\n").encode())
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # weights are written for their owner alone


def describe(state: dict[str, Any], n_parameters: int) -> dict[str, Any]:
    options = state["options"]
    return {
        "name": NAME,
        "licence": "Apache-2.0",
        "words": [word for word in sorted(tokenizer().get_vocab()) if not word.startswith("<")],
        "config": state["config"],
        "n_parameters": n_parameters,
        "trained": {
            "steps": state["step"],
            **{key: options[key] for key in ("generative_steps", "discriminative_steps", "batch", "lr", "seed")},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: the package's own)")
    options = parser.parse_args()
    model, state = averaged(options.run)
    description = describe(state, sum(parameter.numel() for parameter in model.parameters()))
    save_pipeline(model, options.out / NAME)
    durable.write(options.out / f"{NAME}.json", (json.dumps(description, indent=1) + "\n").encode())
    n_bytes = sum(path.stat().st_size for path in (options.out / NAME).rglob("*") if path.is_file())
    print(f"{options.out / NAME}: {n_bytes / 1e6:.2f} MB, step {state['step']}")


if __name__ == "__main__":
    main()
