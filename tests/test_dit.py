"""The native DiT against PyTorch, its batch invariance, and hostile weights files."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcls import _core

SIMD = _core.Cpu.available()

CONFIGS = [
    {},
    {"hidden_size": 96, "depth": 2, "num_heads": 3, "patch_size": 4, "num_classes": 7},
    {
        "input_size": 32,
        "patch_size": 2,
        "in_channels": 4,
        "hidden_size": 48,
        "depth": 1,
        "num_heads": 6,
        "learn_sigma": True,
    },
    {
        "input_size": 15,
        "patch_size": 5,
        "in_channels": 3,
        "hidden_size": 40,
        "depth": 2,
        "num_heads": 5,
        "mlp_ratio": 2.0,
    },
    {"input_size": 6, "patch_size": 6, "hidden_size": 33, "depth": 1, "num_heads": 1, "num_classes": 2},
]


@pytest.fixture(scope="module", params=range(len(CONFIGS)))
def twin(request):
    """(PyTorch module, native model, inputs): every weight random, for adaLN-zero starts as the identity."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    from diffcls.models.torch_dit import Config, DiT

    config = Config(**CONFIGS[request.param])
    torch.manual_seed(request.param)
    module = DiT(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.08)
    size = config.input_size
    x = torch.randn(23, config.in_channels, size, size)
    t, y = torch.randint(0, 1000, (23,)), torch.randint(0, config.num_classes, (23,))
    with torch.no_grad():
        expected = module(x, t, y).numpy()
    native = _core.DiT(save(module.state_dict()), config.to_dict())
    return native, (x.numpy(), t.numpy().astype(np.float64), y.numpy()), expected


@pytest.mark.torch
@pytest.mark.parametrize("simd", SIMD)
def test_equals_pytorch(twin, simd):
    native, inputs, expected = twin
    got = native.forward(*inputs, backend=_core.Cpu(n_threads=2, simd=simd))
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.torch
@pytest.mark.parametrize("simd", SIMD)
def test_rows_do_not_know_their_batch(twin, simd):
    native, (x, t, y), _ = twin
    whole = native.forward(x, t, y, backend=_core.Cpu(n_threads=3, simd=simd))
    alone = [native.forward(x[i : i + 1], t[i : i + 1], y[i : i + 1], backend=_core.Cpu(simd=simd)) for i in range(23)]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    backward = native.forward(x[::-1].copy(), t[::-1].copy(), y[::-1].copy(), backend=_core.Cpu(simd=simd))
    np.testing.assert_array_equal(whole, backward[::-1])


def tiny_config():
    return {
        "input_size": 4, "patch_size": 2, "in_channels": 1, "hidden_size": 4, "depth": 1, "num_heads": 2, "num_classes": 2,
        "mlp_ratio": 1.0,
    }  # fmt: skip


def tiny_tensors(rng):
    d, layers = 4, {"t_embedder.mlp.0": (4, 256), "t_embedder.mlp.2": (4, 4)}
    layers |= {"final_layer.linear": (4, d), "final_layer.adaLN_modulation.1": (2 * d, d)}
    layers |= {
        "blocks.0.attn.qkv": (3 * d, d), "blocks.0.attn.proj": (d, d), "blocks.0.mlp.fc1": (d, d), "blocks.0.mlp.fc2": (d, d),
        "blocks.0.adaLN_modulation.1": (6 * d, d),
    }  # fmt: skip
    tensors = {"pos_embed": (1, 4, d), "x_embedder.proj.weight": (d, 1, 2, 2), "x_embedder.proj.bias": (d,)}
    tensors |= {"y_embedder.embedding_table.weight": (2, d)}
    for name, (n_out, n_in) in layers.items():
        tensors |= {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in tensors.items()}


def pack(tensors, dtype="F32", header=None):
    """A safetensors file written from its specification."""
    entries, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype]).tobytes()
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(entries if header is None else header(entries)).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("dtype", ["F32", "F16", "F64"])
def test_reads_every_dtype(rng, dtype):
    tensors = tiny_tensors(rng)
    model = _core.DiT(pack(tensors, dtype), tiny_config())
    assert model.n_parameters == sum(tensor.size for tensor in tensors.values())
    rounded = {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in tensors.items()}
    same = _core.DiT(pack(rounded if dtype == "F16" else tensors), tiny_config())
    arguments = rng.standard_normal((3, 1, 4, 4)).astype(np.float32), np.arange(3.0), np.array([0, 1, 0])
    np.testing.assert_array_equal(
        model.forward(*arguments, backend=_core.Cpu()), same.forward(*arguments, backend=_core.Cpu())
    )


