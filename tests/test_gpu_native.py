"""The native DiT on a real device, with the cuBLASLt that is found there: what the shim's double can not say.  `make gpu` runs it."""

import numpy as np
import pytest
from test_dit import pack, tiny_config, tiny_tensors

import diffcls
from diffcls import Fixed, _core
from diffcls.errors import DeviceError
from diffcls.models import demo_pictures
from diffcls.native import NativeDenoiser


def why_not():
    reason = diffcls.cuda.why_not()
    if reason is None:
        try:
            diffcls.cuda.find_cublaslt()
        except DeviceError as error:
            reason = str(error)
    return reason


pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"the native DiT has no device: {why_not()}")

BOUNDS = {"float32": 1e-4, "tf32": 3e-3, "float16": 3e-3, "bfloat16": 3e-2}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_errors_of_the_embedded_model(rng, dtype):
    """28 x 28 in four blocks: widths that tensor cores take."""
    x = rng.standard_normal((4, 1, 28, 28)).astype(np.float32)
    model = diffcls.load()
    bare = NativeDenoiser(model.native, schedule=model.schedule, prediction_type=model.prediction_type, n_classes=20)
    options = {"model": bare, "policy": Fixed(16), "keep_errors": True}
    wanted = np.array(diffcls.classify(x, **options).errors)
    got = np.array(diffcls.classify(x, device="cuda", dtype=dtype, **options).errors)
    np.testing.assert_allclose(got, wanted, rtol=BOUNDS[dtype], atol=BOUNDS[dtype] * wanted.mean())


@pytest.mark.parametrize("dtype", BOUNDS)
def test_nothing_stands_on_sixteen_bytes(rng, dtype):
    """Hidden size 4, three classes: what the library has no fast way for is right too, or a clear error."""
    tensors = {**tiny_tensors(rng), "y_embedder.embedding_table.weight": rng.standard_normal((3, 4)).astype(np.float32)}
    native = _core.DiT(pack({name: 0.5 * t for name, t in tensors.items()}), {**tiny_config(), "num_classes": 3})
    model = NativeDenoiser(native, schedule=diffcls.Schedule.linear(50), n_classes=3)
    x = rng.standard_normal((5, 1, 4, 4)).astype(np.float32)
    options = {"policy": Fixed(12), "batch_size": 7, "keep_errors": True}
    wanted = np.array(diffcls.classify(x, model=model, **options).errors)
    try:
        got = np.array(diffcls.classify(x, model=model, device="cuda", dtype=dtype, **options).errors)
    except DeviceError as error:
        assert "has no algorithm for" in str(error) and dtype != "float32"
        return
    np.testing.assert_allclose(got, wanted, rtol=BOUNDS[dtype], atol=BOUNDS[dtype] * wanted.mean())


def test_races_are_the_hosts():
    pictures, _ = demo_pictures.load()
    wanted = diffcls.classify(list(pictures[:12]))
    results = diffcls.classify(list(pictures[:12]), device="cuda")
    assert [result.label for result in results] == [result.label for result in wanted]


def test_batches_change_an_error_by_rounding_alone():
    """The library promises no more; where the same algorithm adds up in the same order, it is nothing at all."""
    pictures, _ = demo_pictures.load()
    options = {"device": "cuda", "policy": Fixed(8), "keep_errors": True}
    whole = np.array(diffcls.classify(list(pictures[:8]), batch_size=256, **options).errors)
    small = np.array(diffcls.classify(list(pictures[:8]), batch_size=17, **options).errors)
    np.testing.assert_allclose(small, whole, rtol=1e-4)
