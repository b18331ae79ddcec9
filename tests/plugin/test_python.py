"""The commands as functions, in a script of their own."""

import pytest


@pytest.mark.slow
def test_a_script_with_the_functions(run, folder, tmp_path):
    """Rows of the steps 1 and 3 (the first and the last) and of the evaluation."""
    assert run("python_api", folder) == "3 True AP (64, 64) 3"
    assert (tmp_path / "again/report.html").is_file()
