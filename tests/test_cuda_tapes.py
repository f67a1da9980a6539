"""What `diffcls.cuda_graph` asks of PyTorch, in which order, and what it leaves behind: on a stand-in for torch.cuda.

That the graphs of a real PyTorch compute the same is for tests/test_gpu.py.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from diffcls.cuda_graph import Tapes

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


class Stand:
    """torch, as far as `Tapes` goes: what is done between capture_begin and capture_end runs again at replay."""

    int64, float32 = torch.int64, torch.float32

    def __init__(self):
        self.said, self.current, self.recording, self.fault = [], "user's", None, None
        stand = self

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                stand.say("begin", pool, capture_error_mode)
                self.work, stand.recording = [], self

            def capture_end(self):
                stand.recording = None
                stand.say("end")

            def replay(self):
                assert stand.current == "ours"
                for work in self.work:
                    work()

        self.cuda = SimpleNamespace(
            CUDAGraph=Graph,
            stream=self.stream,
            synchronize=lambda device: self.say("synchronize"),
            empty_cache=lambda: self.say("empty_cache"),
            graph_pool_handle=lambda: "pool",
        )

    def say(self, *words):
        self.said.append(words)
        if self.fault == words[0]:
            raise RuntimeError(f"{words[0]} failed")

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, "ours"
        try:
            yield
        finally:
            self.current = before

    def empty(self, n, dtype, pin_memory=False, device=None):
        assert self.recording is None  # nothing of ours is allocated while the stream is captured
        return torch.zeros(n, dtype=dtype)


def tapes(stand):
    return Tapes(stand, SimpleNamespace(device=0), 6, "float32")


def test_replays_see_the_numbers_of_their_batch():
    stand = Stand()
    both = tapes(stand)
    seen = []
    for graph in (0, 1):
        both.record(graph)
        tape = both.running
        assert stand.current == "ours" and stand.recording is tape.graph
        time, condition = tape.numbers(4)
        assert len(time) == len(condition) == 4 and time.dtype == torch.float32 and condition.dtype == torch.int64

        def work(tape=tape, graph=graph):
            seen.append((graph, [t.tolist() for t in tape.numbers(4)]))

        stand.recording.work.append(work)
        both.recorded()
        assert stand.current == "user's" and both.running is None
    assert [words for words in stand.said if words[0] == "begin"] == [("begin", "pool", "thread_local")] * 2
    for graph in (0, 1, 0):
        both.replay(graph, np.arange(4.0) + graph, np.arange(4) * 10)
        assert stand.current == "user's"
    assert seen == [(g, [[g + 0.0, g + 1.0, g + 2.0, g + 3.0], [0, 10, 20, 30]]) for g in (0, 1, 0)]


@pytest.mark.parametrize("fault", ["synchronize", "begin", "end"])
def test_what_fails_leaves_the_streams_as_they_were(fault):
    stand = Stand()
    both = tapes(stand)
    stand.fault = fault
    with pytest.raises(RuntimeError, match=f"{fault} failed"):
        both.record(0)
        both.recorded()
    both.abandon()
    assert stand.current == "user's" and both.running is None and not both.tapes
    stand.fault = None
    both.record(0)
    both.recorded()
    assert stand.current == "user's" and list(both.tapes) == [0]
