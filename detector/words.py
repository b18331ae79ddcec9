"""Numbers and exceptions in sentences."""

from __future__ import annotations


def counted(count: float, one: str, many: str = "") -> str:
    """A count with its noun, as people write it: ``1 image``, ``1,440 images``, ``0.5 epochs``.

    Args:
        count: how many; three digits of one that is not whole.
        one: the words after a count of 1.
        many: those after any other; "": ``one`` with an s.
    """
    number = f"{count:,.0f}" if count == round(count) else three_digits(count)
    return f"{number} {one if number == '1' else many or one + 's'}"


def three_digits(value: float) -> str:
    """Three digits, as people write them: 0.0386, 12.3, 1,440."""
    short = float(f"{value:.3g}")
    return f"{short:.3g}" if abs(short) < 1000 else f"{short:,.0f}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type if it has none."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
