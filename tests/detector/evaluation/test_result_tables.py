import pytest
from rich.console import Console

from detector.evaluation.metrics import METRIC_NAMES, ClassResult
from detector.evaluation.result_tables import WIDTH
from detector.evaluation.scoring import CocoResult


@pytest.fixture
def result():
    metrics = {name: 0.1 + i / 100 for i, name in enumerate(METRIC_NAMES)}
    metrics["APs"] = metrics["ARs"] = None
    per_class = [
        ClassResult(1, "rare", None, None, None, 0, 0, 4),
        ClassResult(2, "mid [bold]dle[/bold]", 0.25, 0.5, 0.75, 1234, 56, 7890),
        ClassResult(3, "good", 0.875, 1.0, 0.9375, 10, 9, 11),
        ClassResult(4, "none", 0.0, 0.0, 0.0, 5, 5, 0),
    ]
    return CocoResult(metrics, per_class, ["No ground-truth object is small: APs and ARs are n/a."], 60, 1249, 7905)


def cells(table, first):
    return next(line.split() for line in table.splitlines() if line.split()[:1] == [first])


def test_the_twelve_numbers_with_their_meaning(result):
    table = result.table()
    assert cells(table, "AP") == ["AP", "0.100", "0.50:0.95", "all", "100"]
    assert cells(table, "AP75") == ["AP75", "0.120", "0.75", "all", "100"]
    assert cells(table, "APs") == ["APs", "n/a", "0.50:0.95", "small", "(<", "32²", "px)", "100"]
    assert cells(table, "AR10") == ["AR10", "0.170", "0.50:0.95", "all", "10"]
    order = [line.split()[0] for line in table.splitlines() if line.split() and line.split()[0] in METRIC_NAMES]
    assert order == list(METRIC_NAMES)


def test_classes_are_sorted_by_ap_and_unknown_ones_come_last(result):
    table = result.table()
    rows = table[table.index("Classes") :].splitlines()
    names = [row.split()[0] for row in rows if row.split() and row.split()[0] in ("rare", "mid", "good", "none")]
    assert names == ["good", "mid", "none", "rare"]
    assert cells(table, "good")[1:] == ["0.875", "1.000", "0.938", "10", "9", "11"]
    assert cells(table, "rare")[1:] == ["n/a", "n/a", "n/a", "0", "0", "4"]
    assert "mid [bold]dle[/bold]" in table  # a name is not markup
    assert "1,234" in table


def test_counts_and_notes_follow(result):
    lines = result.table().splitlines()
    assert lines[-2:] == [
        "60 images, 1,249 ground-truth boxes, 7,905 detections",
        "- No ground-truth object is small: APs and ARs are n/a.",
    ]


def test_plain_text_has_no_escape_codes_or_trailing_spaces(result):
    table = result.table()
    assert "\x1b" not in table
    assert all(line == line.rstrip() and len(line) <= WIDTH for line in table.splitlines())


def test_rich_prints_it_in_a_narrow_terminal(result, capsys):
    Console(width=80).print(result)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 80
    for name in METRIC_NAMES:
        assert any(line.split()[:1] == [name] for line in printed.splitlines())
