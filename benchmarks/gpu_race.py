"""How many pictures a second are decided with 256 in flight, by the embedded model's shape and a CIFAR-sized one, against PyTorch?

PyTorch's side runs the same race, a picture at a time as scripts do: its own noise, the rounds of the same policy as
diffcls.reference_race has them, the same module, a batch a round.  Ours has 256 pictures in flight, call by call and with
recorded steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpu_common
import numpy as np
import torch
from gpu_common import SCHEDULE, Place

import diffcls
from diffcls import _core
from diffcls.models.torch_dit import Config, DiT
from diffcls.reference_race import RaceReference

MODELS = {
    "embedded, 1x28x28": Config(),
    "CIFAR, 3x32x32": Config(input_size=32, patch_size=4, in_channels=3, hidden_size=256, num_heads=4, num_classes=10),
}
SMALL = {"tiny, 1x8x8": Config(input_size=8, patch_size=4, hidden_size=16, depth=1, num_heads=2, num_classes=4)}
POLICY, IN_FLIGHT = diffcls.Race(pool=128, n_min=8), 256


def build(place: Place, config: Config) -> DiT:
    module = DiT(config).to(place.name).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    return module


class TorchRace(RaceReference):
    """The reference, which asks for the errors of a round when it opens: its table is empty before."""

    def ask(self, errors: Callable[[Any, Any], np.ndarray]) -> TorchRace:
        self._ask = errors
        return self

    def round_length(self, caps: list[tuple[int, int]]) -> int:
        m = super().round_length(caps)
        if m > 0:
            trials = np.arange(self.n, self.n + m)
            self.errors[np.ix_(self.alive, trials)] = self._ask(trials, self.alive).T
            self.loss = self.errors * self.weights
        return m


def with_torch(place: Place, module: DiT, classifier: diffcls.Classifier, images: np.ndarray) -> Callable[[], object]:
    lowered, n_classes = classifier._lowered, len(classifier.classes)
    alpha = torch.tensor(SCHEDULE.alpha).float().to(place.name)
    sigma = torch.tensor(SCHEDULE.sigma).float().to(place.name)
    steps = torch.from_numpy(lowered.trials["timestep"].astype(np.int64)).to(place.name)

    def decide(image: np.ndarray) -> int:
        x = torch.from_numpy(image).to(place.name)

        def errors(trials: np.ndarray, arms: list[int]) -> np.ndarray:
            k, n, one = len(arms), len(trials), (len(trials), 1, 1, 1)
            t = steps[torch.from_numpy(trials).to(place.name)]
            eps = torch.randn((n, *x.shape), device=place.name)
            x_t = (alpha[t].view(one) * x + sigma[t].view(one) * eps).repeat_interleave(k, 0)
            labels = torch.tensor(arms, device=place.name).repeat(n)
            with torch.no_grad():
                said = module(x_t, t.repeat_interleave(k), labels)
            loss = (said - eps.repeat_interleave(k, 0)).square().flatten(1).mean(1)
            return loss.double().cpu().numpy().reshape(n, k)

        table = np.full((n_classes, len(lowered.trials["timestep"])), np.nan)
        isf = _core.student_isf
        race = TorchRace(table, lowered.trials["weight"], lowered.policy, lambda p, df: isf(p, df), range(n_classes))
        return race.ask(errors).run().leader()

    return lambda: [decide(image) for image in images]


def ours(classifier: diffcls.Classifier, images: np.ndarray) -> Callable[[], object]:
    def run() -> object:
        loop = classifier.make_loop(in_flight=IN_FLIGHT)
        results, waiting = [], list(enumerate(images))[::-1]
        while len(results) < len(images):
            while waiting and loop.wants_image():
                number, image = waiting.pop()
                loop.add(image, number)
            finished = loop.advance(drain=not waiting)
            if finished is not None:
                results.append(finished)
        return results

    return run


def main() -> None:
    options = gpu_common.arguments(__doc__.splitlines()[0])
    place = Place(options)
    n_images, n_peer, batch = (1024, 32, 512) if place.is_real else (8, 2, 16)
    rows: list[dict[str, Any]] = []
    for name, config in (MODELS if place.is_real else SMALL).items():
        module, shape = build(place, config), (config.in_channels, config.input_size, config.input_size)
        images = np.random.default_rng(place.seed).standard_normal((n_images, *shape)).astype(np.float32)
        facts = {"schedule": SCHEDULE, "n_classes": config.num_classes, "framework": "torch", "device": place.name}
        denoiser = diffcls.Denoiser(module, shape=shape, **facts)
        calls, counts = {}, {}
        for candidate, model in (("diffcls", denoiser), ("diffcls, graphs", denoiser.with_cuda_graph())):
            classifier = diffcls.Classifier(model, policy=POLICY, batch_size=batch)
            calls[candidate], counts[candidate] = ours(classifier, images), n_images
        calls["PyTorch"], counts["PyTorch"] = with_torch(place, module, classifier, images[:n_peer]), n_peer
        times = place.measure(calls, max(2, options.repeats // 3))
        for candidate in calls:
            row = {
                "model": name,
                "candidate": candidate,
                "images_per_second": counts[candidate] / times.median(candidate),
            }
            ratio = times.ratio(candidate, "diffcls")["median"] * n_images / counts[candidate]
            rows.append({**row, "seconds an image, times diffcls": ratio})
    gpu_common.record("gpu_race", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
