"""Text from elsewhere on its way to a terminal or a log."""

from __future__ import annotations

import unicodedata


def clean(text: str, *, keep_lines: bool = False) -> str:
    """`text` with what could steer a terminal or forge a line made visible."""
    kept = "\n" if keep_lines else ""
    return "".join(
        character if character in kept or unicodedata.category(character)[0] != "C" else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
