"""The progress bar of slow work, in a terminal and in a notebook."""

import pytest

from detector import terminal
from detector.terminal import slow_progress


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
