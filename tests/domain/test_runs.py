"""Merging runs by slices of time: every row once, in order, no identity on both sides of a cut, bounded slices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.fold import fold
from ionbeam.domain.runs import slices

Run = list[list[int]]
runs = st.lists(
    st.lists(st.integers(0, 12), max_size=25).flatmap(
        lambda times: st.lists(st.integers(0, len(times)), max_size=5).map(lambda cuts: _pieces(sorted(times), cuts))
    ),
    max_size=5,
)


def _pieces(times: list[int], cuts: list[int]) -> Run:
    return [times[low:high] for low, high in pairwise([0, *sorted(cuts), len(times)])]


def tables(run: Run, number: int, at: int = 0) -> Iterator[pa.Table]:
    for piece in run:
        yield table(piece, number, at)
        at += len(piece)


def table(piece: list[int], run: int, first: int) -> pa.Table:
    return pa.table(
        {
            "timestamp": pa.array(piece, pa.int64()),
            "run": pa.array([run] * len(piece), pa.int64()),
            "at": pa.array(range(first, first + len(piece)), pa.int64()),
        }
    )


@settings(max_examples=200, deadline=None)
@given(runs, st.integers(1, 60))
def test_every_row_comes_once_and_no_moment_is_cut(content: list[Run], limit: int) -> None:
    """Slices hold all rows, in order of time; a moment lies in one slice; pieces stand in the order of the runs."""
    out = list(slices([tables(run, number) for number, run in enumerate(content)], limit))
    assert all(len(piece) for pieces in out for piece in pieces)
    moments = [sorted({t for piece in pieces for t in piece["timestamp"].to_pylist()}) for pieces in out]
    assert all(a[-1] < b[0] for a, b in pairwise(moments))
    for pieces in out:
        order = [piece["run"][0].as_py() for piece in pieces]
        assert order == sorted(set(order))
        assert all(len(set(piece["run"].to_pylist())) == 1 for piece in pieces)
    for number, run in enumerate(content):
        mine = [p["at"].to_pylist() for pieces in out for p in pieces if p["run"][0].as_py() == number]
        assert [at for part in mine for at in part] == list(range(sum(map(len, run))))


@settings(max_examples=150, deadline=None)
@given(runs, st.integers(1, 60), st.sampled_from(["row", "value"]))
def test_folding_slices_equals_folding_all_at_once(content: list[Run], limit: int, kind: str) -> None:
    """The sum of the folded slices is the fold of everything, in rows and in counts."""

    def with_values(part: pa.Table) -> pa.Table:
        code = [
            (t * 7 + r * 3 + a) % 4 for t, r, a in zip(*(part[n].to_pylist() for n in part.column_names), strict=True)
        ]
        return part.append_column(
            "x", pa.array([None if c == 0 else float(c % 3) for c in code], pa.float64())
        ).append_column("k", pa.array([f"{c % 2}" for c in code], pa.string()))

    def folded(part: pa.Table) -> tuple[list[dict[str, object]], int, int, int]:
        result = fold(part, ["k"], ["x"], kind)
        return result.rows.to_pylist(), result.duplicate, result.merged, result.conflict

    everything = [with_values(part) for number, run in enumerate(content) for part in tables(run, number)]
    whole = folded(pa.concat_tables(everything)) if everything else ([], 0, 0, 0)
    parts = [
        folded(pa.concat_tables(pieces))
        for pieces in slices([map(with_values, tables(run, n)) for n, run in enumerate(content)], limit)
    ]
    assert [row for part in parts for row in part[0]] == whole[0]
    assert tuple(sum(part[n] for part in parts) for n in (1, 2, 3)) == whole[1:]


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("limit", [500, 5_000])
def test_slices_are_bounded(count: int, limit: int) -> None:
    """No slice of well spread rows is much longer than the limit, and no more of a run is read ahead than needed."""
    chance = np.random.default_rng(count)
    read = [0] * count
    given_out = [0] * count

    def run(number: int) -> Iterator[pa.Table]:
        times = np.sort(chance.integers(0, 10**9, 10_000))
        for start in range(0, len(times), 100):
            read[number] += 100
            yield table(times[start : start + 100].tolist(), number, start)

    total = 0
    for pieces in slices([run(number) for number in range(count)], limit):
        rows = sum(map(len, pieces))
        assert rows <= 1.2 * limit + 100
        total += rows
        for piece in pieces:
            given_out[piece["run"][0].as_py()] += len(piece)
        assert sum(read) - sum(given_out) <= 2 * limit + 300 * count
    assert total == count * 10_000


def test_a_moment_longer_than_the_limit_comes_whole() -> None:
    """Rows of one moment are never cut, however many there are and however they lie in pieces."""
    run = [[1, 5, 5], [5] * 10, [5, 5], [5, 9]]
    out = [[p["timestamp"].to_pylist() for p in pieces] for pieces in slices([tables(run, 0), tables([[5]], 1)], 2)]
    assert out == [[[1]], [[5] * 15, [5]], [[9]]]


def test_no_runs() -> None:
    """Nothing in, nothing out."""
    assert list(slices([], 10)) == []
    assert list(slices([iter([]), iter([table([], 0, 0)])], 10)) == []
