"""`diffcls.ray` on a local cluster of two workers: equal to the local run, also when a worker is killed in the middle."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from evaluations import MODEL, classifier, data, results

import diffcls
from diffcls.errors import DTypeError, FingerprintMismatchError, ImageError, InputError, UnknownClassError

ray = pytest.importorskip("ray")

import diffcls.ray  # noqa: E402
from diffcls.ray import BatchClassifier  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    here = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(diffcls.__file__).parents[1])]
    )  # for workers, wherever we are
    ray.init(
        num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )  # fmt: skip
    yield
    ray.shutdown()


def slow_classifier():
    """The classifier of `evaluations`, its denoiser slower and no other's bits."""

    def predict(x_t, t, cond):
        time.sleep(0.01)
        return MODEL.predict(x_t, t, cond)

    denoiser = MODEL.denoiser(class_names=["ant", "bee", "cow"])
    denoiser.predict = predict
    return diffcls.Classifier(denoiser, policy=diffcls.Race(pool=24, n_min=4), batch_size=32)


def events(out, event):
    """Lines of all shards' logs."""
    found = [json.loads(line) for path in out.glob("shard-*/log.jsonl") for line in path.read_text().splitlines()]
    return [line for line in found if line["event"] == event]


def kill_one(out, killed):
    """SIGKILL to the first worker that has stored some rows of an unfinished shard."""
    while not killed:
        for journal in out.glob("shard-*/*.journal"):
            try:
                if journal.stat().st_size > 2000:
                    killed.append(int((journal.parent / "lock").read_text()))
                    os.kill(killed[0], signal.SIGKILL)
                    return
            except FileNotFoundError:  # the shard came to its end just now
                continue
        time.sleep(0.005)


def test_a_killed_worker_is_replaced_and_the_table_is_the_local_runs(cluster, tmp_path):
    x, labels = data(400)
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "local")
    out, killed = tmp_path / "ray", []
    killer = threading.Thread(target=kill_one, args=(out, killed), daemon=True)
    killer.start()
    report = diffcls.ray.evaluate(slow_classifier, (x, labels), out=out, workers=2, shards=4)
    killer.join(1)
    assert len(killed) == 1 and not killer.is_alive()
    assert results(out) == results(tmp_path / "local")
    assert report.n_images == 400 and report.label.tolist() == labels.tolist()
    starts, done = events(out, "start"), events(out, "done")
    begun = [tuple(line["shard"]) for line in starts]
    assert len(begun) > len(set(begun)) == 4 and len(done) == 4  # one shard was begun twice
    assert killed[0] in {line["pid"] for line in starts}
    last = {tuple(line["shard"]): line["pid"] for line in starts}
    assert killed[0] != last[next(shard for shard in begun if begun.count(shard) > 1)]  # by another process
    assert sum(line["new"] for line in done) < 400  # and went on where the killed one was


def test_resumes_and_refuses(cluster, tmp_path):
    """A folder that is done is left as it is; another run's is refused in the driver's own class, with what differs."""
    x, labels = data(60)
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path, shard=(0, 2))
    diffcls.ray.evaluate(
        classifier(), (x, labels), out=tmp_path, workers=1
    )  # goes on with the two shards that are there
    table = results(tmp_path)
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "local")
    assert table == results(tmp_path / "local") and len(list(tmp_path.glob("shard-*"))) == 2
    with pytest.raises(FingerprintMismatchError, match="seed is '7', not '0'"):
        diffcls.ray.evaluate(classifier(seed=7), (x, labels), out=tmp_path, workers=1)
    assert results(tmp_path) == table


def test_batches_of_a_ray_data_set(cluster):
    """`map_batches` with the actor gives what `classify` gives, whatever the batch."""
    x, _ = data(30)
    made = classifier()
    told = made(x)
    images = ray.data.from_items([{"image": row, "name": f"n{i}"} for i, row in enumerate(x)])
    found = images.map_batches(
        BatchClassifier,
        fn_constructor_kwargs={"model": made},
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=7,
    ).take_all()
    at = {row["name"]: row for row in found}
    assert len(at) == 30 and "image" not in found[0]
    assert [at[f"n{i}"]["prediction"] for i in range(30)] == told.label
    np.testing.assert_array_equal([at[f"n{i}"]["losses"] for i in range(30)], told.losses)
    assert [at[f"n{i}"]["n_evals"] for i in range(30)] == told.n_evals.tolist()


