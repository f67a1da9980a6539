"""Error tables on disk, their selections and their fingerprint."""

import json
import sys

import numpy as np
import pytest

import diffcls
from diffcls import ErrorTable, FingerprintMismatchError, Fixed, Race, Staged
from diffcls.labels import check_labels
from diffcls.profile import schedule_fingerprint

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")


@pytest.fixture
def table(gaussian, rng):
    labels = [4, 0, 2, 2, 1, 3]
    return diffcls.Classifier(gaussian.denoiser()).error_table(
        gaussian.sample(labels, rng), n_samples=20, labels=labels
    )


def same(a, b):
    np.testing.assert_array_equal(a.errors, b.errors)
    for name, column in a.trials.items():
        np.testing.assert_array_equal(column, b.trials[name], err_msg=name)
        assert column.dtype == b.trials[name].dtype
    for name in ("weighting", "cost", "log_prior", "labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("classes", "run", "temperature", "antithetic", "n_noise", "listed"):
        assert getattr(a, name) == getattr(b, name), name
    assert (a.profile and a.profile.to_dict()) == (b.profile and b.profile.to_dict())
    for name in ("alpha", "sigma", "time"):
        np.testing.assert_array_equal(getattr(a.schedule, name), getattr(b.schedule, name), err_msg=name)
    assert (a.schedule.is_discrete, a.schedule.sigma_data) == (b.schedule.is_discrete, b.schedule.sigma_data)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_file_holds_everything(gaussian, rng, tmp_path):
    noise = rng.standard_normal((30, 12)).astype(np.float32)
    options = [
        {"weighting": rng.random(1000), "priors": rng.random(5) + 0.1, "temperature": 0.1 + 0.2, "seed": 2**64 - 1},
        {"noise": "antithetic", "prompts": {"low": [0, 1], "high": [3, 4]}, "pool": "mean"},
        {"noise": noise},
    ]
    for i, option in enumerate(options):
        classifier = diffcls.Classifier(gaussian.denoiser(), **option)
        table = classifier.error_table(gaussian.sample([0, 1], rng), n_samples=21, labels=None if i else [1, 0])
        table.save(tmp_path / "a table")
        same(ErrorTable.load(tmp_path / "a table", classifier=classifier), table)


@pytest.mark.parametrize(
    ("schedule", "prediction_type"),
    [(diffcls.Schedule.flow(50, shift=3.0), "flow_prediction"), (diffcls.Schedule.edm([0.1, 1.0, 9.0], 0.7), "edm")],
)
def test_other_schedules_survive(schedule, prediction_type, rng, tmp_path):
    model = diffcls.Denoiser(
        lambda x, t, c: x * 0 + c[:, None], shape=(3,), schedule=schedule, n_classes=2, prediction_type=prediction_type
    )
    table = diffcls.Classifier(model).error_table(rng.random((2, 3)), n_samples=9)
    table.save(tmp_path / "t.arrow")
    same(ErrorTable.load(tmp_path / "t.arrow"), table)


@pytest.mark.parametrize(
    "policy",
    [
        Race(timesteps=range(3, 900, 50)),
        Race(timesteps=np.arange(3, 900, 50)),
        Race(pool=np.int64(20), n_min=np.int32(3), caps=((np.int64(5), np.int64(3)),)),
        Fixed(np.int64(20)),
        Staged((np.int64(5), np.int64(20)), (np.int64(3), 1)),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_numpys_numbers_and_ranges_are_plain_in_the_record(gaussian, rng, tmp_path, policy):
    """And the same before and after a file: else a calibration would not know its own policy."""
    table = diffcls.Classifier(gaussian.denoiser(), policy=policy).error_table(gaussian.sample([0], rng), policy=policy)
    table.save(tmp_path / "t.arrow")
    loaded = ErrorTable.load(tmp_path / "t.arrow")
    assert loaded.run["policy"] == table.run["policy"] == json.loads(json.dumps(table.run["policy"]))
    results = diffcls.replay(loaded, policy)
    assert json.loads(json.dumps(results.to_dict()))["results"][0]["run"]["policy"] == table.run["policy"]
    assert "array" not in repr(table.run["policy"]) and "int64" not in repr(table.run["policy"])


def test_what_is_no_json_is_not_stored_as_its_text(table, tmp_path):
    with pytest.raises(diffcls.InputError, match="a record holds <object"):
        ErrorTable(**{**vars(table), "run": {**table.run, "model": object()}}).save(tmp_path / "t.arrow")
    assert not list(tmp_path.iterdir())


def test_the_models_profile_is_stored(gaussian, rng, tmp_path):
    denoiser, policy = gaussian.denoiser(), Race(timesteps="calibrated", pool=40)
    denoiser.profile = diffcls.Profile(
        rng.gamma(0.5, size=1000), schedule_fingerprint(gaussian.schedule), "gaussian", {"seed": 1}
    )
    x, classifier = gaussian.sample([0, 3], rng), diffcls.Classifier(denoiser, policy=policy)
    table = classifier.error_table(x, policy=policy)
    table.save(tmp_path / "t.arrow")
    loaded, live = ErrorTable.load(tmp_path / "t.arrow"), classifier(x)
    same(loaded, table)
    replayed = diffcls.replay(loaded, policy)
    assert replayed.losses.tolist() == live.losses.tolist() and replayed.n_evals.tolist() == live.n_evals.tolist()
    assert replayed.run["policy"] == live.run["policy"] == table.run["policy"]
    assert live.run["policy"]["timesteps"] == denoiser.profile.to_dict()
    rewritten(tmp_path / "t.arrow", lambda content: content.pop("profile"))  # as files were before
    assert ErrorTable.load(tmp_path / "t.arrow").profile is None


def test_others_read_it_too(table, tmp_path):
    """Plain Arrow: one row an image, errors of (K, S), labels."""
    table.save(tmp_path / "t.arrow")
    plain = feather.read_table(tmp_path / "t.arrow")
    assert plain.num_rows == 6 and plain.column("label").to_pylist() == [4, 0, 2, 2, 1, 3]
    kind = plain.schema.field("errors").type
    assert kind.shape == [5, 20] and kind.dim_names == ["class", "trial"] and kind.value_type == pa.float64()
    np.testing.assert_array_equal(plain.column("errors").combine_chunks().to_numpy_ndarray(), table.errors)


def test_loaded_errors_are_a_read_only_view_of_the_file(table, tmp_path):
    table.save(tmp_path / "t.arrow")
    loaded = ErrorTable.load(tmp_path / "t.arrow")
    assert not loaded.errors.flags.owndata and not loaded.errors.flags.writeable
    assert np.shares_memory(loaded.select(images=slice(2, 4)).errors, loaded.errors)
    content = (tmp_path / "t.arrow").read_bytes()
    start = content.index(table.errors.tobytes())
    with open(tmp_path / "t.arrow", "r+b") as file:  # in place: the view sees it
        file.seek(start)
        file.write(np.float64(7.25).tobytes())
    assert loaded.errors[0, 0, 0] == 7.25


@pytest.mark.memory
def test_only_what_is_looked_at_is_read(tmp_path):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    schedule = diffcls.Schedule.linear(100)
    model = diffcls.Denoiser(lambda x, t, c: x, shape=(1,), schedule=schedule, n_classes=100, class_names=None)
    small = diffcls.Classifier(model).error_table(np.zeros((1, 1)), n_samples=100)
    n = 2000  # 160 MB of errors
    big = ErrorTable(**{**vars(small), "errors": np.broadcast_to(small.errors, (n, 100, 100))})
    big.save(tmp_path / "big.arrow")
    before = resident()
    loaded = ErrorTable.load(tmp_path / "big.arrow")
    diffcls.replay(loaded.select(images=slice(500, 510)), Fixed(100))
    assert resident() - before < 20e6
    assert len(loaded) == n


def test_errors_go_straight_into_a_file(gaussian, rng, tmp_path):
    x = gaussian.sample([0, 1, 2], rng)
    classifier = diffcls.Classifier(gaussian.denoiser())
    direct = classifier.error_table(x, n_samples=20, labels=["0", "1", "2"], path=tmp_path / "t.arrow")
    same(direct, classifier.error_table(x, n_samples=20, labels=[0, 1, 2]))
    assert not direct.errors.flags.owndata
    same(ErrorTable.load(tmp_path / "t.arrow"), direct)
    empty = classifier.error_table(x[:0], n_samples=20, path=tmp_path / "empty.arrow")
    assert len(empty) == 0 and len(diffcls.replay(empty, Race(pool=20))) == 0


def test_only_what_the_policy_evaluates(gaussian, rng, tmp_path):
    policy = Staged((4, 20), (2, 1))
    classifier = diffcls.Classifier(gaussian.denoiser(), policy=policy)
    x_start = gaussian.sample([0, 1, 2], rng)
    full = classifier.error_table(x_start, policy=policy)
    partial = classifier.error_table(x_start, policy=policy, every_class=False, path=tmp_path / "t.arrow")
    first = full.errors[:, :, :4] * full.trials["weight"][:4]
    best = np.argsort(first.mean(axis=2), axis=1)[:, :2]
    for errors, whole, kept in zip(partial.errors, full.errors, best, strict=True):
        expected = whole.copy()
        expected[np.setdiff1d(np.arange(5), kept), 4:] = np.nan
        np.testing.assert_array_equal(errors, expected)
    np.testing.assert_array_equal(diffcls.replay(partial, policy).losses, classifier(x_start).losses)
    with pytest.raises(ValueError, match="no finite error for prompt"):
        diffcls.replay(partial, Fixed(20))


def test_a_file_is_whole_or_not_there(gaussian, table, rng, tmp_path):
    """A denoiser that fails on the third image leaves the old file as it was, and nothing beside it."""
    path = tmp_path / "t.arrow"
    table.save(path)
    before, calls = path.read_bytes(), []

    def fails(x_t, t, cond):
        calls.append(len(t))
        if sum(calls) > 250:
            raise RuntimeError("power cut")
        return gaussian.predict(x_t, t, cond)

    broken = diffcls.Denoiser(fails, shape=(12,), schedule=gaussian.schedule, n_classes=5)
    with pytest.raises(RuntimeError, match="power cut"):
        diffcls.Classifier(broken).error_table(gaussian.sample([0] * 9, rng), n_samples=20, path=path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def rewritten(path, change):
    """The file with its json changed."""
    table = feather.read_table(path, memory_map=False)
    content = json.loads(table.schema.metadata[b"diffcls.error_table"])
    change(content)
    table = table.replace_schema_metadata({b"diffcls.error_table": json.dumps(content)})
    feather.write_feather(table, path, compression="uncompressed")


def cut(n):
    return lambda path: path.write_bytes(path.read_bytes()[:n])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(-1), "is cut short or damaged"),
        (cut(3000), "is cut short or damaged"),
        (cut(6), "is cut short or damaged"),
        (cut(3), "is not an error table: it is no Arrow file"),
        (lambda path: path.write_text("label,score\n"), "is not an error table: it is no Arrow file"),
        (lambda path: feather.write_feather(pa.table({"a": [1]}), path, compression="uncompressed"),
         "is an Arrow file, but not an error table"),
        (lambda path: rewritten(path, lambda c: c.update(version=2)), "version 2, this diffcls reads version 1: a newer"),
        (lambda path: rewritten(path, lambda c: c.pop("version")), "damaged error table.*version"),
        (lambda path: rewritten(path, lambda c: c.pop("weighting")), "damaged error table.*weighting"),
        (lambda path: rewritten(path, lambda c: c.update(run=None)), "damaged error table"),
        (lambda path: rewritten(path, lambda c: c["classes"].pop()), "has 600 errors, must have 6 x 4 x 20 and no null"),
        (lambda path: rewritten(path, lambda c: c["trials"]["weight"].pop()), "damaged error table.*trials has 19 of weight, must have 20"),
        (lambda path: rewritten(path, lambda c: c["schedule"]["alpha"].pop()), "damaged error table.*must have the same number"),
    ],
)  # fmt: skip
def test_what_is_not_a_table(table, tmp_path, damage, message):
    path = tmp_path / "t.arrow"
    table.save(path)
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        ErrorTable.load(path)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_are_read_or_refused(table, rng, tmp_path):
    """Whatever a file holds: a table, or one sentence."""
    path, refused = tmp_path / "t.arrow", 0
    table.save(path)
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            diffcls.replay(ErrorTable.load(path))
        except diffcls.DiffclsError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 50 < refused < 300


def test_the_missing_extra_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: table.save(tmp_path / "t"), lambda: ErrorTable.load(tmp_path / "t")):
        with pytest.raises(diffcls.MissingExtraError, match=r"diffcls\[results\]"):
            call()


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        ErrorTable.load(tmp_path / "none.arrow")
    with pytest.raises(IsADirectoryError):
        ErrorTable.load(tmp_path)


