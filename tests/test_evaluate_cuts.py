"""Kills, cuts of power, full disks and Ctrl-C: what is finished stays, and the end is that of an unbroken run."""

import argparse
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill
import numpy as np
import pytest
from evaluations import classifier, data, results, stored

import diffcls
from diffcls import StoreError
from diffcls.evaluation.store import shard_folder


def test_kills_at_random_times():
    """Five here; ``python tests/kill.py --kills 100`` for more."""
    told = kill.run(argparse.Namespace(kills=5, images=200, rows=40, after=0.01, seed=1, embedded=False, child=None))
    assert told["kills"] == 5 and told["with_progress"] >= 2


# ---- a disk that forgets ---------------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """Nothing that the process does after it reaches the disk."""


class Disk:
    """What is on the disk after a cut of power: contents as of their last fsync, names as of their folder's last fsync.

    Counts fsyncs and renames, and cuts the power before number `cut_at`.
    """

    def __init__(self, monkeypatch, cut_at):
        self.n_calls, self.cut_at = 0, cut_at
        self.contents, self.names = {}, {}
        self.fsync, self.replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "replace", self._replace)
        monkeypatch.setattr("diffcls.evaluation.store.SYNC_SECONDS", -1.0)  # the journal is flushed row by row

    def _step(self):
        if self.n_calls == self.cut_at:
            raise PowerCut
        self.n_calls += 1

    def _fsync(self, descriptor):
        self._step()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.names[path] = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def _replace(self, source, target):
        self._step()
        self.replace(source, target)

    def after_the_cut(self, root, target, *, names_are_kept):
        """Copies what is left; with `names_are_kept` every name survived, and only contents that were not flushed are lost."""
        target.mkdir(parents=True)
        now = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(root)}
        for name, (inode, is_folder) in (now if names_are_kept else self.names.get(root, {})).items():
            if is_folder:
                self.after_the_cut(root / name, target / name, names_are_kept=names_are_kept)
            else:
                (target / name).write_bytes(self.contents.get(inode, b""))


@pytest.mark.parametrize("names_are_kept", [True, False])
def test_power_cuts(tmp_path, monkeypatch, names_are_kept):
    """Before every fsync and every rename of a run in turn."""
    images = data(24)
    diffcls.evaluate(classifier(), images, out=tmp_path / "whole", part_size=8)
    cut_at, saved = 0, set()
    while True:
        here, left = tmp_path / f"run{cut_at}", tmp_path / f"left{cut_at}"
        here.mkdir()
        with monkeypatch.context() as patch:
            disk = Disk(patch, cut_at)
            try:
                diffcls.evaluate(classifier(), images, out=here / "out", part_size=8)
                break
            except PowerCut:
                pass
        disk.after_the_cut(here, left, names_are_kept=names_are_kept)
        n_synced = 0 if not (left / "out" / "run.json").exists() else count(left / "out")
        if n_synced:
            saved.add(n_synced)
            assert n_synced >= len(stored(here / "out")) - 1  # the row whose flush was cut off
        diffcls.evaluate(classifier(), images, out=left / "out", part_size=8)
        assert results(left / "out") == results(tmp_path / "whole"), cut_at
        cut_at += 1
    assert cut_at > 24 + 3 * 3
    assert len(saved) > 12  # cuts fell into all of the run


def count(out):
    """Rows that survived; run.json that is empty is none."""
    return len(stored(out)) if (out / "run.json").stat().st_size else 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 8, 13])
