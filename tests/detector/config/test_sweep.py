"""Searches: what a sweeper is given is checked before the first trial, and how trials end is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
ROOT = Path(__file__).resolve().parents[3]

SCRIPT = '''
"""A script of the test."""
from dataclasses import dataclass
from detector.config.command_line import run
from detector.config.checks import number
from detector.exceptions import DataError


@dataclass
class Keys:
    run_dir: str
    x: float = number(0, 10)
    broken: bool


def main(config):
    print("x", config.x, config.broken)
    if config.broken:
        raise DataError("broken.json: a box without area")
    return float("nan") if config.x == 7 else -((config.x - 3) ** 2)


if __name__ == "__main__":
    run(Keys, "main")(main)
'''
SPACE = """# @package _global_
defaults:
  - override /hydra/sweeper: optuna
hydra:
  sweeper: {direction: maximize, n_trials: 6, n_jobs: 1, sampler: {seed: 0}, params: {x: "interval(1,5)"}}
"""


@pytest.fixture
def search(tmp_path):
    """A function: arguments -> the ended process of a script whose value is greatest, 0, for x=3."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/go.py").write_text(SCRIPT)
    (tmp_path / "configs/hparams").mkdir(parents=True)
    (tmp_path / "configs/main.yaml").write_text(
        "defaults: [_self_, {hparams: null}]\nrun_dir: runs/${now:%Y}\nx: 1\nbroken: false\n"
    )
    (tmp_path / "configs/hparams/space.yaml").write_text(SPACE)

    def call(*arguments):
        return subprocess.run([sys.executable, "scripts/go.py", *arguments], cwd=tmp_path, capture_output=True,
                              text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip

    return call


def trials(done):
    """The values of x of the trials of a search."""
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("x ")]


def test_a_search_ends_with_its_best_trial(search, tmp_path):
    done = search("--multirun", "hparams=space", "hydra.sweep.dir=found")
    assert done.returncode == 0, done.stderr
    tried = trials(done)
    best = min(tried, key=lambda x: abs(x - 3))
    assert len(set(tried)) == 6
    assert all(1 <= x <= 5 for x in tried)
    written = yaml.safe_load((tmp_path / "found/optimization_results.yaml").read_text())
    assert (written["best_params"], written["best_value"]) == ({"x": best}, -((best - 3) ** 2))
    said = next(line for line in done.stdout.splitlines() if line.startswith("The best trial"))
    assert f"x={best}" in said
    assert f"found/{tried.index(best)}" in said
    assert "found/optimization_results.yaml" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["hparams=space"], ("hparams=space", "--multirun")),
        (["-m", "hparams=spase"], ("hparams=spase", "did you mean space")),
        (["-m", "hparams=space", "+hydra.sweeper.params.y='interval(1,2)'"], ("hydra.sweeper.params", "'y'")),
        (["-m", "hparams=space", "hydra.sweeper.params.x='interval(1,11)'"], ("x=11", "between 0 and 10")),
        (["-m", "hparams=space", "hydra.sweeper.params.x=interval(1,5)"], ("hydra.sweeper.params.x", "quotes")),
        (["-m", "hparams=space", "x=interval(-1,1)"], ("x=-1", "between 0 and 10")),  # in place of the config's
        (["-m", "x=interval(1,2)"], ("x=interval(1,2)", "hydra/sweeper=optuna", "x=A,B")),
        (["-m", "x=1,2", "--cfg", "job"], ("--cfg", "--multirun")),
    ],
)
def test_a_space_with_a_mistake_starts_nothing(search, arguments, facts):
    done = search(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(fact in done.stderr for fact in facts), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argument", "fact"), [("broken=true", "broken.json: a box without area"), ("x=7", "no value")]
)
def test_a_trial_that_fails_ends_the_search(search, argument, fact):
    done = search("--multirun", "hparams=space", argument)
    assert (done.returncode, len(trials(done))) == (2, 1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert fact in last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_failed_trials_that_are_put_up_with(search):
    done = search("--multirun", "hparams=space", "broken=choice(true,false)", "hydra.sweeper.max_failure_rate=1.0")
    assert done.returncode == 0, done.stderr
    assert len(trials(done)) == 6
    failed = len([line for line in done.stdout.splitlines() if line.startswith("x ") and line.endswith("True")])
    assert 0 < failed < 6
    assert done.stderr.count("this trial failed: broken.json: a box without area") == failed
    assert "The best trial has" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_search_without_a_trial_that_ends_well(search):
    done = search("--multirun", "hparams=space", "broken=true", "hydra.sweeper.max_failure_rate=1.0")
    assert (done.returncode, len(trials(done))) == (2, 6)
    assert done.stderr.endswith("error: no trial has ended well; the last one: broken.json: a box without area\n")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_search_that_goes_on(search, tmp_path):
    """A storage keeps the trials of an earlier command."""
    storage = (f"hydra.sweeper.storage=sqlite:///{tmp_path}/trials.db", "hydra.sweeper.study_name=one")
    first = search("--multirun", "hparams=space", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=found", *storage)
    assert first.returncode == 0, first.stderr
    again = search("--multirun", "hparams=space", "hydra.sweeper.n_trials=1", "hydra.sweep.dir=again", *storage,
                   "hydra.sweeper.sampler.seed=1")  # fmt: skip
    assert again.returncode == 0, again.stderr
    best = min(trials(first) + trials(again), key=lambda x: abs(x - 3))
    assert yaml.safe_load((tmp_path / "again/optimization_results.yaml").read_text())["best_params"]["x"] == best