# ---- whose it is -----------------------------------------------------------------------------------------------------


def test_the_fingerprint_names_what_differs(gaussian, table, rng, tmp_path):
    table.save(tmp_path / "t.arrow")
    other = diffcls.Denoiser(
        gaussian.predict, shape=(12,), schedule=diffcls.Schedule.linear(999), n_classes=5, name="gaussian"
    )
    for classifier, part in [
        (diffcls.Classifier(gaussian.denoiser(name="else")), "model is 'gaussian', not 'else'"),
        (diffcls.Classifier(other), "schedule is .*, not "),
        (diffcls.Classifier(gaussian.denoiser(prediction_type="sample")), "prediction type is 'epsilon', not 'sample'"),
        (diffcls.Classifier(gaussian.denoiser(), [1, 0, 2, 3, 4]), "classes is "),
        (diffcls.Classifier(gaussian.denoiser(), {"0": 1, "1": 0, "2": 2, "3": 3, "4": 4}), "conditions is "),
        (diffcls.Classifier(gaussian.denoiser(), loss="l1"), "loss is 'l2', not 'l1'"),
        (diffcls.Classifier(gaussian.denoiser(), seed=1), "seed is '0', not '1'"),
        (diffcls.Classifier(gaussian.denoiser(), noise=np.zeros((20, 12))), "noise is 'counter', not "),
        (diffcls.Classifier(gaussian.denoiser(), pool="logmeanexp"), "pool is 'min', not 'logmeanexp'"),
    ]:  # fmt: skip
        with pytest.raises(FingerprintMismatchError, match=part):
            ErrorTable.load(tmp_path / "t.arrow", classifier=classifier)
    alike = diffcls.Classifier(
        gaussian.denoiser(), policy=Fixed(3), weighting=rng.random(1000), priors=rng.random(5), temperature=3.0,
        noise="antithetic", batch_size=1,
    )  # fmt: skip
    ErrorTable.load(tmp_path / "t.arrow", classifier=alike)


