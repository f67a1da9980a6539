"""Paper mode against a plain PyTorch transcription of the published method, one noise array given to both.

The transcription computes in float64; the package's rows are float32.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import diffcls
from diffcls import Fixed, Schedule, Staged
from diffcls.policies import paper

torch = pytest.importorskip("torch")
import paper_method  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE = (2, 3, 4)
STABLE_DIFFUSION, DIT = (0.00085, 0.012, True), (1e-4, 0.02, False)

# setting, classes, loss, evaluations an image (n_samples and to_keep stand in the transcription's arguments, not taken
# from the package): the published table
STAGES_FINE = ([20, 50, 100, 500], [20, 10, 5, 1])
SETTINGS = [
    ("cifar10", 10, "l1", 2_750, [50, 500], [5, 1]),
    ("stl10", 10, "l1", 3_000, [100, 500], [5, 1]),
    ("pets", 37, "l1", 2_050, [25, 250], [5, 1]),
    ("flowers", 102, "l1", 5_590, *STAGES_FINE),
    ("food", 101, "l2", 5_570, *STAGES_FINE),
    ("aircraft", 100, "l2", 5_550, *STAGES_FINE),
    ("objectnet", 113, "l2", 14_400, [50, 100, 500, 1000], [25, 10, 5, 1]),
    ("imagenet", 1000, "l2", 124_500, [50, 100, 500, 1000], [500, 50, 10, 1]),
    ("dit", 1000, "l2", 250_000, [250], [1]),
    ("dit", 200, "l1", 50_000, [250], [1]),
]


class Cheap:
    """A denoiser of K prompts that costs nothing, has no closed form, and takes any float dtype; it notes what it saw."""

    def __init__(self, n_prompts, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.shift = torch.randn((n_prompts, *SHAPE), generator=generator, dtype=torch.float64)
        self.phase = 6 * torch.rand((n_prompts,), generator=generator, dtype=torch.float64)
        self.seen = []

    def __call__(self, x_t, t, prompt):
        self.seen.append((t.numpy().copy(), prompt.numpy().copy()))
        wave = torch.cos(t / 150 + self.phase[prompt]).view(-1, *[1] * len(SHAPE))
        return torch.tanh(0.8 * x_t + 0.3 * self.shift[prompt].to(x_t.dtype)) + 0.1 * wave.to(x_t.dtype)

    def timesteps_of(self, prompt):
        """What a prompt was asked, in order."""
        t, asked = (np.concatenate(column) for column in zip(*self.seen, strict=True))
        return t[asked == prompt].tolist()


def run_both(
    predict, n_prompts, policy, noise, *, stages, loss="l2", n_trials=1, betas=STABLE_DIFFUSION, n=1000, **options
):
    """(the package's Result, the transcription's Outcome) for one random x_start."""
    x_start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(n_prompts), dtype=torch.float64).float()
    start, end, scaled = betas
    outcome = paper_method.classify(
        predict, x_start.double(), torch.as_tensor(noise).double(),
        paper_method.alphas_cumprod(start, end, n, scaled=scaled),
        n_prompts=n_prompts, n_samples=stages[0], to_keep=stages[1], loss=loss, n_trials=n_trials,
    )  # fmt: skip
    make = Schedule.scaled_linear if scaled else Schedule.linear
    denoiser = diffcls.Denoiser(
        predict, shape=SHAPE, schedule=make(n, start, end), n_classes=n_prompts, framework="torch"
    )
    if isinstance(predict, Cheap):
        predict.seen.clear()
    result = diffcls.classify(
        x_start, model=denoiser, policy=policy, noise=noise, loss=loss, keep_errors=True, batch_size=1000, **options
    )
    return result, outcome


def check_equal(result, outcome):
    k = len(outcome.errors)
    stages = dict(zip(outcome.ends, outcome.survivors, strict=True))  # a stage that adds nothing only cuts once more
    assert result.n_evals == outcome.n_evals
    assert result.index == outcome.winner
    assert [row["n_trials"] for row in result.trace] == list(stages)
    assert [row["n_alive"] for row in result.trace] == [len(survivors) for survivors in stages.values()]
    asked = [list(range(k)), *stages.values()][:-1]
    for end, survivors in zip([0, *stages][:-1], asked, strict=True):
        assert np.flatnonzero(result.n_trials > end).tolist() == sorted(survivors)
    assert np.flatnonzero(result.alive).tolist() == sorted(outcome.survivors[-1])
    assert result.n_trials.tolist() == [len(errors) for errors in outcome.errors]
    np.testing.assert_allclose(result.losses, outcome.means, rtol=1e-6)
    for prompt, errors in enumerate(outcome.errors):  # trial by trial: the same eps at the same place
        np.testing.assert_allclose(result.errors[prompt, : len(errors)], errors, rtol=1e-5, atol=1e-7)
        assert np.isnan(result.errors[prompt, len(errors) :]).all()


def make_noise(n, seed=1):
    return torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize(("name", "k", "loss", "n_evals", "n_samples", "to_keep"), SETTINGS)
def test_published_settings(name, k, loss, n_evals, n_samples, to_keep):
    predict = Cheap(k)
    result, outcome = run_both(
        predict, k, paper(name), make_noise(max(n_samples)), stages=(n_samples, to_keep), loss=loss,
        betas=DIT if name == "dit" else STABLE_DIFFUSION,
    )  # fmt: skip
    assert outcome.margin > 1e-5  # far from a tie: the order of prompts is not rounding's
    check_equal(result, outcome)
    assert result.n_evals == n_evals
    for prompt in (outcome.winner, k - 1):
        assert predict.timesteps_of(prompt) == outcome.timesteps[: len(outcome.errors[prompt])]


@st.composite
def stage_lists(draw):
    """(classes, n_samples, to_keep, schedule's length): counts that divide nothing, stages that add nothing."""
    k = draw(st.integers(1, 9))
    n_samples = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=4)))
    to_keep, left = [], k
    for _ in n_samples:
        left = draw(st.integers(1, left))
        to_keep.append(left)
    return k, n_samples, to_keep, draw(st.integers(60, 130))


