"""What the author of a source or an exporter uses."""

from ionbeam.client.client import Client, Rows
from ionbeam.client.exporting import DatasetRevision, Exporter
from ionbeam.errors import IonbeamError, Refused, Unavailable
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import (
    Claim,
    DataAvailableEvent,
    DataSetAvailableEvent,
    IngestDataCommand,
    StartSourceCommand,
    dataset_event_id,
)
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata, Link
from ionbeam.schemas.variables import (
    CanonicalVariable,
    Latitude,
    Longitude,
    MetadataVariable,
    TimeColumn,
)

__all__ = [
    "CanonicalVariable",
    "Claim",
    "Client",
    "DataAvailableEvent",
    "DataIngestionMap",
    "DataSetAvailableEvent",
    "DatasetMetadata",
    "DatasetRevision",
    "Duration",
    "Exporter",
    "IngestDataCommand",
    "IngestionMetadata",
    "IonbeamError",
    "Latitude",
    "Link",
    "Longitude",
    "MetadataVariable",
    "Refused",
    "Rows",
    "StartSourceCommand",
    "TimeColumn",
    "Unavailable",
    "dataset_event_id",
]