# ---- parts of it -----------------------------------------------------------------------------------------------------


def test_selected_classes_are_a_run_among_them(gaussian, rng):
    x = gaussian.sample([3, 1, 1], rng)
    options = {"priors": {"3": 1, "1": 5}, "policy": Race(pool=40, risk=0.1)}
    live = diffcls.Classifier(gaussian.denoiser(), [3, 1], **options)(x)
    full = diffcls.Classifier(gaussian.denoiser()).error_table(x, n_samples=40, labels=[3, 1, 1])
    part = full.select(classes=["3", 1])
    assert part.classes == ["3", "1"] and part.labels.tolist() == [0, 1, 1]
    replayed = diffcls.replay(part, Race(pool=40, risk=0.1), priors=[1, 5])
    for name in ("losses", "stderr", "excess", "probabilities", "n_evals"):
        np.testing.assert_array_equal(getattr(replayed, name), getattr(live, name))
    with pytest.raises(ValueError, match="1 images are of classes that were not selected"):
        full.select(classes=[1, 2])
    assert full.select(images=[1, 2], classes=[1, 2]).labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match="classes has 'seven', which is none of the classes"):
        full.select(classes=["seven"])
    with pytest.raises(ValueError, match="classes has 5, must be names of classes or 0 to 4"):
        full.select(classes=[5])