# ---- without a cluster ---------------------------------------------------------------------------------------------------


def test_batch_of_read_only_arrays_and_bad_images():
    x, _ = data(5)
    told = classifier()(x)
    x[3] = np.nan
    x.flags.writeable = False  # as Ray lends them
    batch = {"image": x, "id": np.arange(5)}
    found = BatchClassifier(classifier())(batch)
    assert list(batch) == ["image", "id"] and found["id"].tolist() == [0, 1, 2, 3, 4]
    good = [0, 1, 2, 4]
    for name in ("losses", "probabilities", "n_trials", "alive", "n_evals", "p_disagree"):
        np.testing.assert_array_equal(found[name][good], getattr(told, name)[good])
    assert found["prediction"][3] is None and np.isnan(found["losses"][3]).all() and found["n_evals"][3] == 0
    assert found["error"][3] is not None and [found["error"][i] for i in good] == [None] * 4


def test_batch_of_files_bytes():
    from PIL import Image

    from diffcls.models.demo_pictures import load

    pictures, _ = load()
    files = []
    for picture in pictures[:2]:
        sink = io.BytesIO()
        Image.fromarray(picture).save(sink, "png")
        files.append(sink.getvalue())
    options = {"policy": diffcls.Fixed(4)}
    made = BatchClassifier(prompts=["sandal", "bag", "coat"], column="bytes", **options)
    found = made({"bytes": np.array([*files, files[0][:60]], object)})
    told = diffcls.classify(list(pictures[:2]), ["sandal", "bag", "coat"], **options)
    assert found["prediction"].tolist() == [*told.label, None]
    np.testing.assert_array_equal(found["losses"][:2], told.losses)
    assert "image 2 of the batch" in found["error"][2]
    with pytest.raises(InputError, match="the batch has bytes, and no column 'image'"):
        BatchClassifier(classifier())({"bytes": np.array(files, object)})


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"classifier": 3}, DTypeError, "classifier is 3, must be a Classifier or a callable"),
        ({"dataset": iter([])}, DTypeError, "dataset is an iterator"),
        ({"workers": 0}, InputError, "workers is 0"),
        ({"workers": (3, 2)}, InputError, r"workers is \(3, 2\)"),
        ({"workers": (1, 2, 3)}, InputError, r"workers is \(1, 2, 3\)"),
        ({"shards": 0}, InputError, "shards is 0"),
        ({"shard": (0, 1)}, InputError, "shard is not an option here"),
        ({"progress": True}, InputError, "progress is not an option here"),
    ],
)
def test_arguments(changes, kind, said, tmp_path):
    """Before Ray is asked for anything."""
    given = {"classifier": classifier(), "dataset": data(3), "out": tmp_path / "out", **changes}
    with pytest.raises(kind, match=said):
        diffcls.ray.evaluate(given.pop("classifier"), given.pop("dataset"), **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [UnknownClassError("x"), ImageError("y")])
def test_a_workers_error_keeps_its_class_and_its_words(error, tmp_path, monkeypatch):
    import pickle

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(diffcls.ray, "evaluate_shard", fail)
    before = diffcls.get_num_threads()
    try:
        worker = diffcls.ray.ShardWorker(classifier, data(3), 2, 1, {"out": str(tmp_path)})
        found = worker({"shard": np.array([1])})
    finally:
        diffcls.set_num_threads(before)
    raised = pickle.loads(found["failure"][0])
    assert type(raised) is type(error) and str(raised) == str(error)


def test_without_ray():
    code = "import sys; sys.modules['ray'] = None\nimport diffcls\ntry: diffcls.ray\nexcept ImportError as e: print(type(e).__name__, e)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "MissingExtraError diffcls.ray needs Ray: pip install 'diffcls[ray]'\n"
