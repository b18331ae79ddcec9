"""Results: printed, shown in a notebook, given as a path."""

from dataclasses import dataclass

from rich.table import Table

from detector.outcome import Outcome, show
from detector.terminal import titled


def test_results_are_printed_with_their_files(tmp_path, capsys):
    @dataclass(repr=False)
    class Found(Outcome):
        folder: object

        def __rich__(self) -> Table:
            table = titled("run[b] [/none]: better")
            table.add_column("x" * 120)
            return table

    folder = tmp_path / "[red]"
    (folder / "plots").mkdir(parents=True)
    for name in ("b.json", ".hidden", "a.png"):
        (folder / name).touch()
    show(Found(folder))
    lines = capsys.readouterr().out.splitlines()
    assert "run[b] [/none]: better" in lines[0]
    assert any("x" * 120 in line for line in lines)  # wider than the 80 columns of no terminal
    assert lines[-1] == f"Results are in {folder}: a.png, b.json, plots"