def test_the_record_of_selected_classes_is_of_them(gaussian, rng):
    """Priors and names: a temperature fitted to their replay is that of a run among them."""
    labels = rng.integers(1, 4, 80)
    x = gaussian.sample(labels, rng) + rng.standard_normal((80, 12)).astype(np.float32)
    priors, policy = np.array([5, 1, 2, 3, 9.0]), Race(pool=40)
    table = diffcls.Classifier(gaussian.denoiser(), priors=priors).error_table(x, n_samples=40, labels=labels)
    replayed = diffcls.replay(table.select(classes=[3, 1, 2]), policy)
    live = diffcls.classify(x, [3, 1, 2], model=gaussian.denoiser(), policy=policy, priors=[3, 1, 2])
    assert replayed.run["classes"] == live.run["classes"] == ["3", "1", "2"]
    np.testing.assert_allclose(replayed.run["priors"], live.run["priors"], rtol=1e-14)
    names = [str(label) for label in labels]
    ours, theirs = (diffcls.fit_temperature(results, names, bias=True) for results in (replayed, live))
    np.testing.assert_allclose(ours.bias, theirs.bias, rtol=1e-9)
    assert ours.temperature == pytest.approx(theirs.temperature, rel=1e-9)


def test_selected_trials(gaussian, rng):
    classifier = diffcls.Classifier(
        gaussian.denoiser(), policy=Race(timesteps=[900, 100, 500, 700]), weighting=np.arange(1000.0)
    )
    table = classifier.error_table(gaussian.sample([0, 1], rng), policy=classifier.policy)
    np.testing.assert_array_equal(table.timesteps, [900, 100, 500, 700])
    part = table.select(trials=[2, 0], images=[1])
    np.testing.assert_array_equal(part.errors, table.errors[1:][:, :, [2, 0]])
    w = np.array([500.0, 900.0])
    np.testing.assert_allclose(part.trials["weight"], w / w.mean(), rtol=1e-14)
    np.testing.assert_allclose(diffcls.replay(part).losses, part.errors @ w / w.sum(), rtol=1e-12)
    none = diffcls.Classifier(gaussian.denoiser(), weighting=np.arange(1000) >= 500).error_table(
        gaussian.sample([0], rng), policy=Race(timesteps=[900, 100])
    )
    with pytest.raises(ValueError, match="the selected trials all have weight 0"):
        none.select(trials=[1])


