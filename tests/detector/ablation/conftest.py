"""Studies of seconds, as the command line composes them."""

import pytest
from studies import CONFIGS, TINY, FakeTraining

from detector.ablation.study import Study
from detector.config.composition import compose
from detector.config.schema import AblateConfig, parse


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make_study(tmp_path, data_root):
    """``make_study(factors=..., seeds=..., common=..., study="smoke")``: a study in ``tmp_path / "study"``."""

    def make(study="smoke", extra=None, folder=None, configs=CONFIGS, **keys):
        config = parse(compose(CONFIGS, "ablate", [f"study={study}"]), AblateConfig).study
        for key, value in keys.items():
            setattr(config, key, value)
        return Study(config, folder or tmp_path / "study", configs, {"data.root": str(data_root), **(extra or {})})

    return make


@pytest.fixture
def fake():
    return FakeTraining


@pytest.fixture
def finished(make_study, fake):
    """A finished study of two levels and four seeds, without weights, and how to build it again."""
    keys = {"seeds": [0, 1, 2, 3], "keep_weights": False,
            "common": {**TINY, "data": "shapes", "model": "c4", "data.shapes.val_images": 30}}  # fmt: skip
    fake().run(make_study(**keys))
    return make_study, keys
