"""What a dataset's first accepted command fixes for all that follow."""

from __future__ import annotations

from msgspec import Struct

from ionbeam.errors import ContractDisagreement
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.metadata import IngestionMetadata


class Contract(Struct, frozen=True, kw_only=True):
    """Span, identity, fold, and the dtype of every column that any command of the dataset named so far."""

    dataset: str
    span: Duration
    identity: tuple[str, ...]
    fold: str
    dtypes: dict[str, str]


def contract_of(metadata: IngestionMetadata) -> Contract:
    """The contract that `metadata` alone would make."""
    columns = metadata.ingestion_map
    dtypes: dict[str, str] = {variable.canonical_name: variable.dtype for variable in columns.canonical_variables}
    dtypes.update((variable.column, variable.dtype) for variable in columns.metadata_variables)
    return Contract(
        dataset=metadata.dataset.name,
        span=metadata.dataset.aggregation_span,
        identity=columns.identity_columns,
        fold=columns.fold,
        dtypes=dict(sorted(dtypes.items())),
    )


def agree(contract: Contract | None, metadata: IngestionMetadata) -> Contract:
    """The contract extended by new columns. Raises ContractDisagreement that names every point and both sides."""
    asked = contract_of(metadata)
    if contract is None:
        return asked
    points = [
        f"{name}: the dataset has {_text(ours)}, the command {_text(theirs)}"
        for name, ours, theirs in (
            ("aggregation_span", contract.span, asked.span),
            ("identity", contract.identity, asked.identity),
            ("fold", contract.fold, asked.fold),
            *(
                (f"dtype of {column!r}", contract.dtypes[column], dtype)
                for column, dtype in asked.dtypes.items()
                if column in contract.dtypes
            ),
        )
        if ours != theirs
    ]
    if points:
        raise ContractDisagreement(
            f"dataset {contract.dataset!r} was fixed by its first accepted command and this one disagrees: "
            + "; ".join(points)
            + "; send it as the dataset has it, or under another dataset name"
        )
    new = {column: dtype for column, dtype in asked.dtypes.items() if column not in contract.dtypes}
    if not new:
        return contract
    return Contract(
        dataset=contract.dataset,
        span=contract.span,
        identity=contract.identity,
        fold=contract.fold,
        dtypes=dict(sorted({**contract.dtypes, **new}.items())),
    )


def _text(value: object) -> str:
    return f"({', '.join(value)})" if isinstance(value, tuple) else str(value)
