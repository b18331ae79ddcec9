"""The notebook of docs/examples, run as a user runs it."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/examples/first_detector.ipynb"


def outputs(cell, kind):
    """What a cell has shown of a kind, as image/png."""
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


@pytest.mark.slow
def test_the_notebook(tmp_path, monkeypatch):
    """Pictures and tables are displayed, a training shows one bar, and nothing is printed as an error."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(cell.cell_type == "markdown" or not cell.outputs for cell in notebook.cells)  # it is kept without
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    train, run, numbers, evaluation, compare, row, draw = (c for c in notebook.cells if c.cell_type == "code")
    errors = [
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"
    ]
    assert [text.split()[:3] for text in errors] == [["drawing", "112", "images"]]
    assert len([text for text in outputs(train, "text/plain") if "60/60" in text]) == 1
    for cell, words in ((run, ("curves.png", "AP50")), (evaluation, ("predictions.png", "interval")),
                        (compare, ("differences.png", "difference"))):  # fmt: skip
        html = outputs(cell, "text/html")[-1]
        assert "data:image/" in html
        assert all(word in html for word in words)
    assert "'val/AP'" in outputs(numbers, "text/plain")[0]
    assert "'metric': 'AP50'" in outputs(row, "text/plain")[0]
    assert outputs(draw, "image/png")
