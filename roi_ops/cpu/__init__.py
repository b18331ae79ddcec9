"""C++ kernels for processors."""


def why_not() -> str | None:
    """Why the kernels cannot be used here, or None if they can."""
    return "not built"


def available() -> bool:
    """Whether the kernels can be used here."""
    return why_not() is None
