"""From the shards' parts to one table: rows by position, the same bytes however they were made and cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..durable import replacing
from ..errors import FingerprintMismatchError, InputError
from ..stored import read_json
from . import rows as row_files
from .store import FORMAT, Run, checksum, load_run, part_size_of, shard_folder, told

RESULTS = "results.parquet"


def merge_shards(out: str | os.PathLike[str], *, missing_ok: bool = False) -> bool:
    """Writes ``out/results.parquet`` when all shards are done; gives whether they are.

    Parameters
    ----------
    out : path
        As `evaluate` was given it; shards that were made on other machines are put into it as they are, folder by folder.
    missing_ok : bool
        Shards that are not done are no error: there is no table then.

    Returns
    -------
    bool
        The table is written; False: shards are not done, with `missing_ok`.

    Raises
    ------
    ValueError
        `out` holds no results, shards are not done, were made by different runs or from data sets of different sizes, or
        are damaged.
    OSError
        `out` can not be written.
    ImportError
        pyarrow is not installed.
    """
    out = Path(out)
    run = load_run(out)
    sizes = [_size(out, run, index) for index in range(run.n_shards)]
    waiting = [str(index) for index, size in enumerate(sizes) if size is None]
    if waiting:
        if missing_ok:
            return False
        raise InputError(f"of {run.n_shards} shards in {out}, {', '.join(waiting)} not done")
    told_sizes = sorted({size for size in sizes if size is not None})
    if len(told_sizes) > 1:
        raise FingerprintMismatchError(f"the shards in {out} are of data sets with {told_sizes} images: one is wanted")
    pa = row_files.pyarrow()
    kinds = row_files.schema(run.classes, run.fingerprint)
    with told(out), replacing(out / RESULTS) as path:
        with pa.parquet.ParquetWriter(path, kinds, **row_files.OPTIONS) as writer:
            for table in _in_order(out, run, told_sizes[0]):
                writer.write_table(table, row_group_size=len(table))
    return True


def shard_tables(out: Path, run: Run, index: int) -> Iterator[Any]:
    """Tables of a shard's parts, in order.

    Raises
    ------
    ValueError
        One is damaged, or another run's.
    """
    pa, kinds = row_files.pyarrow(), row_files.schema(run.classes, run.fingerprint)
    for path in sorted(shard_folder(out, index, run.n_shards).glob("part-*.parquet")):
        content = path.read_bytes()
        if not path.name.endswith(f"-{checksum(content)}.parquet"):
            raise InputError(f"{path} is damaged; evaluate shard {index} again, which makes it anew")
        table = pa.parquet.ParquetFile(pa.BufferReader(content)).read(**row_files.ALONE)
        row_files.check_own(table.schema, kinds, str(path))
        yield _named_alike(table, run)


def _size(out: Path, run: Run, index: int) -> int | None:
    """Images of the whole data set, as a shard that is done tells it."""
    path = shard_folder(out, index, run.n_shards) / "done.json"
    return int(read_json(path, FORMAT, ("n_images", "n_rows"))["n_images"]) if path.exists() else None


def _in_order(out: Path, run: Run, n_images: int) -> Iterator[Any]:
    """Tables of as many rows as a part has unless said, by position: the result does not depend on what was said.

    Of each shard one part is in memory, and of the result another.
    """
    pa, n_rows = row_files.pyarrow(), part_size_of(len(run.classes))
    import pyarrow.compute

    nothing = row_files.schema(run.classes, run.fingerprint).empty_table()
    streams = [_Stream(nothing, shard_tables(out, run, index)) for index in range(run.n_shards)]
    for first in range(0, n_images, n_rows):
        block = range(first, min(first + n_rows, n_images))
        pieces = [
            stream.take(len(range(first + (index - first) % run.n_shards, block.stop, run.n_shards)))
            for index, stream in enumerate(streams)
        ]
        table = pa.concat_tables(pieces)
        table = table.take(pyarrow.compute.sort_indices(table.column("position")))
        if table.column("position").to_pylist() != list(block):
            raise InputError(f"{out} lacks images between {block.start} and {block.stop - 1}; evaluate it again")
        yield table.combine_chunks()  # one piece, however many it was made of


class _Stream:
    """Rows of a shard, some at a time."""

    def __init__(self, nothing: Any, tables: Iterator[Any]) -> None:
        self._tables, self._rest = tables, nothing

    def take(self, n: int) -> Any:
        """The next `n` rows, fewer at the end."""
        while len(self._rest) < n:
            further = next(self._tables, None)
            if further is None:
                break
            self._rest = row_files.pyarrow().concat_tables([self._rest, further])
        taken, self._rest = self._rest.slice(0, n), self._rest.slice(n)
        return taken


def _named_alike(table: Any, run: Run) -> Any:
    """Names numbered as the classes are: a file numbers them as they come."""
    pa = row_files.pyarrow()
    import pyarrow.compute

    kinds, names = row_files.schema(run.classes, run.fingerprint), pa.array(run.classes, pa.string())
    columns = []
    for field in kinds:
        column = table.column(field.name)
        if pa.types.is_dictionary(field.type):
            index = pyarrow.compute.index_in(column.cast(pa.string()).combine_chunks(), value_set=names)
            column = pa.DictionaryArray.from_arrays(index, names)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=kinds)
