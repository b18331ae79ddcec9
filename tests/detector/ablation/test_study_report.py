"""From records to the report: pairing, numbers, verdicts, what is missing, all formats, sixty cells in seconds."""

import csv
import json
import math
import time

import numpy as np
import pytest
from studies import TINY, FakeTraining

from detector.ablation.cell_record import load_replicates, matches_of
from detector.ablation.paired_differences import paired_difference
from detector.ablation.study_analysis import Analysis, LevelComparison
from detector.ablation.study_report import differences, latex, render, write_report
from detector.ablation.study_tables import ReportTable, tables
from detector.evaluation.intervals import measure, replicate, resample
from detector.exceptions import DataError


def test_numbers_are_those_of_the_records(finished):
    make, keys = finished
    analysis = Analysis(make(**keys))
    records = [cell.record for cell in analysis.study.cells]
    pool, align = (
        [r["metrics"]["AP75"] for r in records if r["levels"]["roi"] == level] for level in ("pool", "align")
    )
    found = next(c for c in analysis.judged if c.metric == "AP75")
    assert found.seeds == [0, 1, 2, 3]
    assert found.difference.values == pytest.approx(100 * (np.array(align) - np.array(pool)))
    assert found.difference.mean == pytest.approx(100 * (np.mean(align) - np.mean(pool)))
    assert found.family == 2  # AP and AP75


def test_interval_over_images_is_that_of_the_evaluation(finished):
    """One seed: the same as comparing the two runs directly, to rounding."""
    make, keys = finished
    analysis = Analysis(make(**{**keys, "seeds": [2]}))
    (align,) = analysis.of("", "align").values()
    (pool,) = analysis.of("", "pool").values()
    runs = [matches_of(cell.config, cell.folder / "run") for cell in (pool, align)]
    base, other = (measure(run, resample(len(run.image_ids))) for run in runs)
    expected = other.minus(base).metrics["AP"]
    assert analysis.compare("", "align", "AP").difference.over_images == pytest.approx([100 * v for v in expected])


def test_stored_replicates_are_those_of_the_predictions(finished):
    make, keys = finished
    cell = make(**keys).cells[0]
    matches = matches_of(cell.config, cell.folder / "run")
    assert matches.accumulated().metrics() == cell.record["metrics"]
    again = replicate(matches, resample(len(matches.image_ids), seed=0)).metrics()
    stored = load_replicates(cell.folder)
    assert all(np.array_equal(stored[name], again[name], equal_nan=True) for name in again)
    assert cell.record["by_iou"]["AP@0.50"] == cell.record["metrics"]["AP50"]
    assert cell.record["by_iou"]["AP@0.75"] == cell.record["metrics"]["AP75"]


def test_files(finished):
    make, keys = finished
    said = []
    folder = write_report(make(**keys), said.append)
    assert {p.name for p in folder.iterdir()} == {
        "report.md", "report.html", "report.tex", "runs.csv", "differences.csv", "dots.png", "ap_by_iou.png",
        "ap_by_size.png",
    }  # fmt: skip
    text = (folder / "report.md").read_text()
    assert "8 of 8 runs are finished (seeds 0, 1, 2, 3): the study is complete." in text
    assert len(said) == 2
    assert said[0].startswith("align - pool: +")
    assert all(sentence in text for sentence in said)
    assert str(make(**keys).folder) not in text  # can be published as it is
    html = (folder / "report.html").read_text()
    assert html.count("data:image/png;base64") == 3
    assert "http" not in html
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert len(rows) == 8
    record = make(**keys).cells[0].record
    assert list(rows[0])[:3] == ["roi", "seed", "AP"]
    assert float(rows[0]["AP"]) == 100 * record["metrics"]["AP"]
    assert float(rows[0]["images_per_second"]) == 21.0  # the median of the logged rows but the first
    judged = [row for row in csv.DictReader((folder / "differences.csv").open()) if row["verdict"]]
    assert [row["number"] for row in judged] == ["AP", "AP75"]


def test_missing_and_failed_runs_are_named(make_study, finished):
    make, keys = finished
    study = make(**{**keys, "seeds": [0, 1, 2, 3, 4]})
    broken = study.cells[4]
    broken.write(study.config)
    (broken.folder / "failure.json").write_text(
        json.dumps({"attempts": 2, "exit": "ended by SIGKILL (out of memory?)", "log": ["step 7", "step 8"]})
    )
    text = (write_report(make(**{**keys, "seeds": [0, 1, 2, 3, 4]})) / "report.md").read_text()
    assert "8 of 10 runs are finished" in text
    assert "NOT complete" in text
    assert f"Failed, 2 times: pool, seed 4 ({broken.name}): ended by SIGKILL (out of memory?); step 8" in text
    assert "Missing: align, seed 4 (align-seed4-" in text
    assert ", 4 seeds: " in text


def test_report_of_nothing(make_study):
    text = (write_report(make_study()) / "report.md").read_text()
    assert "0 of 4 runs are finished" in text
    assert "align - pool: AP: no pair of runs yet." in text


def test_runs_scored_on_different_images_are_refused(finished):
    make, keys = finished
    cell = make(**keys).cells[0]
    content = json.loads((cell.folder / "record.json").read_text())
    (cell.folder / "record.json").write_text(json.dumps({**content, "data": "another"}))
    with pytest.raises(DataError, match="cannot be paired"):
        Analysis(make(**keys))