@given(stage_lists(), st.sampled_from(["l1", "l2", "huber"]), st.integers(1, 3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_any_stages(stages, loss, n_trials, seed):
    k, n_samples, to_keep, n = stages
    result, outcome = run_both(
        Cheap(k, seed), k, Staged(n_samples, to_keep, n_trials, nested=False), make_noise(max(n_samples) * n_trials, seed),
        stages=(n_samples, to_keep), loss=loss, n_trials=n_trials, n=n,
    )  # fmt: skip
    assume(outcome.margin > 1e-5)
    check_equal(result, outcome)


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_several_trials_a_timestep(loss):
    stages = ([25, 250], [5, 1])
    policy = Staged(*stages, n_trials=2, nested=False)
    result, outcome = run_both(Cheap(12), 12, policy, make_noise(500), stages=stages, loss=loss, n_trials=2)
    check_equal(result, outcome)
    assert outcome.timesteps[:4] == [22, 22, 62, 62] and result.n_evals == 12 * 50 + 5 * 450


def test_counts_that_do_not_divide():
    """128, 256, 500: the first cut looks at t = 3 .. 765 alone, the next adds t up to 511 alone."""
    stages = ([128, 256, 500], [4, 2, 1])
    result, outcome = run_both(Cheap(8), 8, Staged(*stages, nested=False), make_noise(500), stages=stages)
    check_equal(result, outcome)
    assert outcome.ends == [128, 299, 500]
    assert (min(outcome.timesteps[:128]), max(outcome.timesteps[:128])) == (3, 765)
    assert max(outcome.timesteps[128:299]) == 511


@pytest.mark.parametrize(("n", "last"), [(300, 898), (400, 799), (600, 599), (750, 749)])
def test_a_count_that_does_not_divide_the_schedule_loses_its_noisy_end(n, last):
    predict = Cheap(2)
    result, outcome = run_both(predict, 2, Staged((n,), (1,), nested=False), make_noise(n), stages=([n], [1]))
    check_equal(result, outcome)
    assert max(predict.timesteps_of(0)) == last


def test_a_stage_may_add_nothing():
    """Of 4 positions, stages of 2 and 3 read all: the third only cuts."""
    stages = ([2, 3, 4], [4, 3, 1])
    result, outcome = run_both(Cheap(5), 5, Staged(*stages, nested=False), make_noise(4), stages=stages)
    assert outcome.ends == [2, 4, 4]
    check_equal(result, outcome)
    assert result.n_evals == 2 * 5 + 2 * 4
    wider = run_both(Cheap(5), 5, Staged((2, 3, 4), (4, 1, 2), nested=False), make_noise(4), stages=stages)[0]
    assert np.count_nonzero(wider.alive) == 1  # the third stage's 2 of the 1 that is left: as where k is too large


def test_more_to_keep_than_there_are():
    """The published code raises; here all of them stay, as if the stage had asked for what there is."""
    noise = make_noise(500)
    with pytest.raises(ValueError, match="5 prompts are to stay, there are 3"):
        run_both(Cheap(3), 3, paper("cifar10"), noise, stages=([50, 500], [5, 1]))
    result, outcome = run_both(Cheap(3), 3, paper("cifar10"), noise, stages=([50, 500], [3, 1]))
    check_equal(result, outcome)
    assert result.n_evals == 3 * 500


def test_prompts_as_classes_are_counted_as_published():
    """Several prompts a class in the published way: every prompt races on its own, the best one's class is the answer."""
    class_of_prompt = np.repeat([0, 1, 2, 3], 3)
    stages = ([20, 100], [4, 1])
    result, outcome = run_both(Cheap(12), 12, Staged(*stages, nested=False), make_noise(100), stages=stages)
    check_equal(result, outcome)
    assert class_of_prompt[result.index] == class_of_prompt[outcome.winner]


def test_one_class_can_not_fill_the_shortlist():
    """Class "a" has the two best prompts at the first stage, class "b" wins the whole: published, "b" is dropped."""
    stages, bar = ([2, 10], [2, 1]), paper_method.alphas_cumprod(*STABLE_DIFFUSION[:2])
    early = paper_method.new_timesteps(stages[0], 1000)[0]
    first, later = torch.tensor([1.0, 1.1, 1.2]), torch.tensor([1.0, 1.1, 0.1])

    def predict(x_t, t, prompt):  # x_start is 0, so x_t / sigma is eps, and the error is the offset's square
        offset = torch.where(torch.isin(t, torch.tensor(early)), first[prompt], later[prompt]).to(x_t.dtype)
        return x_t / (1 - bar[t]).sqrt().to(x_t.dtype).view(-1, 1) + offset.view(-1, 1)

    noise = torch.randn((10, 6), generator=torch.Generator().manual_seed(0))
    published = paper_method.classify(
        predict, torch.zeros(6), noise, bar.float(), n_prompts=3, n_samples=stages[0], to_keep=stages[1]
    )
    assert (published.survivors[0], published.winner) == ([0, 1], 0)
    denoiser = diffcls.Denoiser(
        predict, shape=(6,), schedule=Schedule.scaled_linear(), class_names=["a1", "a2", "b1"], framework="torch"
    )
    options = {"model": denoiser, "policy": Staged(*stages, nested=False), "noise": noise}
    assert diffcls.classify(np.zeros(6), **options).label == "a1"
    classes = diffcls.classify(np.zeros(6), {"a": ["a1", "a2"], "b": "b1"}, **options)
    assert classes.label == "b" and classes.n_trials.tolist() == [10, 10] and classes.n_evals == 3 * 10


def test_identical_prompts_tie_and_the_first_wins():
    """Two prompts with one embedding (ImageNet's "missile"): equal to the last digit, decided by their order."""
    inner = Cheap(4)

    def predict(x_t, t, prompt):
        return inner(x_t, t, torch.where(prompt == 3, 1, prompt))

    stages = ([10, 40], [3, 2])
    result, outcome = run_both(predict, 4, Staged(*stages, nested=False), make_noise(40), stages=stages)
    check_equal(result, outcome)
    together = result.n_trials[[1, 3]]
    assert together[0] == together[1] and result.losses[1] == result.losses[3]


def test_half_precision_schedule_is_the_published_one():
    """The whole method on coefficients formed in half precision, and that they change the losses."""
    k, noise, x_start = 6, make_noise(500), torch.zeros(SHAPE, dtype=torch.float64)
    bar = paper_method.alphas_cumprod(*STABLE_DIFFUSION[:2])
    facts = {"shape": SHAPE, "n_classes": k, "framework": "torch"}
    means = {}
    for half in (False, True):
        schedule = Schedule.scaled_linear().half_precision() if half else Schedule.scaled_linear()
        outcome = paper_method.classify(
            Cheap(k), x_start, torch.as_tensor(noise).double(), bar, n_prompts=k, n_samples=[50, 500], to_keep=[5, 1],
            loss="l1", half=half,
        )  # fmt: skip
        model = diffcls.Denoiser(Cheap(k), schedule=schedule, **facts)
        result = diffcls.classify(
            x_start, model=model, policy=paper("cifar10"), noise=noise, loss="l1", keep_errors=True
        )
        check_equal(result, outcome)
        means[half] = result.losses
    assert np.abs(means[True] / means[False] - 1).max() > 1e-6  # the switch does something


@pytest.mark.parametrize("policy", [paper("pets"), Staged((25, 250), (5, 1)), Fixed(250)])
def test_noise_has_to_have_a_row_for_every_trial(policy):
    denoiser = diffcls.Denoiser(
        Cheap(6), shape=SHAPE, schedule=Schedule.scaled_linear(), n_classes=6, framework="torch"
    )
    x_start = np.zeros(SHAPE, np.float32)
    with pytest.raises(ValueError, match="noise has 249 rows, the policy makes 250 trials"):
        diffcls.classify(x_start, model=denoiser, policy=policy, noise=make_noise(249))
    longer, exact = (
        diffcls.classify(x_start, model=denoiser, policy=policy, noise=make_noise(300)[:n]) for n in (300, 250)
    )
    np.testing.assert_array_equal(longer.losses, exact.losses)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), (torch.bfloat16, 2e-2), ("float64", 1e-6)])
