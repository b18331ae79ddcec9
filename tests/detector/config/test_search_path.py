"""Our configs in an application of somebody else's, which has groups of its own in Hydra's store."""

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_store import ConfigStore

from detector.config.composition import OWN, compose
from detector.config.search_path import MultiscaleRcnnSearchPath


@pytest.mark.parametrize("choices", [{}, {"mine": "defaults: [fpn, _self_]\nnorm: group\n"}])
def test_the_groups_of_the_application_stay(tmp_path, monkeypatch, choices):
    """One that is called as everybody would call it, and one of a name of ours for other files."""
    repo = ConfigStore.instance().repo
    monkeypatch.setattr(ConfigStore.instance(), "repo", {**repo})
    ConfigStore.instance().store(group="own", name="car", node={"wheels": 4})
    ConfigStore.instance().store(group="own/model", name="mine", node={"wheels": 3})
    (tmp_path / "model").mkdir()
    for name, text in choices.items():
        (tmp_path / "model" / f"{name}.yaml").write_text(text)
    (tmp_path / "app.yaml").write_text("defaults: [train, _self_]\n")
    path = ConfigSearchPathImpl()
    path.append("main", f"file://{tmp_path}")
    MultiscaleRcnnSearchPath().manipulate_search_path(path)
    assert (OWN in ConfigStore.instance().repo) == bool(choices)
    compose([tmp_path], "app", [])
    store = ConfigStore.instance()
    assert store.load("own/car.yaml").node == {"wheels": 4}
    assert store.load("own/model/mine.yaml").node == {"wheels": 3}
