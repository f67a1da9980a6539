"""Prints docs/families.md: what is known of each component class, and what was proven with which versions.

python -m diffcls.diffusers.table > docs/families.md
"""

from __future__ import annotations

from importlib.metadata import version

from .denoiser import LIBRARIES
from .families import families

HEAD = """# Model families

Printed by `python -m diffcls.diffusers.table`; a test compares the tables with the code's own registry.

An adapter belongs to a component class of diffusers, not to a pipeline's or a model's name. It hands the module what the
family's pipeline hands it at a guidance of none.

## What each adapter knows
"""

PROOF = """
## What is proven

Each family is built as a tiny pipeline of the real classes with random weights (`tests/pipelines.py`,
`tests/pipelines_llm.py`), saved, loaded through the real layout, and held against the family's own code
(`tests/door.py`, `tests/test_families.py`):

- **door**: for the same x_t, time and prompts the module gets the same arguments as from the pipeline's own run, and our
  prediction is what the pipeline hands its scheduler;
- **schedule**: one step of the family's own scheduler with the target that we ask for ends on the same x_start and eps at
  the next noise level;
- **latents**: our normalisation undoes what the pipeline does before it decodes;
- **loop**: in a run of `classify` the door sees alpha x_start + sigma eps of every trial;
- **mistakes**: scaling left out, shift left out, a wrong time scale, a mask ignored, another target (eps for v) are planted into
  every family that can have them, and others of its own (sign, order, packing, pooled vectors) into each; each is caught.

The families of `tests/pipelines.py` were also held against diffusers 0.30.3 with transformers 4.44.2 and diffusers 0.35.2
with transformers 4.57.1, by the same tests; those of `tests/pipelines_llm.py` need transformers 5.

What none of this can show: that a published checkpoint's accuracy is the published one. No trained weights were at hand,
and no GPU: half precision, off-loading and `torch.compile` are tested on a CPU, with small weights.
"""


def main() -> None:
    print(markdown())
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    print(f"Proven with {versions}.")


def markdown() -> str:
    """All but the versions."""
    titles = (
        "component class",
        "models",
        "predicts (the scheduler says which)",
        "time fed",
        "x_start",
        "a class becomes",
    )
    rows = [
        [
            "`" + f["component"] + "`",
            f["models"],
            ", ".join(f["predicts"]),
            f["time"],
            f["latents"] or "pixels",
            f["conditions"],
        ]
        for f in families()
    ]
    settings = [
        [f["adapter"], f["half"], f["preprocess"], f["pipeline"] or "must be given", f["proven"]] for f in families()
    ]
    heads = ("adapter", "half precision on a GPU", "pictures", "components alone go into", "proven against")
    return "\n".join(
        [
            HEAD,
            _table(titles, rows),
            "",
            "Rules of x_start: `diffcls/diffusers/latents.py`.",
            "",
            _table(heads, settings),
            PROOF,
        ]
    )


def _table(titles: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(titles), ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
