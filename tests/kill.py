"""Kills an evaluation again and again at random times, and holds what is left against an unbroken run.

    python tests/kill.py --kills 100
    python tests/kill.py --kills 20 --embedded      # the embedded model instead of a toy

After every SIGKILL: each row that the child said was finished is stored, none twice, all equal to the unbroken run's.
At the end: the table has the bytes of the unbroken run's.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def child(out: str, n: int, embedded: bool) -> None:
    """One run, which says on stdout how many rows are finished after each."""
    import diffcls
    from diffcls.evaluation.store import Shard

    add = Shard.add

    def told(self, number, row, *, new):
        add(self, number, row, new=new)
        if new:
            os.write(1, b"%d\n" % self.n_rows)

    diffcls.set_num_threads(1)
    if embedded:
        from diffcls.models.demo_pictures import load

        pictures, labels = load()
        classifier = diffcls.Classifier(policy=diffcls.Race(pool=64))
        images = [(pictures[i % 48], int(labels[i % 48])) for i in range(n)]
    else:
        from evaluations import classifier as make
        from evaluations import data

        classifier, (x, y) = make(), data(n)
        images = list(zip(x, y, strict=True))

    first = next(iter(images))
    diffcls.evaluate(classifier, [first], out=f"{out}-warm")  # imports, and the model's first batch
    Shard.add = told
    os.write(1, b"ready\n")
    diffcls.evaluate(classifier, images, out=out, part_size=16)


def start(out: Path, options: argparse.Namespace, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        __file__,
        "--child",
        str(out),
        "--images",
        str(options.images),
    ]
    command += ["--embedded"] if options.embedded else []
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL)


def kill_once(out: Path, options: argparse.Namespace, rng: random.Random) -> tuple[bool, int]:
    """(was it killed before its end, how many rows it had finished): killed some rows after its start, and a moment."""
    process = start(out, options, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "the child did not start"
    n_wanted = rng.randint(0, options.rows)
    said = [line for line in (process.stdout.readline() for _ in range(n_wanted)) if line.endswith(b"\n")]
    time.sleep(rng.uniform(0, options.after if n_wanted else 10 * options.after))
    process.send_signal(signal.SIGKILL)
    said += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return process.wait() == -signal.SIGKILL, int(said[-1]) if said else 0


def run(options: argparse.Namespace) -> dict[str, int]:
    from evaluations import results, stored

    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        assert start(whole, options).wait() == 0
        expected = stored(whole)
        n_kills = in_the_middle = best = 0
        while n_kills < options.kills:
            killed, finished = kill_once(cut, options, rng)
            n_kills += killed
            if (cut / "run.json").exists():
                rows = stored(cut)
                assert len(rows) >= finished, f"{finished} rows were finished, {len(rows)} are stored"
                assert all(row == expected[row.position] for row in rows)
                in_the_middle += best < len(rows) < options.images
                best = max(best, len(rows))
            if not killed:  # it came to its end: begin anew
                assert results(cut) == results(whole)
                cut, best = cut.with_name(f"cut{n_kills}"), 0
        assert start(cut, options).wait() == 0
        assert results(cut) == results(whole), "the tables differ"
        return {"kills": n_kills, "with_progress": in_the_middle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=40, help="new rows at most until a kill")
    parser.add_argument("--after", type=float, default=0.01, help="and seconds at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.images, options.embedded)
    else:
        print(run(options))


if __name__ == "__main__":
    main()