def test_several_revisions_are_told(finished):
    make, keys = finished
    cell = make(**keys).cells[0]
    content = json.loads((cell.folder / "record.json").read_text())
    (cell.folder / "record.json").write_text(json.dumps({**content, "git": "0123456789ab"}))
    assert "2 revisions of the source: " in Analysis(make(**keys)).warnings()[0]


def test_damaged_replicates_say_what_to_do(finished):
    make, keys = finished
    cell = make(**keys).cells[0]
    (cell.folder / "replicates.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"replicates\.npz.*remove .*record\.json"):
        write_report(make(**keys))


def comparison(values, spread, images=100, family=1, context="stride 32"):
    noise = np.random.default_rng(0).normal(0, spread, (1, 400))
    found = paired_difference(np.array(values), np.array(values)[:, None] + noise, images)
    return LevelComparison(context, "align", "pool", "AP75", list(range(len(values))), found, found.p * family, family)


def test_sentences():
    real = comparison([8.0, 8.4, 7.6, 8.2, 7.8], 0.3)
    assert real.sentence.startswith("align - pool at stride 32: +8.0 AP75 [+7.")
    assert real.sentence.endswith("], 5 seeds: real.")
    # Mean 1, standard deviation 2: the t-test wants 34 pairs.
    open_ = comparison([-1.0, 3.0, 1.0, -1.0, 3.0], 0.0)
    assert open_.difference.components.seeds == 4
    assert open_.sentence.endswith(", 5 seeds: not resolved: 29 more seeds would be needed.")
    limited = comparison([1.0, 1.2, 0.8, 1.1], 3.0)
    assert limited.sentence.endswith(
        "not resolved: no number of seeds would be enough on 100 images, if it is as small as it looks."
    )
    single = comparison([5.0], 0.1, context="")
    assert single.sentence == (
        "align - pool: +5.0 AP75, 1 seed: not resolved: one seed does not tell how much seeds differ."
    )
    assert comparison([0.0] * 4, 0.0).sentence.endswith("if it is as small as it looks.")


def test_a_difference_without_correction_may_not_be_real_with_it():
    alone, among_many = (comparison([2.0, 3.0, 1.2, 2.6], 0.2, family=n) for n in (1, 40))
    assert alone.real
    assert not among_many.real
    assert math.isclose(among_many.p, 40 * alone.p)
    # The interval of this difference alone excludes 0, and the sentence says why that is not enough.
    assert among_many.difference.over_both.low > 0
    assert f": not resolved among 40 differences (corrected p {among_many.p:.2g}): " in among_many.sentence


def test_latex_and_markdown_of_special_characters():
    assert latex("50 % & a_b #1 {x} ± <3>") == r"50 \% \& a\_b \#1 \{x\} $\pm$ $<$3$>$"
    table = ReportTable("T_1", ["a", "b"], [["x|y", "1"]], ["note."])
    content = {"title": "A", "state": [], "judged": [], "tables": [table], "pictures": {}, "captions": {}, "date": ""}
    assert render("report.tex", content) == (
        "% \\usepackage{booktabs}\n\n\\begin{table}\n\\centering\n"
        "\\caption{T\\_1. note.}\n\\begin{tabular}{lr}\n\\toprule\n"
        "a & b \\\\\n\\midrule\nx|y & 1 \\\\\n\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )
    assert "\n\n## T_1\n\n| a | b |\n|---|---|\n| x\\|y | 1 |\n\nnote.\n\n" in render("report.md", content)


def test_tables_of_diagnostics(finished):
    make, keys = finished
    found = {"ramp": {"pool": {"offset": 0.51, "shift_error": 0.4}}, "shifts": [0.5, 1.0], "contexts": {"": {
        "seed": 0, "swap": {"pool": {"pool": 30.0, "align": 21.5}, "align": {"pool": None}}, "truth":
        {"pool": 44.0, "align": None}, "jitter": {a: {"pooled": [0.1, 0.2], "score": [0.01, 0.02]}
                                                  for a in ("pool", "align")}}}}  # fmt: skip
    shown = {t.title: t for t in tables(Analysis(make(**keys)), found)}
    assert shown["Operators on a linear ramp"].rows == [["pool", "0.510", "0.400"]]
    assert shown["Operators exchanged after training"].rows[0] == ["pool", "30.0", "21.5", "44.0"]
    assert shown["Operators exchanged after training"].rows[1] == ["align", "n/a", "n/a", "n/a"]


@pytest.mark.slow
def test_sixty_cells_in_seconds(make_study):
    """Planning, resuming and reporting, without the runs: the fifteen combinations of roi_operators with four seeds."""
    keys = {"study": "roi_operators", "seeds": [0, 1, 2, 3], "keep_weights": False}
    extra = {key: value for key, value in TINY.items() if key != "model.anchors.sizes"}
    FakeTraining().run(make_study(**keys, extra=extra))
    begun = time.process_time()
    study = make_study(**keys, extra=extra)
    assert len(study.finished()) == len(study.cells) == 60
    folder = write_report(study)
    assert time.process_time() - begun < 15
    assert len({(row["context"], row["level"]) for row in differences(Analysis(study))}) == 3 * 4
    assert (folder / "report.html").stat().st_size > 100_000
