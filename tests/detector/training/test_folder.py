"""Of runs that want one folder at the same moment, one gets it."""

import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[3]
TAKE = """
import sys
from detector.config import Config
from detector.errors import ConfigError
from detector.training.folder import Start, take

print("ready", flush=True)
sys.stdin.readline()
try:
    take(Config(run_dir=sys.argv[1], seed=int(sys.argv[2])), Start())
    print("taken")
except ConfigError as error:
    print(error)
"""


def test_runs_that_start_at_the_same_moment(tmp_path):
    folder = tmp_path / "runs" / "now"
    processes = [subprocess.Popen([sys.executable, "-c", TAKE, str(folder), str(seed)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, cwd=ROOT) for seed in range(4)]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers.count("taken") == 1
    assert sum("there is a run in it already" in answer for answer in answers) == 3
    assert OmegaConf.load(folder / "config.yaml").seed == answers.index("taken")  # whole, and the winner's