def change(name, **fields):
    return lambda entries: {key: {**value, **(fields if key == name else {})} for key, value in entries.items()}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (change("pos_embed", dtype="I8"), "no valid dtype"),
        (change("pos_embed", shape=[1, -4, 4]), "no valid dtype"),
        (change("pos_embed", shape=[1, 5, 4]), "its shape needs 80 bytes"),
        (change("pos_embed", shape=[2**61, 2**61]), "overflows|no valid"),
        (change("pos_embed", shape=[4, 1, 4]), "has 3 dimensions, the first 4, must have 3, the first 1"),
        (change("pos_embed", shape=[1, 2, 8]), "tensor pos_embed has"),
        (change("pos_embed", shape=[1, 16]), "has 2 dimensions"),
        (change("x_embedder.proj.weight", shape=[4, 2, 2, 1]), "tensor x_embedder.proj.weight has"),
        (change("blocks.0.attn.qkv.weight", shape=[12, 2, 2]), "has 3 dimensions"),
        (change("final_layer.linear.bias", shape=[4, 1]), "has 2 dimensions"),
        (change("pos_embed", data_offsets=[0, 10**15]), "claims bytes 0 to 1000000000000000"),
        (change("pos_embed", data_offsets=[64, 0]), "claims bytes|needs"),
        (change("x_embedder.proj.bias", data_offsets=[0, 16]), "claims bytes"),
        (change("pos_embed", extra=1), "no valid dtype"),
        (lambda e: {k: v for k, v in e.items() if k != "pos_embed"}, "claims bytes|cover"),
        (
            lambda e: {**{k: v for k, v in e.items() if k != "pos_embed"}, "other": e["pos_embed"]},
            "no tensor pos_embed",
        ),
        (lambda e: list(e), "not a JSON object"),
    ],
)
def test_wrong_headers(rng, header, message):
    with pytest.raises(ValueError, match=message):
        _core.DiT(pack(tiny_tensors(rng), header=header), tiny_config())


def test_wrong_files(rng):
    from diffcls.errors import WeightsError

    good = pack(tiny_tensors(rng))
    (length,) = struct.unpack("<Q", good[:8])
    name = b'"pos_embed"'
    doubled = good[8 : 8 + length].replace(b'"x_embedder.proj.bias"', name)
    broken = {
        "has 3 bytes": good[:3],
        "header of 104857600 bytes": struct.pack("<Q", 100 << 20) + good[8:],
        "header of 18446744073709551615": struct.pack("<Q", 2**64 - 1) + good[8:],
        "claims bytes": good[:-1],
        "cover": good + b"\0",
        "pos_embed twice": struct.pack("<Q", len(doubled)) + doubled + good[8 + length :],
    }
    for message, file in broken.items():
        with pytest.raises(WeightsError, match=message):
            _core.DiT(file, tiny_config())
    tensors = tiny_tensors(rng)
    tensors["blocks.0.mlp.fc1.weight"][1, 2] = np.nan
    with pytest.raises(WeightsError, match="blocks.0.mlp.fc1.weight of the weights file is not finite at item 6"):
        _core.DiT(pack(tensors), tiny_config())
    with pytest.raises(WeightsError, match="has 23 tensors, the model has 22"):
        _core.DiT(pack({**tiny_tensors(rng), "one_more": np.zeros(3)}), tiny_config())


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_mutated_file_is_refused_or_read(data):
    """Never a crash, never another exception."""
    from diffcls.errors import WeightsError

    file = bytearray(pack(tiny_tensors(np.random.default_rng(0))))
    (length,) = struct.unpack("<Q", file[:8])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 8 + length - 1))
        file[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(list(b'0123456789{}[]",:-'))))
    try:
        model = _core.DiT(bytes(file), tiny_config())
    except WeightsError as error:
        assert str(error)
    else:
        assert model.n_parameters > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_heads": 3}, "not a multiple of num_heads"),
        ({"patch_size": 3}, "not a multiple of patch_size"),
        ({"depth": 10**6}, "depth is 1000000"),
        ({"mlp_ratio": -1.0}, "mlp_ratio"),
        ({"depth": "two"}, "no whole number depth"),
    ],
)
def test_impossible_configs(rng, setting, message):
    with pytest.raises(ValueError, match=message):
        _core.DiT(pack(tiny_tensors(rng)), {**tiny_config(), **setting})


def test_forward_checks_its_arguments(rng):
    model, cpu = _core.DiT(pack(tiny_tensors(rng)), tiny_config()), _core.Cpu()
    x, t, y = np.zeros((2, 1, 4, 4), np.float32), np.zeros(2), np.zeros(2, np.int64)
    for arguments, message in [
        ((x[:, :, :3], t, y), "images of"),
        ((x[0], t, y), "has 3 dimensions"),
        ((x, t[:1], y), "timesteps has 1 items"),
        ((x, t, y + 2), "class label 2"),
        ((x, t, y - 1), "class label -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.forward(*arguments, backend=cpu)
    assert model.forward(x[:0], t[:0], y[:0], backend=cpu).shape == (0, 1, 4, 4)