def test_the_denoisers_dtype(dtype, tolerance):
    """Half precision at the denoiser's door alone: rows are noised and compared in float32."""
    inner, seen = Cheap(5), set()

    def predict(x_t, t, prompt):
        seen.add((x_t.dtype, t.dtype))  # timesteps stay integers
        return inner(x_t, t, prompt)

    options = {"stages": ([50, 500], [5, 1]), "loss": "l1"}
    result, outcome = run_both(predict, 5, paper("cifar10"), make_noise(500), dtype=dtype, **options)
    asked = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert seen == {(torch.float64, torch.int64), (asked, torch.int64)}  # the transcription's, the package's
    assert result.run["dtype"] == str(asked).removeprefix("torch.")
    np.testing.assert_allclose(result.losses, outcome.means, rtol=tolerance)
    if dtype != "float64":
        assert np.abs(result.losses / outcome.means - 1).max() > 1e-6


@pytest.mark.parametrize("dtype", ["int8", "half precision", object])
def test_impossible_dtypes(dtype):
    denoiser = diffcls.Denoiser(Cheap(2), shape=SHAPE, schedule=Schedule.linear(), n_classes=2, framework="torch")
    with pytest.raises(TypeError, match="must be a floating torch.dtype or its name"):
        diffcls.classify(np.zeros(SHAPE, np.float32), model=denoiser, dtype=dtype)
