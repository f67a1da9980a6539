"""Generated cases over what comes from outside: DLPack capsules, weights files, operations, policies, schedules.

    python tests/fuzz.py --cases 1000000 --seed 0

Run on a sanitized build (`make sanitize`), any finding ends the process.  Without one, every case must end in a result
or in an exception of diffcls (or its built-in), never in another.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from test_dit import pack, tiny_config, tiny_tensors

from diffcls import Schedule, _core, ops

EXPECTED = (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError, OverflowError)

# ---- DLPack capsules made by hand ------------------------------------------------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", DELETER)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager", ctypes.c_void_p), ("deleter", DELETER),
        ("flags", ctypes.c_uint64), ("tensor", Tensor),
    ]  # fmt: skip


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Producer:
    """Any __dlpack__ there could be; counts how often its deleter ran."""

    def __init__(self, *, data, shape, strides=None, dtype=(2, 32, 1), device=1, told=None, ndim=None, offset=0,
                 version=(1, 0), name=None, raises=None):  # fmt: skip
        self.deleted, self.data = 0, data
        self.shape_array = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self.stride_array = None if strides is None else (ctypes.c_int64 * max(1, len(strides)))(*strides)
        self.deleter = DELETER(self._delete)
        self.told, self.raises = (device if told is None else told), raises
        tensor = Tensor(
            None if data is None else data.ctypes.data, device, 0, len(shape) if ndim is None else ndim, *dtype,
            ctypes.addressof(self.shape_array), None if strides is None else ctypes.addressof(self.stride_array), offset,
        )  # fmt: skip
        if version is None:
            self.struct, default = Managed(tensor, None, self.deleter), b"dltensor"
        else:
            self.struct, default = Versioned(*version, None, self.deleter, 0, tensor), b"dltensor_versioned"
        self.name = default if name is None else name

    def _delete(self, pointer):
        self.deleted += 1

    def __dlpack_device__(self):
        return (self.told, 0)

    def __dlpack__(self, **options):
        if self.raises is not None:
            raise self.raises("the producer's own words")
        return new_capsule(ctypes.addressof(self.struct), self.name, None)


def random_producer(rng):
    n_dims = int(rng.integers(1, 5))
    shape = [int(n) for n in rng.integers(0, 5, n_dims)]
    data = rng.standard_normal(4096).astype(np.float32)
    options = {"data": data, "shape": shape, "version": [(1, 0), (1, 3), None, (2, 0), (0, 9)][rng.integers(5)]}
    if rng.random() < 0.3:
        options["strides"] = [int(s) for s in rng.integers(0, 7, n_dims)]
    if rng.random() < 0.2:
        options["dtype"] = (
            int(rng.integers(0, 8)),
            int(rng.choice([0, 1, 8, 16, 32, 64, 128])),
            int(rng.integers(0, 3)),
        )
    if rng.random() < 0.1:
        options["device"] = int(rng.integers(0, 16))
        options["told"] = [1, options["device"], 2**40, "cpu"][rng.integers(4)]
    if rng.random() < 0.1:
        options["ndim"] = int(rng.choice([-1, 33, 2**31 - 1]))
    if rng.random() < 0.1:
        options["shape"] = [int(n) for n in rng.choice([-1, 2**62, 2**63 - 1, 3], n_dims)]
    if rng.random() < 0.2:
        options["offset"] = int(rng.integers(0, 64))
    if rng.random() < 0.05:
        options["data"] = None
    if rng.random() < 0.05:
        options["name"] = [b"used_dltensor", b"tensor"][rng.integers(2)]
    if rng.random() < 0.05:
        options["raises"] = [BufferError, TypeError, KeyError, MemoryError][rng.integers(4)]
    return Producer(**options)


def fuzz_dlpack(rng):
    producer = random_producer(rng)
    n, n_elem = (int(v) for v in rng.integers(0, 5, 2))
    shape = list(producer.shape_array)
    if all(0 <= size < 5 for size in shape) and rng.random() < 0.7:
        n, n_elem = shape[0], int(np.prod(shape[1:]))
    try:
        _core.eps_error(np.zeros(n), producer, np.zeros((n, n_elem), np.float32), loss="l2", delta=1.0, backend=CPU)
    finally:
        taken = producer.name in (b"dltensor", b"dltensor_versioned")
        assert producer.deleted <= 1 and (taken or producer.deleted == 0), (
            "the deleter ran twice, or for a foreign capsule"
        )


# ---- weights files ---------------------------------------------------------------------------------------------------

WEIGHTS = pack(tiny_tensors(np.random.default_rng(0)))
HEADER = 8 + struct.unpack("<Q", WEIGHTS[:8])[0]


def fuzz_weights(rng):
    file = bytearray(WEIGHTS)
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.integers(8)
        at = int(rng.integers(0, min(HEADER, len(file)))) if len(file) else 0
        if kind == 0:
            file[at : at + 1] = bytes([int(rng.integers(256))])
        elif kind == 1:
            file[at : at + 1] = bytes([rng.choice(list(b'0123456789{}[]",:-'))])
        elif kind == 2:
            del file[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            file[at:at] = file[at : at + int(rng.integers(1, 40))]
        elif kind >= 5 and len(file) > HEADER:  # a weight: fine as long as it is finite
            file[int(rng.integers(HEADER, len(file)))] = int(rng.integers(256))
        else:
            entries = json.loads(WEIGHTS[8:HEADER])
            name = list(entries)[rng.integers(len(entries))]
            entries[name]["data_offsets"] = [int(v) for v in rng.choice([0, 1, 16, 64, 2**31, 2**62, 2**64, -5], 2)]
            text = json.dumps(entries).encode()
            file = bytearray(struct.pack("<Q", len(text)) + text + WEIGHTS[HEADER:])
    _core.DiT(bytes(file), tiny_config())


# ---- operations, policies, trials, schedules -------------------------------------------------------------------------


def fuzz_ops(rng):
    n, shape = int(rng.integers(0, 5)), tuple(int(v) for v in rng.integers(0, 40, rng.integers(0, 3)))
    dtype = rng.choice(["f4", "f8", "f2", "i4", ">f4", "c8", "u1"])
    x = rng.standard_normal((n, *shape)).astype(dtype)
    if x.ndim > 1 and rng.random() < 0.3:
        x = x[:, ::-1]
    kind = rng.integers(4)
    if kind == 0:
        ops.normal(shape, seed=int(rng.choice([0, 1, 2**63, 2**64 - 1, -1])), index=int(rng.integers(0, 2**32)))
    elif kind == 1:
        index = rng.integers(-1, 2**33, n) if rng.random() < 0.2 else rng.integers(0, 9, n)
        ops.add_noise(x, rng.random(n), rng.random(), seed=3, index=index, timestep=0)
    elif kind == 2:
        other = x if rng.random() < 0.8 else np.zeros((n, 3), np.float32)
        ops.eps_error(
            x, other, loss=str(rng.choice(["l1", "l2", "huber", "l3"])), delta=float(rng.choice([1, 0, np.nan]))
        )
    else:
        ops.target(x, x, rng.random(), rng.random(), str(rng.choice(["epsilon", "sample", "v_prediction", "edm"])))


def fuzz_race(rng):
    k, n = int(rng.integers(1, 9)), int(rng.integers(1, 60))
    odd = [0, -1, 1, 2, 5, 2**40, 2**62]

    def number(usual):
        return int(usual) if rng.random() < 0.95 else int(rng.choice(odd))

    def real(usual, unusual):
        return float(rng.choice(usual if rng.random() < 0.9 else unusual))

    policy = {
        "risk": real([0, 0.02, 0.5], [1, -1, np.nan]), "n_min": number(4), "n_winner": number(6), "ramp": number(10),
        "prior_weight": real([0, 4], [-1, np.inf]), "fill": number(3), "max_evals": number(rng.choice([0, 3 * k, 9 * k])),
        "anytime": bool(rng.integers(2)), "min_gap": real([0, 0.1], [-1, np.inf]),
        "caps": np.array([[number(3), number(2)], [number(9), number(1)], [number(n), number(1)]][: rng.integers(0, 4)], np.int64).reshape(-1, 2),
    }  # fmt: skip
    n_images = int(rng.integers(0, 4))
    errors = rng.random((n_images, k, n))
    if n_images and rng.random() < 0.1:
        errors[rng.integers(n_images), rng.integers(k), rng.integers(n)] = rng.choice([np.nan, np.inf])
    trials = _core.trials_pool(
        number(n), number(20), weighting=None if rng.random() < 0.5 else rng.random(20), density=None,
        antithetic=bool(rng.random() < 0.5),
    ) if rng.random() < 0.5 else _core.trials_list(
        rng.integers(-1 if rng.random() < 0.1 else 0, 20, n), 20, weighting=None, antithetic=False
    )  # fmt: skip
    class_of_arm = rng.integers(0, k + (rng.random() < 0.1), k)
    columns = rng.integers(-1 if rng.random() < 0.1 else 0, n, len(trials["timestep"]) + (rng.random() < 0.1))
    result = _core.replay(
        errors, columns=columns, n_classes=k - k * (rng.random() < 0.05), class_of_arm=class_of_arm, cost_of_arm=np.full(k, number(1)),
        trials=trials, policy=policy, backend=CPU,
    )  # fmt: skip
    assert ((result["index"] >= 0) & (result["index"] < k)).all()
    assert ((result["p_disagree"] >= 0) & (result["p_disagree"] <= 1)).all()
    assert len(result["trace"]) == result["trace_offset"][-1]


def fuzz_schedule(rng):
    n, odd = int(rng.integers(0, 30)), [0.0, -1.0, 1.0, 2.0, 1e-9, np.nan, np.inf]
    kind = rng.integers(5)
    if kind == 0:
        Schedule.linear(n, *(float(rng.choice([1e-4, 0.02, *odd])) for _ in range(2)))
    elif kind == 1:
        bar = np.sort(rng.random(n))[::-1].copy()
        if n and rng.random() < 0.3:
            bar[rng.integers(n)] = rng.choice(odd)
        Schedule.from_alphas_cumprod(bar)
    elif kind == 2:
        Schedule.flow(n, float(rng.choice([1.0, 3.0, *odd])))
    elif kind == 3:
        sigmas = np.sort(rng.random(n) * 10)
        if n and rng.random() < 0.3:
            sigmas[rng.integers(n)] = rng.choice(odd)
        Schedule.edm(sigmas, float(rng.choice([0.5, *odd]))).target("edm")
    else:
        _core.trials_published(
            rng.integers(0, 30, rng.integers(0, 4)), int(rng.integers(0, 30)), int(rng.integers(0, 3))
        )


CPU = _core.Cpu()
TARGETS = (fuzz_dlpack, fuzz_weights, fuzz_ops, fuzz_race, fuzz_schedule)


def run(cases: int, seed: int) -> Counter:
    """Counts of (target, "ok" or the exception's name)."""
    outcomes: Counter = Counter()
    for case in range(cases):
        rng = np.random.default_rng((seed, case))
        target = TARGETS[case % len(TARGETS)]
        try:
            target(rng)
            outcomes[target.__name__, "ok"] += 1
        except EXPECTED as error:
            assert str(error), f"case {case} of seed {seed}: an exception without a sentence"
            outcomes[target.__name__, type(error).__name__] += 1
        except BaseException:
            print(f"case {case} of seed {seed}", file=sys.stderr)
            raise
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for (target, outcome), count in sorted(run(options.cases, options.seed).items()):
        print(f"{target:15} {outcome:22} {count}")


if __name__ == "__main__":
    main()
