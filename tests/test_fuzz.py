"""A fixed share of the fuzzer's cases: every target both accepts and refuses."""

import fuzz
import pytest


def test_a_fixed_share_of_cases():
    outcomes = fuzz.run(2500, seed=1)
    assert sum(outcomes.values()) == 2500
    for target in fuzz.TARGETS:
        assert outcomes[target.__name__, "ok"] > 0
        assert sum(n for (name, outcome), n in outcomes.items() if name == target.__name__ and outcome != "ok") > 0


def test_a_good_capsule_is_read_and_its_deleter_runs_once(rng):
    import numpy as np

    for version in ((1, 0), None):
        data = rng.standard_normal(64).astype(np.float32)
        for strides, view in ((None, data[:12].reshape(3, 4)), ([1, 3], data[:12].reshape(4, 3).T)):
            producer = fuzz.Producer(data=data, shape=[3, 4], strides=strides, version=version)
            out = np.zeros(3)
            fuzz._core.eps_error(out, producer, np.zeros((3, 4), np.float32), loss="l2", delta=1.0, backend=fuzz.CPU)
            np.testing.assert_allclose(out, (view.astype(np.float64) ** 2).mean(axis=1), rtol=1e-6)
            assert producer.deleted == 1
        producer = fuzz.Producer(data=data, shape=[3, 4], version=version, offset=8)
        fuzz._core.eps_error(out, producer, np.zeros((3, 4), np.float32), loss="l2", delta=1.0, backend=fuzz.CPU)
        np.testing.assert_allclose(out, (data[2:14].reshape(3, 4).astype(np.float64) ** 2).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": (2, 0)}, "speaks DLPack 2"),
        ({"device": 2}, "on DLPack device 2"),
        ({"device": 2, "told": 1}, "on DLPack device 2"),
        ({"dtype": (0, 32, 1)}, "type code 0 with 32 bits"),
        ({"dtype": (2, 32, 4)}, "4 lanes"),
        ({"ndim": -1}, "-1 dimensions"),
        ({"ndim": 40}, "40 dimensions"),
        ({"shape": [-3, 4]}, "negative or overflows"),
        ({"shape": [2**62, 2**62]}, "negative or overflows"),
        ({"data": None}, "no data"),
        ({"name": b"used_dltensor"}, "no DLPack capsule"),
    ],
)
def test_malformed_capsules(rng, options, message):
    import numpy as np

    producer = fuzz.Producer(**{"data": np.zeros(64, np.float32), "shape": [3, 4], **options})
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        fuzz._core.eps_error(
            np.zeros(3), producer, np.zeros((3, 4), np.float32), loss="l2", delta=1.0, backend=fuzz.CPU
        )
    assert producer.deleted == ("name" not in options and options.get("told", options.get("device", 1)) == 1)
