"""The progress bar of slow work, in a terminal and in a notebook."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import TextColumn

from detector import terminal
from detector.terminal import progress, slow_progress


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


def test_a_notebook_gets_one_output_that_is_replaced(monkeypatch):
    display = pytest.importorskip("IPython.display")
    seen = []
    handle = SimpleNamespace(update=lambda bar: seen.append(bar._repr_mimebundle_([], [])["text/plain"].strip()))
    monkeypatch.setattr(display, "display", lambda bar, display_id: seen.append("opened") or handle)
    monkeypatch.setattr(terminal, "REFRESHES", 1e9)
    console = Console(file=io.StringIO(), force_jupyter=True)
    with progress(TextColumn("{task.description} {task.completed}"), console=console) as bar:
        task = bar.add_task("seen", total=2)
        bar.update(task, advance=1)
        bar.update(task, completed=2)
    bar.update(task, completed=3)  # after its end
    assert [line for line in seen if line] == ["opened", "seen 0", "seen 1", "seen 2", "seen 2"]
    with progress(TextColumn("x"), console=console, disable=True) as bar:
        bar.add_task("unseen")
    assert seen.count("opened") == 1
