"""What an error says, for a dead letter, a history or a log. Groups speak through their members."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST = 2000


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in `error`: itself, or what a group holds at any depth."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def reason_of(error: BaseException, *, with_type: bool = True) -> str:
    """The texts of all leaves of `error`, at most 2,000 characters; never empty."""
    said = "; ".join(_says(leaf, with_type) for leaf in leaves(error))
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}… ({len(said)} characters)"


def _says(error: BaseException, with_type: bool) -> str:
    text, kind = str(error), type(error).__name__
    if not text:
        return kind
    return f"{kind}: {text}" if with_type else text
