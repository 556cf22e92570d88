"""What the columns of the Sensor.Community archive mean in CF terms."""

from __future__ import annotations

from collections.abc import Collection

from ionbeam.client import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    Duration,
    IngestionMetadata,
    Latitude,
    Link,
    Longitude,
    MetadataVariable,
    TimeColumn,
)
from ionbeam.sources.sensor_community_files import DESCRIBING, REJECTED, Unusable

_PARTICLES = "mass_concentration_of_{}_ambient_aerosol_particles_in_air"
_VARIABLES = tuple(
    CanonicalVariable(column=column, standard_name=name, cf_unit=unit)
    for column, name, unit in (
        ("P0", _PARTICLES.format("pm1"), "ug m-3"),
        ("P1", _PARTICLES.format("pm10"), "ug m-3"),
        ("P2", _PARTICLES.format("pm2p5"), "ug m-3"),
        ("temperature", "air_temperature", "degC"),
        ("humidity", "relative_humidity", "%"),
        ("pressure", "air_pressure", "Pa"),
        ("pressure_sealevel", "air_pressure_at_mean_sea_level", "Pa"),
        ("co2_ppm", "mole_fraction_of_carbon_dioxide_in_air", "1e-6"),
    )
)

# The PPD42NS counts particles: its P1 and P2 are numbers in 0.01 cubic feet of air, not masses.
_OTHER_MEANING = {"ppd42ns": {"P0", "P1", "P2"}}


def dataset_name(sensor_type: str, indoor: bool) -> str:
    """`sensor_community_{type}`. Indoor sensors are a dataset of their own: theirs is not the air outside."""
    return f"sensor_community_{sensor_type.lower().replace('-', '_')}{'_indoor' if indoor else ''}"


def metadata(dataset: str, columns: Collection[str], span: Duration) -> IngestionMetadata:
    """The map for files that have `columns`, whether or not any of them has a value.

    Raises Unusable when none of them has a CF standard name.
    """
    sensor_type = dataset.removeprefix("sensor_community_").removesuffix("_indoor")
    other = _OTHER_MEANING.get(sensor_type, set())
    variables = tuple(v for v in _VARIABLES if v.column in columns and v.column not in other)
    if not variables:
        raise Unusable(
            f"none of the columns {', '.join(columns)} has a known CF name for sensor type {sensor_type!r};"
            " they cannot be ingested until this source has a variable for one of them"
        )
    return IngestionMetadata(
        dataset=DatasetMetadata(
            name=dataset,
            description=f"Sensor.Community archive: observations of citizens' {sensor_type} sensors",
            aggregation_span=span,
            source_links=(
                Link(
                    mime_type="text/html",
                    title="Sensor.Community archive",
                    href="https://archive.sensor.community/",
                ),
            ),
            keywords=("sensor.community", "luftdaten", sensor_type),
        ),
        ingestion_map=DataIngestionMap(
            datetime=TimeColumn(from_col="timestamp", timezone="UTC"),
            lat=Latitude(from_col="lat"),
            lon=Longitude(from_col="lon"),
            canonical_variables=variables,
            metadata_variables=tuple(MetadataVariable(column=column) for column in DESCRIBING),
            identity=("sensor_id",),
            reject_column=REJECTED,
        ),
    )
