"""What an error says."""

from __future__ import annotations

from ionbeam.actors.core import leaves, reason_of


def test_an_error_speaks_with_its_type_and_never_says_nothing() -> None:
    """An error without a text is known by its type."""
    assert reason_of(OSError("slow")) == "OSError: slow"
    assert reason_of(OSError("slow"), with_type=False) == "slow"
    assert reason_of(OSError(), with_type=False) == reason_of(OSError()) == "OSError"


def test_a_group_speaks_through_its_members() -> None:
    """In order, at any depth."""
    first, second = OSError("slow"), ValueError("wrong")
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [first]), second])
    assert list(leaves(group)) == [first, second]
    assert reason_of(group) == "OSError: slow; ValueError: wrong"


def test_a_long_reason_is_cut_and_says_so() -> None:
    """Reasons travel in dead letters and logs."""
    text = reason_of(OSError("x" * 5000))
    assert text.startswith("OSError: xxx")
    assert text.endswith("x… (5009 characters)")
    assert len(text) < 2100
