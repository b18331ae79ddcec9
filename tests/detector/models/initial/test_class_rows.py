"""Classes of an old and a new detector matched by their names."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from detector.exceptions import ConfigError, WeightsError
from detector.models.initial.class_rows import match_classes


def sources(old, new, **class_map):
    return match_classes(old, new, class_map, "old.pth").sources


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RBC", "rbc"),
        ("traffic light", "Traffic_Light"),
        ("pin-hole", "pinhole"),
        ("Platelet", "platelets"),
        ("boxes", "box"),
        ("berry", "Berries"),
        ("knife", "knives"),
        ("wolves", "wolf"),
        ("buses", "bus"),
        ("STRASSE", "straße"),
        ("ﬁsh", "fish"),  # a ligature
        ("猫", "猫"),
        ("+", "+"),
        ("No. 5", "no 5"),
        ("pin - hole", "pin–hole"),  # a dash
        ("traffic/light", "traffic.light"),
        ("PM 1.5", "pm1.5"),
        ("HER2 -", "her2-"),
        ("10_20", "10 20"),
        ("\N{MINUS SIGN}1", "-1"),
    ],
)
def test_names_that_are_alike(old, new):
    assert sources(["other", old], [new]) == [[1]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("car", "care"), ("a", "as"), ("+", "-"), ("glass", "glas"), ("cat", "dog")),
        *(("pm1.5", "pm15"), ("HER2+", "HER2-"), ("HER2- cell", "HER2 cell"), ("<5", ">5"), ("-1", "1"), ("C", "C++")),
        *(("C", "C#"), ("1-5", "15"), ("1 - 5", "15"), ("1 2", "12"), ("1/2", "12"), (".5", "5"), ("माला", "मिली")),
    ],
)
def test_names_that_are_not(old, new):
    assert sources([old], [new]) == [[]]


def test_the_same_name_wins_over_one_that_is_alike():
    assert sources(["glasses", "glass"], ["glass", "Glasses"]) == [[1], [0]]
    assert sources(["Cat", "cat"], ["cat"]) == [[1]]


@pytest.mark.parametrize(
    ("old", "new"), [(["Cat", "CAT"], ["cat"]), (["cat"], ["Cat", "CAT"]), (["Dog", "dog"], ["dogs"])]
)
def test_names_that_are_like_several_are_refused(old, new):
    with pytest.raises(WeightsError, match=r"old\.pth") as refused:
        sources(old, new)
    assert all(name in str(refused.value) for name in (*old, *new, "model.class_map="))


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        (["cat", "cat"], ["cat", "dog"], "{1: cat}"),
        (["cat"], ["cat", "cat"], "{cat: 1}"),
        (["Cat", "CAT"], ["cat"], "{1: cat}"),
        (["Über", "ÜBER"], ["über"], "{1: 1}"),
        (["cat (big)", "Cat (big)"], ["cat_(big)"], "{1: 1}"),
        (["tree", "trees"], ["Tree/s", "TREES"], "{trees: 1}"),
    ],
)
def test_the_advice_can_be_followed_on_the_command_line(old, new, remedy):
    with pytest.raises(WeightsError) as refused:
        sources(old, new)
    (advice,) = re.findall(r"'(model\.class_map=.*)'", str(refused.value))
    assert advice.endswith(remedy)
    given = OverridesParser.create().parse_override(advice).value()
    assert match_classes(old, new, given, "old.pth").sources[0] == [old.index("trees") if "trees" in old else 0]


def test_a_class_may_be_called_by_its_number():
    assert sources(["Über", "cat (big)"], ["a", "b"], **{"1": "b", "2": "a"}) == [[1], [0]]
    assert sources(["2", "x"], ["a"], **{"2": "a"}) == [[0]]  # the name comes first
    for number in ("0", "3", "-1"):
        with pytest.raises(ConfigError, match=f"has no class '{number}'"):
            sources(["x", "y"], ["a"], **{number: "a"})
    with pytest.raises(ConfigError, match=r"several classes that 'cat' may be: cat \(number 1\), cat \(number 3\)"):
        sources(["cat", "dog", "cat"], ["cat"], cat="cat")


def test_the_map_comes_first():
    old, new = ["person", "car", "truck", "tram", "cat"], ["pedestrian", "vehicle", "tram", "metro", "cat", "bird"]
    found = match_classes(
        old,
        new,
        {"persons": "Pedestrian", "car": "vehicle", "truck": "vehicle", "tram": ["tram", "metro"], "cat": None},
        "",
    )
    assert found.sources == [[0], [1, 2], [3], [3], [], []]
    assert (found.unwanted, found.dropped, found.targets(3)) == ([4], [4], [2, 3])


def test_classes_without_a_name_go_by_their_number():
    assert sources(["", "", "x"], ["a", "b"], **{"1": "b"}) == [[], [0]]
    assert match_classes(["", ""], ["a"], {2: "a"}, "").sources == [[1]]  # as YAML reads {2: a}


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"persn": "a"}, r"old\.pth has no class 'persn'; did you mean 'person'"),
        ({"person": "x"}, "the data have no class 'x'; its classes are a, b"),
        ({"person": {"a": 1}}, "person is mapped to"),
        ({"person": True}, "person is mapped to"),
    ],
)
def test_a_map_of_classes_that_there_are_not(class_map, message):
    with pytest.raises(ConfigError, match=message):
        match_classes(["person"], ["a", "b"], class_map, "old.pth")


def test_table():
    found = match_classes(["RBC", "people", "a", "b"], ["rbc", "person", "ab", "new"],
                          {"people": "person", "a": "ab", "b": "ab"}, "")  # fmt: skip
    assert found.table().splitlines() == [
        "from    to",
        "RBC     rbc     by name, spelt otherwise",
        "people  person  model.class_map",
        "a, b    ab      model.class_map, the mean of their rows",
        "-       new     new: random rows",
    ]
    few = match_classes(["a", "b"], ["a"], {}, "").table()
    assert few.splitlines() == ["from  to", "a     a   by name", "b     -   dropped"]
    many = match_classes([f"c{i}" for i in range(80)], ["c3"], {}, "").table().splitlines()
    assert len(many) == 3
    assert many[2].startswith("dropped 79: c0, c1, c2, c4,")
    assert many[2].endswith("c79")
