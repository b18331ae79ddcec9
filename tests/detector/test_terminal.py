"""Tables, results and the progress bar of slow work."""

from typing import NamedTuple

import pytest
from rich.table import Table

from detector import terminal
from detector.terminal import show, slow_progress, titled


def test_results_are_printed_with_their_files(tmp_path, capsys):
    class Outcome(NamedTuple):
        folder: object

        def __rich__(self) -> Table:
            table = titled("run[b] [/none]: better")
            table.add_column("x" * 120)
            return table

    folder = tmp_path / "[red]"
    (folder / "plots").mkdir(parents=True)
    for name in ("b.json", ".hidden", "a.png"):
        (folder / name).touch()
    show(Outcome(folder))
    lines = capsys.readouterr().out.splitlines()
    assert "run[b] [/none]: better" in lines[0]
    assert any("x" * 120 in line for line in lines)  # wider than the 80 columns of no terminal
    assert lines[-1] == f"Results are in {folder}: a.png, b.json, plots"


@pytest.mark.parametrize(
    ("patience", "shown", "words"), [(-1.0, True, True), (60.0, True, False), (-1.0, False, False)]
)
def test_a_bar_for_slow_work_only(monkeypatch, capsys, patience, shown, words):
    monkeypatch.setattr(terminal, "BAR_AFTER", patience)
    with slow_progress("counting", shown) as tell:
        tell(0.5)
        tell(1.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("counting" in err and "100%" in err) == words
    assert bool(err) == words


def test_an_error_ends_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "BAR_AFTER", -1.0)

    def work():
        with slow_progress("counting") as tell:
            tell(0.25)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        work()
    assert " 25%" in capsys.readouterr().err
