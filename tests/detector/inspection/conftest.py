"""Cleaned copies of annotation files, without a command line."""

from types import SimpleNamespace

import pytest

from detector.config.defaults import default
from detector.config.schema import InspectConfig
from detector.data.annotations import read_annotations
from detector.data.splits import Split
from detector.inspection.cleaned_copy import clean
from detector.inspection.examined_split import examine_splits


@pytest.fixture(scope="session")
def clean_file():
    """``clean_file(annotation file, image folder)`` is its :class:`CleanedCopy`."""
    config = default(InspectConfig)
    config.data.workers = 1

    def cleaned(file, folder):
        split = Split("train", file, folder)
        reads = [read_annotations(file, strict=False)]
        splits, _, twins = examine_splits(config, [split], reads, lambda share: None)
        found = SimpleNamespace(splits=splits, twins=twins)
        return clean(found, [0], config, lambda share: None)[0]

    return cleaned
