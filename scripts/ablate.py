"""Train every combination of some factors with several seeds, and report which differences are real.

    python scripts/ablate.py study=smoke
    python scripts/ablate.py study=roi_operators action=plan
    python scripts/ablate.py study=roi_operators hydra/launcher=joblib hydra.launcher.n_jobs=2

Started again it does what is missing. hydra/launcher=submitit_slurm sends the runs to SLURM.
"""

from detector.config.arguments import CommandLine
from detector.config.command_line import run
from detector.config.schema import AblateConfig


def main(config: AblateConfig, command: CommandLine) -> None:
    from detector.ablation.ablate import ablate

    ablate(config, command)


if __name__ == "__main__":
    run(AblateConfig, "ablate", starts_jobs=True)(main)
