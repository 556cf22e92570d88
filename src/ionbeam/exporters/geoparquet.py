"""Dataset revisions as GeoParquet 1.1 files, one a window, for GIS tools and for anything that reads Parquet.

The format: https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam.client import DatasetRevision, IonbeamError
from ionbeam.exporters.folder import Disk, RevisionFolder, Stamp

ROW_GROUP_ROWS = 65_536
PREFIX = "ionbeam."
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_WKB_POINT = np.dtype([("little_endian", "u1"), ("kind", "<u4"), ("lon", "<f8"), ("lat", "<f8")])


class GeoParquetExporter:
    """Keeps `{folder}/{dataset}/{window start}_{span}.parquet`, such as `20240101T000000Z_P1D.parquet`.

    A file has the dataset's columns, a WKB point `geometry` (OGC:CRS84) and its covering `bbox`; a column of
    the dataset that has one of those names keeps it, and ours gets a number. Which revision it shows stands
    in the footer under `ionbeam.*`. The same revision gives the same bytes.
    """

    def __init__(self, folder: Path, *, name: str = "geoparquet", disk: Disk | None = None) -> None:
        self.name = name
        self._folder = RevisionFolder(folder, ".parquet", read_stamp, disk)

    def apply(self, revision: DatasetRevision) -> None:
        """Blocking. Durable when it returns. Raises Unavailable when the disk is full or read-only."""
        self._folder.show(revision.event, lambda file: write_geoparquet(revision, file))


def read_stamp(file: IO[bytes]) -> Stamp | None:
    """What the footer of a Parquet file says that it shows; None when it is damaged or says nothing."""
    try:
        metadata = pq.read_metadata(file).metadata or {}
    except pa.ArrowInvalid:
        return None
    except OSError as error:
        # Arrow raises OSError without a number for a footer that it cannot parse.
        if error.errno is not None:
            raise
        return None
    texts = {
        key.decode().removeprefix(PREFIX): value.decode()
        for key, value in metadata.items()
        if key.startswith(PREFIX.encode())
    }
    try:
        return msgspec.convert(texts, Stamp, strict=False)
    except msgspec.ValidationError:
        return None


def write_geoparquet(revision: DatasetRevision, file: IO[bytes]) -> int:
    """The dataset as GeoParquet, a batch at a time; its number of rows. With none the file is of no use."""
    event = revision.event
    with revision.open() as source, pa.ipc.open_file(source) as dataset:
        layout = _Layout(dataset.schema)
        rows, bounds = 0, np.array([np.inf, np.inf, -np.inf, -np.inf])
        with pq.ParquetWriter(file, layout.schema, compression="zstd") as writer:
            for index in range(dataset.num_record_batches):
                batch = dataset.get_batch(index)
                if batch.num_rows:
                    lon, lat = _position(batch, event.dataset_location)
                    writer.write_batch(layout.extended(batch, lon, lat), row_group_size=ROW_GROUP_ROWS)
                    np.minimum(bounds[:2], (lon.min(), lat.min()), out=bounds[:2])
                    np.maximum(bounds[2:], (lon.max(), lat.max()), out=bounds[2:])
                    rows += batch.num_rows
            if event.row_count not in (None, rows):
                raise IonbeamError(
                    f"{event.dataset_location} has {rows} rows, its event {event.id} says {event.row_count};"
                    " `ionbeam audit` tells which is wrong"
                )
            stamp = msgspec.to_builtins(Stamp.of(event))
            footer = {PREFIX + key: str(value) for key, value in sorted(stamp.items())}
            writer.add_key_value_metadata({"geo": layout.geo(bounds.tolist()), **footer})
    return rows


class _Layout:
    """The columns of the file: those of the dataset, then the geometry and its covering."""

    def __init__(self, dataset: pa.Schema) -> None:
        # Some readers (DuckDB) do not tell capital letters from small ones.
        taken = {name.casefold() for name in dataset.names}
        self._geometry, self._covering = _free("geometry", taken), _free("bbox", taken)
        corners = pa.struct([pa.field(corner, pa.float64(), nullable=False) for corner in _CORNERS])
        self.schema = dataset.append(pa.field(self._geometry, pa.binary(), nullable=False)).append(
            pa.field(self._covering, corners, nullable=False)
        )

    def extended(self, batch: pa.RecordBatch, lon: np.ndarray, lat: np.ndarray) -> pa.RecordBatch:
        """`batch` with a geometry and a covering for each row."""
        x, y = pa.array(lon), pa.array(lat)
        covering = pa.StructArray.from_arrays([x, y, x, y], fields=list(self.schema.field(self._covering).type))
        return pa.RecordBatch.from_arrays([*batch.columns, _points(lon, lat), covering], schema=self.schema)

    def geo(self, bounds: list[float]) -> str:
        """The `geo` metadata. No `crs` means OGC:CRS84: longitude, latitude, in degrees."""
        column = {
            "encoding": "WKB",
            "geometry_types": ["Point"],
            "bbox": bounds,
            "covering": {"bbox": {corner: [self._covering, corner] for corner in _CORNERS}},
        }
        content = {"version": "1.1.0", "primary_column": self._geometry, "columns": {self._geometry: column}}
        return json.dumps(content)


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _position(batch: pa.RecordBatch, location: str) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes in degrees."""
    columns = batch.column("longitude"), batch.column("latitude")
    missing = sum(column.null_count for column in columns)
    if missing:
        raise IonbeamError(f"{location} has {missing} null coordinates, a dataset file has none: build it again")
    lon, lat = (column.to_numpy() for column in columns)
    return lon, lat


def _points(lon: np.ndarray, lat: np.ndarray) -> pa.Array:
    """WKB points: byte order 1 (little), geometry type 1, then x and y; 21 bytes each."""
    points = np.empty(len(lon), _WKB_POINT)
    points["little_endian"] = 1
    points["kind"] = 1
    points["lon"], points["lat"] = lon, lat
    offsets = np.arange(len(lon) + 1, dtype=np.int32) * np.int32(_WKB_POINT.itemsize)
    return pa.Array.from_buffers(pa.binary(), len(lon), [None, pa.py_buffer(offsets), pa.py_buffer(points)])
