"""Train every combination of some factors with several seeds, and report which differences are real.

    python scripts/ablate.py study=smoke
    python scripts/ablate.py study=roi_operators action=plan
    python scripts/ablate.py study=roi_operators hydra/launcher=joblib hydra.launcher.n_jobs=2

Started again it does what is missing. hydra/launcher=submitit_slurm sends the runs to SLURM.
"""

from detector.ablation.launch import launch


def main() -> None:
    launch(main)


if __name__ == "__main__":
    main()
