import pytest

from detector.evaluation.detect import match_categories
from detector.exceptions import DataError


def test_same_categories_need_no_note():
    assert match_categories(["cat", "dog"], [3, 7], ["cat", "dog"], [3, 7], "a.ckpt", "gt.json") == ([3, 7], "")


def test_renumbered_categories_are_matched_by_name():
    ids, note = match_categories(["cat", "dog"], [3, 7], ["dog", "cat"], [0, 1], "a.ckpt", "gt.json")
    assert ids == [1, 0]
    assert note == (
        "Category ids are not those of the training data; classes are matched by name: cat 3 -> 1, dog 7 -> 0."
    )


@pytest.mark.parametrize(
    ("names", "ids", "missing"),
    [
        (["cat"], [3], "  only the detector has dog"),
        (["cat", "yak"], [3, 7], "  only the annotations have yak"),
        (["Cat", "dog"], [3, 7], "  only the detector has cat"),
        ([], [], "  only the detector has cat, dog"),
    ],
)
def test_other_categories_are_an_error_that_shows_both(names, ids, missing):
    with pytest.raises(DataError) as caught:
        match_categories(["cat", "dog"], [3, 7], names, ids, "a.ckpt", "gt.json")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the classes of a.ckpt and of gt.json are not the same:"
    assert lines[1] == "  detector:    3 cat, 7 dog"
    assert lines[2].startswith("  annotations: ")
    assert missing in lines


def test_repeated_names_are_not_matched_by_name():
    names = ["cell", "cell"]
    assert match_categories(names, [1, 2], names, [1, 2], "a.ckpt", "gt.json")[0] == [1, 2]
    with pytest.raises(DataError):
        match_categories(names, [1, 2], names, [3, 4], "a.ckpt", "gt.json")
