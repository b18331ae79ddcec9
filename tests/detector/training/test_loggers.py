"""The CSV file: columns that come later, and what a resumed run keeps."""

import csv

from detector.training.loggers import MetricsCsv


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_and_new_columns(tmp_path):
    logger = MetricsCsv(tmp_path / "m.csv")
    logger.log_metrics({"train/loss": 2.5}, 1)
    logger.log_metrics({"train/loss": 1 / 3}, 2)
    logger.log_metrics({"val/AP": 0.1}, 2)
    logger.log_metrics({"train/loss": 1.0}, 3)
    assert rows(tmp_path / "m.csv") == [
        {"step": "1", "train/loss": "2.5", "val/AP": ""},
        {"step": "2", "train/loss": repr(1 / 3), "val/AP": ""},
        {"step": "2", "train/loss": "", "val/AP": "0.1"},
        {"step": "3", "train/loss": "1.0", "val/AP": ""},
    ]


def test_resume_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "m.csv"
    first = MetricsCsv(path)
    for step in range(1, 6):
        first.log_metrics({"train/loss": float(step)}, step)
        if step in (2, 4):
            first.log_metrics({"val/AP": step / 10}, step)
    second = MetricsCsv(path, resume_step=4)
    # The evaluation at step 4 is repeated by the resumed run, that at step 2 is not.
    assert [(r["step"], r["train/loss"], r["val/AP"]) for r in rows(path)] == [
        ("1", "1.0", ""),
        ("2", "2.0", ""),
        ("2", "", "0.2"),
        ("3", "3.0", ""),
        ("4", "4.0", ""),
    ]
    second.log_metrics({"val/AP": 0.4}, 4)
    assert rows(path)[-1] == {"step": "4", "train/loss": "", "val/AP": "0.4"}


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("step,train/loss,train/lr\n1,2.0,0.1\n2,1.")
    MetricsCsv(path, resume_step=100)
    assert [r["step"] for r in rows(path)] == ["1"]


def test_new_run_has_no_old_rows(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("step,train/loss\n1,2.0\n")
    MetricsCsv(path).log_metrics({"train/loss": 5.0}, 1)
    assert rows(path) == [{"step": "1", "train/loss": "5.0"}]
