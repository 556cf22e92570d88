"""Which spans of time the claims of a dataset cover.

Coverage is a step function: disjoint segments in order, each with the number of claims that lie over it. To claim adds
one over a span, to withdraw takes one away, and both touch only the segments of that span, however long the history.
Times are any ordered integers (the ledger uses microseconds since the Unix epoch).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """`[start, end)` lies under `claims` claims."""

    start: int
    end: int
    claims: int


def claim(segments: Sequence[Segment], start: int, end: int) -> list[Segment]:
    """`segments` with one more claim over `[start, end)`.

    `segments` are all that touch `[start, end]`, in order; the result takes their place.
    """
    return _change(segments, start, end, +1)


def withdraw(segments: Sequence[Segment], start: int, end: int) -> list[Segment]:
    """`segments` with one claim over `[start, end)` fewer. Raises ValueError where there is none to take away."""
    return _change(segments, start, end, -1)


def missing(segments: Iterable[Segment], start: int, end: int) -> list[tuple[int, int]]:
    """The parts of `[start, end)` that no claim covers, in order."""
    gaps: list[tuple[int, int]] = []
    reached = start
    for segment in segments:
        if segment.end <= reached or segment.start >= end:
            continue
        if segment.start > reached:
            gaps.append((reached, segment.start))
        reached = segment.end
    if reached < end:
        gaps.append((reached, end))
    return gaps


def _change(segments: Sequence[Segment], start: int, end: int, step: int) -> list[Segment]:
    pieces: list[Segment] = []
    reached = start
    for segment in segments:
        before, inside, after = _cut(segment, start, end)
        if before:
            pieces.append(before)
        if inside:
            if inside.start > reached:
                pieces.append(Segment(reached, inside.start, step))
            pieces.append(Segment(inside.start, inside.end, inside.claims + step))
            reached = inside.end
        if after:
            if reached < end:
                pieces.append(Segment(reached, end, step))
                reached = end
            pieces.append(after)
    if reached < end:
        pieces.append(Segment(reached, end, step))
    if any(piece.claims < 0 for piece in pieces):
        raise ValueError(f"no claim over all of [{start}, {end}) to withdraw")
    return _joined(piece for piece in sorted(pieces) if piece.claims)


def _cut(segment: Segment, start: int, end: int) -> tuple[Segment | None, Segment | None, Segment | None]:
    """The parts of `segment` before, inside and after `[start, end)`."""

    def part(low: int, high: int) -> Segment | None:
        low, high = max(low, segment.start), min(high, segment.end)
        return Segment(low, high, segment.claims) if low < high else None

    return part(segment.start, start), part(start, end), part(end, segment.end)


def _joined(pieces: Iterable[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for piece in pieces:
        if joined and joined[-1].end == piece.start and joined[-1].claims == piece.claims:
            joined[-1] = Segment(joined[-1].start, piece.end, piece.claims)
        else:
            joined.append(piece)
    return joined
