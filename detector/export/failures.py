"""What an exporter says of a RoI operator that it cannot write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detector.config.checks import is_target
from detector.config.schema import RoiConfig
from detector.config.targets import word_of
from detector.exceptions import ExportError
from detector.words import first_line


@contextmanager
def named_operator(roi: RoiConfig, form: str) -> Iterator[None]:
    """In the block, an exporter fails with a message that names the class in ``roi.kind``, if there is one.

    Args:
        roi: the operator of the detector.
        form: the format that is written.

    Raises:
        ExportError: whatever the exporter raises, which is its cause. With an operator of ours that is raised itself.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not is_target(roi.kind):
            raise
        raise ExportError(
            f"format={form}: the detector cannot be written with roi.kind={word_of(roi.kind)}, which the "
            f"exporter does not follow: {type(error).__name__}: {first_line(error)}"
        ) from error
