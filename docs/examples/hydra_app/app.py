"""An application of Hydra's own: python app.py model=narrow experiment=quick site.name=here"""

import hydra
from omegaconf import DictConfig, OmegaConf

from detector.config.defaults import parse_partial


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    from detector.training.train import train  # PyTorch takes seconds to import: not for --help or a wrong key

    settings = OmegaConf.to_container(cfg, resolve=True)
    site = settings.pop("site")  # what is this application's own; the rest is a configuration of the detector
    run = train(parse_partial(settings))
    print(f"{site['name']}: AP {run.objective:.3f}, {run.checkpoint}")
    return run.objective


if __name__ == "__main__":
    main()
