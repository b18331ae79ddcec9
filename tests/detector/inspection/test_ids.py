"""Which entry an annotation means, and when nobody can tell."""

import pytest

from detector.inspection.changes import ChangeLog
from detector.inspection.ids import CATEGORIES, IMAGES, distinct, key_of, unused, with_references


def meaning(entries, references, kind=CATEGORIES):
    """The name of the entry that each reference means, or the kind of the problem."""
    annotations = [{kind.reference: value} for value in references]
    kept, lookup = distinct(entries, kind, annotations, ChangeLog())
    names = {entry["id"]: entry[kind.name] for entry in kept}
    found = [lookup.find(value) for value in references]
    return [names[number] if isinstance(number, int) else number[0] for number in found]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        *[(v, 3) for v in (3, 3.0, "3", " 3", "3.0", "+3", "03")],
        (2.5, "2.5"), ("2.5", "2.5"), ("1e3", "1e3"), ("a", "a"), (True, "true"), (2**64, str(2**64)),
        (str(2**64), str(2**64)), *[(v, None) for v in (None, "", " ", float("nan"), float("inf"), [1], {"id": 1})],
    ],
)  # fmt: skip
def test_keys(value, key):
    assert key_of(value) == key
    assert type(key_of(value)) is type(key)


def test_unused_ids():
    assert [next(unused({1, 7})), next(unused(set())), next(unused({-4})), next(unused({1, 2**62}))] == [8, 1, 1, 2]


RED, BLUE = {"id": 1, "name": "red"}, {"id": 2, "name": "blue"}


@pytest.mark.parametrize(
    ("entries", "references", "expected"),
    [
        ([RED, BLUE], [1, "2", 2.0, "blue"], ["red", "blue", "blue", "blue"]),
        ([RED, BLUE], [3, "green", True], ["unknown_category"] * 3),
        ([RED, BLUE], [None, [1]], ["bad_annotation"] * 2),
        ([RED, {"id": 1, "name": "blue"}], [1, "red", "blue"], ["category_left_out"] * 3),
        ([RED, {"id": "1", "name": "blue"}], [1, "1"], ["category_left_out"] * 2),
        ([RED, dict(RED)], [1, "red"], ["red", "red"]),  # given twice
        ([RED, {"id": 2, "name": "red"}], [1, 2, "red"], ["red", "red", "unknown_category"]),
        # Names that are numbers: by id, if all annotations have ids.
        ([{"id": 1, "name": "2"}, {"id": 2, "name": "1"}], [1, 2], ["2", "1"]),
        ([{"id": 1, "name": "7"}, {"id": 2, "name": "8"}], [7, 8, "7"], ["7", "8", "7"]),
        ([{"id": 1, "name": "2"}, {"id": 2, "name": "3"}], [1, 2, 3], ["2", "ambiguous_id", "3"]),
        ([{"id": 1, "name": "2"}, {"id": 2, "name": "1"}], ["1", 2], ["ambiguous_id", "1"]),
        ([{"id": "1", "name": "2"}, {"id": "2", "name": "1"}], ["1", "2"], ["2", "1"]),
        ([{"id": 1, "name": "None"}], [None], ["bad_annotation"]),
    ],
)  # fmt: skip
def test_meaning(entries, references, expected):
    assert meaning(entries, references) == expected


def test_images_of_one_id_are_the_same_only_with_the_same_size():
    one = {"id": 1, "file_name": "1.png", "height": 4, "width": 6}
    assert meaning([one, dict(one)], [1], IMAGES) == ["1.png"]
    assert meaning([one, {**one, "width": 12}], [1], IMAGES) == ["image_left_out"]


def test_new_ids_are_those_of_the_entries_whatever_annotations_refer_to():
    """A training and a validation file with the same categories: in one of them a stray reference has a new id."""
    entries = [{"id": "b", "name": "blue"}, {"id": 4, "name": "red"}, {"id": "a", "name": "green"}]
    for references in ([], [5, 6, "7"], [1000]):
        log = ChangeLog()
        annotations = [{"category_id": value} for value in ("a", *references)]
        kept, lookup = distinct(entries, CATEGORIES, annotations, log)
        assert {entry["name"]: entry["id"] for entry in kept} == {"red": 4, "green": 5, "blue": 6}
        assert with_references(annotations[0], [lookup], log) == {"category_id": 5}
        strays = [with_references(annotation, [lookup], log) for annotation in annotations[1:]]
        assert strays == [None] * len(references)
        assert [lookup.find(value)[0] for value in references] == ["unknown_category"] * len(references)
