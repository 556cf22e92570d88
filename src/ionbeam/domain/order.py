"""The total order of rows: time, then the identity columns (nulls first, text by code point), then precedence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam.schemas.metadata import TIMESTAMP

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Order:
    """How to put a table in order.

    `places` are the rows in order (None: they are in order already); `starts` says for each place in that order
    whether a new identity begins there.
    """

    places: Integers | None
    starts: npt.NDArray[np.bool_]

    @property
    def distinct(self) -> bool:
        """Whether every row has an identity of its own."""
        return bool(self.starts.all())


def order(table: pa.Table, identity: Sequence[str]) -> Order:
    """The order of `table`, whose rows stand in ascending precedence wherever their identities are equal."""
    length = len(table)
    if length == 0:
        return Order(None, np.zeros(0, bool))
    times = table.column(TIMESTAMP).to_numpy()
    first = times.min()
    if int(times.max()) - int(first) >= 1 << 62:
        return _general(times, *_codes(table, identity))
    ticks = times - first
    codes, radix = _codes(table, identity)
    step = int(np.gcd.reduce(ticks)) or 1
    ticks = ticks // step if step > 1 else ticks
    bits = (int(ticks.max()) + 1).bit_length() + radix.bit_length()
    if bits > 63:
        return _general(times, codes, radix)
    keys = ticks * radix + codes
    rising = keys[1:] >= keys[:-1]
    if rising.all():
        return Order(None, _starts(keys))
    place_bits = length.bit_length()
    if bits + place_bits > 63:
        places = np.argsort(keys, kind="stable")
        return Order(places, _starts(keys[places]))
    # key and place in one integer: sorting values is several times faster than sorting places by key
    packed = np.sort((keys << place_bits) | np.arange(length))
    return Order(packed & ((1 << place_bits) - 1), _starts(packed >> place_bits))


def _general(times: Integers, codes: Integers, radix: int) -> Order:
    places = np.lexsort((codes, times))
    times, codes = times[places], codes[places]
    starts = np.ones(len(places), bool)
    starts[1:] = (times[1:] != times[:-1]) | (codes[1:] != codes[:-1])
    return Order(places, starts)


def _starts(keys: Integers) -> npt.NDArray[np.bool_]:
    starts = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=starts[1:])
    return starts


def _codes(table: pa.Table, identity: Sequence[str]) -> tuple[Integers, int]:
    """One number a row that orders the identity columns, and how many such numbers there can be."""
    codes = np.zeros(len(table), np.int64)
    radix = 1
    for name in identity:
        ranks, count = _ranks(table.column(name))
        if radix * count >= 1 << 62:
            _, codes = np.unique(codes, return_inverse=True)
            radix = int(codes.max()) + 1
        codes = codes * count + ranks
        radix *= count
    return codes, radix


def _ranks(column: pa.ChunkedArray) -> tuple[Integers, int]:
    """The rank of each value among the column's values, null the lowest."""
    if pa.types.is_floating(column.type):
        values, ranks = np.unique(column.to_numpy(), return_inverse=True)
        return ranks.astype(np.int64), len(values)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = encoded.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    by_code_point = pc.sort_indices(array.dictionary.cast(pa.binary()))
    ranks = np.empty(len(by_code_point) + 1, np.int64)
    ranks[by_code_point.to_numpy()] = np.arange(1, len(by_code_point) + 1)
    ranks[-1] = 0
    places = array.indices.cast(pa.int64()).fill_null(len(by_code_point)).to_numpy()
    return ranks[places], len(by_code_point) + 1