def test_calls_that_fail(tmp_path, monkeypatch, call, number):
    """An error of the system is told in one sentence, and the same call goes on from there."""
    images, real, calls = data(24), getattr(os, call), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == number + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    diffcls.evaluate(classifier(), images, out=tmp_path / "whole", part_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        try:
            diffcls.evaluate(classifier(), images, out=tmp_path / "out", part_size=4)
            assert len(calls) <= number
        except StoreError as error:
            assert "Input/output error" in str(error) and "the same call goes on" in str(error)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    diffcls.evaluate(classifier(), images, out=tmp_path / "out", part_size=4)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


# ---- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [100, 4000, 9000])
def test_a_write_that_the_system_takes_a_part_of(tmp_path, limit):
    """No file may be longer than `limit` bytes: the system takes what goes in, and then refuses."""
    images, out = data(80), tmp_path / "out"
    diffcls.evaluate(classifier(), images, out=tmp_path / "whole", part_size=64)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StoreError, match=r"results can not be written into .*out \(File too large\)"):
            diffcls.evaluate(classifier(), images, out=out, part_size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = len(stored(out)) if (out / "run.json").exists() else 0
    assert (kept > 0) == (limit > 1000) and kept < 64
    diffcls.evaluate(classifier(), images, out=out, part_size=64)
    assert results(out) == results(tmp_path / "whole")


def test_a_disk_that_is_full_when_a_row_is_written(tmp_path):
    """/dev/full takes the place of a journal: the system itself refuses."""
    images, out = data(24), tmp_path / "out"
    diffcls.evaluate(classifier(), images, out=tmp_path / "whole", part_size=8)
    folder = shard_folder(out, 0, 1)
    folder.mkdir(parents=True)
    (out / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
    (folder / "part-00000001.journal").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"results can not be written into .*out \(No space left on device\)"):
        diffcls.evaluate(classifier(), images, out=out, part_size=8)
    (folder / "part-00000001.journal").unlink()
    diffcls.evaluate(classifier(), images, out=out, part_size=8)
    assert results(out) == results(tmp_path / "whole")


def test_a_log_that_can_not_be_written_and_one_that_was_cut(tmp_path):
    diffcls.evaluate(classifier(), data(20), out=tmp_path)
    log = shard_folder(tmp_path, 0, 1) / "log.jsonl"
    log.unlink()
    log.symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device"):
        diffcls.evaluate(classifier(), data(20), out=tmp_path)
    log.unlink()
    log.write_text('{"time": "20')
    diffcls.evaluate(classifier(), data(20), out=tmp_path)
    diffcls.evaluate(classifier(), data(20), out=tmp_path)
    cut, *lines = log.read_text().splitlines()
    assert cut == '{"time": "20' and [json.loads(line)["event"] for line in lines] == ["start", "done"] * 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 kB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_small_file_system_fills_up(small_disk, tmp_path):
    images = data(600)
    with pytest.raises(StoreError, match="No space left on device"):
        diffcls.evaluate(classifier(), images, out=small_disk / "out", part_size=16)
    kept = len(stored(small_disk / "out"))
    assert 16 < kept < 600
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    diffcls.evaluate(classifier(), images, out=small_disk / "out", part_size=16)
    diffcls.evaluate(classifier(), images, out=tmp_path / "whole", part_size=16)
    assert results(small_disk / "out") == results(tmp_path / "whole")


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``diffcls evaluate`` of 144 pictures, without --out, and the table of an unbroken run."""
    from diffcls.models.demo_pictures import load

    (pictures, labels), folder = load(), tmp_path_factory.mktemp("command")
    np.savez(folder / "images.npz", images=np.tile(pictures, (3, 1, 1)), labels=np.tile(labels, 3))
    command = [sys.executable, "-m", "diffcls", "evaluate", str(folder / "images.npz"), "--labels", "index"]
    command += ["--policy", "fixed:3", "--quiet"]
    subprocess.run([*command, "--out", str(folder / "whole")], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return command, results(folder / "whole")


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(diffcls.__file__).parents[1]), "DIFFCLS_NUM_THREADS": "1"}


@pytest.mark.parametrize("pause", [None, 0.0, 0.01])
def test_ctrl_c_once_and_twice(command, tmp_path, pause):
    """Exit code 130, one line and the way on; a second signal at any time harms nothing."""
    (words, whole), out = command, tmp_path / "out"
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*words, "--out", str(out)], env=ENVIRONMENT, **pipes)
    while not any(path.stat().st_size for path in out.glob("shard-*/*.journal")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    if pause is not None:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode != 0
    if pause is None:
        assert process.returncode == 130 and "Traceback" not in said
        assert f"what is finished stays in {out}; the same command goes on" in said
    assert 0 < len(stored(out)) < 144
    subprocess.run([*words, "--out", str(out)], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    assert results(out) == whole