def test_impossible_tables(gaussian, table, rng):
    x, classifier = gaussian.sample([0, 1], rng), diffcls.Classifier(gaussian.denoiser())
    with pytest.raises(ValueError, match="needs n_samples or a policy"):
        classifier.error_table(x)
    with pytest.raises(ValueError, match="needs n_samples or a policy"):
        classifier.error_table(x, n_samples=5, policy=Staged((5,), (1,)))
    with pytest.raises(ValueError, match="needs one prompt a class"):
        diffcls.Classifier(gaussian.denoiser(), {"a": [0, 1], "b": [2]}).error_table(x, n_samples=5)
    with pytest.raises(ValueError, match=r"labels has shape \(3,\), must be \(2,\)"):
        classifier.error_table(x, n_samples=5, labels=[0, 1, 2])
    with pytest.raises(ValueError, match=r"errors has shape \(6, 5, 19\), must be \(N, 5, 20\)"):
        ErrorTable(**{**vars(table), "errors": table.errors[:, :, 1:]})
    for bad in ([[0], [0, 1], [2]], 3):
        with pytest.raises(ValueError, match="labels has shape"):
            check_labels(bad, 2, table.classes)
    for bad in ([0, 5], [0, -1], [0, True], ["0", "zero"]):
        with pytest.raises(ValueError, match="labels has"):
            check_labels(bad, 2, table.classes)
