"""Of runs that want one folder at the same moment, one gets it."""

import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[3]
TAKE = """
import sys
from detector.config.defaults import default
from detector.config.schema import Config
from detector.exceptions import ConfigError
from detector.training.run_folder import locked
from detector.training.resume import find_start
from detector.training.run_folder import write_config

config = default(Config, run_dir=sys.argv[1], seed=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(config.run_dir):
        write_config(config, find_start(config).checkpoint)
        print("taken", flush=True)
        if sys.argv[3] == "stay":
            sys.stdin.readline()
except ConfigError as error:
    print(error, flush=True)
"""


def answers(folder, how):
    """What four runs that start at the same moment say."""
    processes = [subprocess.Popen([sys.executable, "-c", TAKE, str(folder), str(seed), how], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, cwd=ROOT) for seed in range(4)]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate(timeout=60)
    return found


def test_runs_that_start_at_the_same_moment(tmp_path):
    folder = tmp_path / "runs" / "now"
    found = answers(folder, "stay")
    assert found.count("taken") == 1
    assert sum("another process is training in this folder" in answer for answer in found) == 3
    assert OmegaConf.load(folder / "config.yaml").seed == found.index("taken")  # whole, and the winner's


def test_a_run_that_has_ended_keeps_its_folder(tmp_path):
    folder = tmp_path / "now"
    assert answers(folder, "go").count("taken") == 1
    before = (folder / "config.yaml").read_bytes()
    refused = ("there is a run in it already", "another process is training in this folder")  # while it looks
    assert all(any(words in answer for words in refused) for answer in answers(folder, "go"))
    assert (folder / "config.yaml").read_bytes() == before
