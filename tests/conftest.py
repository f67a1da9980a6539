"""Fixtures: seeded randomness, and a denoiser whose exact posterior is known."""

from __future__ import annotations

import os
import signal
import zlib

import numpy as np
import pytest
from gaussian import GaussianClasses

os.environ["HF_HUB_OFFLINE"] = "1"  # before any of the hub's libraries is imported: no test asks the network
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a background job ignores Ctrl-C, and so would the children of tests
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: every failure repeats itself."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def gaussian():
    return GaussianClasses(n_classes=5, dimension=12, seed=3)
