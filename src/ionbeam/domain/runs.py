"""Merging runs that are each in order of time, in pieces of bounded size.

The timestamp belongs to every identity, so rows of one identity never lie on both sides of a cut in time: each slice
can be folded by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ionbeam.schemas.metadata import TIMESTAMP

SAMPLES = 64


@dataclass(slots=True)
class _Run:
    """A run with the piece of it that is in hand; `rest` None: there is no more behind it."""

    piece: pa.Table
    rest: Iterator[pa.Table] | None
    step: int = 0

    def times(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        times: np.ndarray[tuple[int], np.dtype[np.int64]] = self.piece.column(TIMESTAMP).to_numpy()
        return times

    def fill(self, rows: int) -> None:
        """Have `rows` rows in hand, and more than one step's worth, if there are so many."""
        pieces = [self.piece] if len(self.piece) else []
        have = len(self.piece)
        while self.rest is not None and have < max(rows, 2 * self.step, 1):
            following = next(self.rest, None)
            if following is None:
                self.rest = None
            else:
                pieces.append(following)
                have += len(following)
                self.step = max(self.step, len(following))
        if pieces:
            # One chunk: the dictionary that all pieces of a run share is then unified once a run, not once a piece.
            self.piece = pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()

    def take_before(self, cut: int | None) -> pa.Table:
        count = len(self.piece) if cut is None else int(np.searchsorted(self.times(), cut))
        taken, self.piece = self.piece.slice(0, count), self.piece.slice(count)
        return taken


def slices(runs: Iterable[Iterable[pa.Table]], limit: int) -> Iterator[list[pa.Table]]:
    """Cut all runs at the same moments: for each slice of time the pieces that lie in it, in the order of `runs`.

    A slice has about `limit` rows, more only where one moment has more. Slices come in order of time.
    """
    active = [_Run(pa.table({TIMESTAMP: pa.array([], pa.int64())}), iter(run)) for run in runs]
    while True:
        for run in active:
            # Enough of each that a slice takes most of it: short steps would make many small slices.
            run.fill(limit // len(active))
        active = [run for run in active if len(run.piece)]
        if not active:
            return
        horizon = _horizon(active)
        cut = _cut(active, horizon, limit)
        pieces = [piece for run in active if len(piece := run.take_before(cut))]
        if pieces:
            yield pieces
        else:
            _more(active, horizon)


def _horizon(active: list[_Run]) -> int | None:
    """All rows before this moment are in hand; None: all rows are."""
    last = [int(run.piece.column(TIMESTAMP)[-1].as_py()) for run in active if run.rest is not None]
    return min(last) if last else None


def _more(active: list[_Run], horizon: int | None) -> None:
    """One moment fills the whole piece of some run: bring more of exactly those."""
    for run in active:
        if run.rest is not None and int(run.piece.column(TIMESTAMP)[-1].as_py()) == horizon:
            run.fill(len(run.piece) + 1)


def _cut(active: list[_Run], horizon: int | None, limit: int) -> int | None:
    """A moment not after `horizon` with at most about `limit` rows before it."""
    times = [run.times() for run in active]
    ready = [len(t) if horizon is None else int(np.searchsorted(t, horizon)) for t in times]
    if sum(ready) <= limit:
        return horizon
    moments, weights = [], []
    for values, count in zip(times, ready, strict=True):
        stride = max(1, count // SAMPLES)
        places = np.arange(0, count, stride)
        moments.append(values[places])
        weights.append(np.minimum(stride, count - places))
    moment, weight = np.concatenate(moments), np.concatenate(weights)
    rising = np.lexsort((weight, moment))
    moment = moment[rising]
    over = (np.cumsum(weight[rising]) > limit) & (moment > moment[0])
    return int(moment[np.argmax(over)]) if over.any() else horizon
