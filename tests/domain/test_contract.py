"""A dataset's contract: fixed by its first command, extended by new columns, never contradicted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.contract import Contract, agree, contract_of
from ionbeam.errors import ContractDisagreement
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable


def metadata(
    variables: dict[str, str] | None = None, columns: dict[str, str] | None = None, span: str = "PT1H", **more: Any
) -> IngestionMetadata:
    """Metadata with variables and metadata columns by name and dtype."""
    variables = {"t": "float64"} if variables is None else variables
    columns = {"station": "string"} if columns is None else columns
    return IngestionMetadata(
        dataset=DatasetMetadata(name="air", aggregation_span=Duration(span)),
        ingestion_map=DataIngestionMap(
            canonical_variables=tuple(
                CanonicalVariable(column=name, standard_name=name, cf_unit="K", dtype=dtype)  # type: ignore[arg-type]
                for name, dtype in variables.items()
            ),
            metadata_variables=tuple(
                MetadataVariable(column=name, dtype=dtype)  # type: ignore[arg-type]
                for name, dtype in columns.items()
            ),
            **more,
        ),
    )


def test_the_first_command_fixes_everything() -> None:
    """Span, identity, fold and every dtype come from the first accepted command."""
    found = agree(None, metadata({"t": "float32"}, {"station": "string", "n": "int16"}, fold="value"))
    assert found == Contract(
        dataset="air",
        span=Duration("PT1H"),
        identity=("station", "n"),
        fold="value",
        dtypes={"n": "int16", "station": "string", "t__K__0.0__point__PT0S": "float32"},
    )


@pytest.mark.parametrize(
    ("theirs", "point", "sides"),
    [
        (metadata(span="P1D"), "aggregation_span", ("PT1H", "P1D")),
        (metadata(identity=("latitude",)), "identity", ("(station)", "(latitude)")),
        (metadata(columns={"station": "string", "hut": "string"}), "identity", ("(station)", "(station, hut)")),
        (metadata(fold="value"), "fold", ("row", "value")),
        (metadata({"t": "int32"}), "dtype of 't__K__0.0__point__PT0S'", ("float64", "int32")),
        (metadata(columns={"station": "int64"}), "dtype of 'station'", ("string", "int64")),
    ],
)
def test_a_disagreement_names_both_sides(theirs: IngestionMetadata, point: str, sides: tuple[str, str]) -> None:
    """What was fixed cannot change; the error says the point, what the dataset has and what the command asks."""
    with pytest.raises(ContractDisagreement) as caught:
        agree(contract_of(metadata()), theirs)
    assert f"{point}: the dataset has {sides[0]}, the command {sides[1]}" in str(caught.value)
    assert "another dataset name" in str(caught.value)


def test_every_disagreement_is_told_at_once() -> None:
    """One error lists all points."""
    with pytest.raises(ContractDisagreement) as caught:
        agree(contract_of(metadata()), metadata({"t": "int8"}, span="P1D", fold="value"))
    assert all(point in str(caught.value) for point in ("aggregation_span", "fold", "dtype of"))


def test_new_columns_may_come() -> None:
    """New variables, and new metadata columns outside the identity, extend the contract."""
    first = metadata(identity=("station",))
    more = metadata({"t": "float64", "p": "int32"}, {"station": "string", "hut": "bool"}, identity=("station",))
    extended = agree(contract_of(first), more)
    assert extended.dtypes == contract_of(more).dtypes
    assert agree(extended, first) is extended


names = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["float64", "int8"]), min_size=1)
maps = st.builds(
    metadata,
    names,
    st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["string", "bool"])),
    st.sampled_from(["PT1H", "PT60M"]),
    identity=st.just(("timestamp",)),
)


@settings(deadline=None)
@given(st.lists(maps, min_size=1, max_size=5))
def test_agreeing_is_growing(commands: list[IngestionMetadata]) -> None:
    """A contract only ever grows: it keeps every dtype it had, and what it accepted once it accepts again."""
    contract, accepted = None, []
    for command in commands:
        try:
            extended = agree(contract, command)
        except ContractDisagreement:
            assert contract is not None
            assert any(contract.dtypes.get(c, d) != d for c, d in contract_of(command).dtypes.items())
            continue
        assert contract is None or contract.dtypes.items() <= extended.dtypes.items()
        assert contract_of(command).dtypes.items() <= extended.dtypes.items()
        contract = extended
        accepted.append(command)
    assert all(agree(contract, command) == contract for command in accepted)


def test_a_contract_survives_its_wire_form() -> None:
    """A contract is stored as JSON and read back equal."""
    from ionbeam.schemas.codec import decode, encode

    found = contract_of(metadata(columns={"sta\u0308tion \u200f": "string"}))
    assert decode(encode(found), Contract) == found
    assert msgspec.json.decode(encode(found))["span"] == "PT1H"
