"""Each way to install: the configs are a package, Hydra finds our plugin, and the plugins of others stay."""

import json
import sysconfig
import tarfile

import pytest
from plugin.environments import ROOT, WITHOUT_KERNELS, build_wheel, call, make_environment

LOOK = """
import json, sys, warnings
warnings.simplefilter("error")
import hydra
from hydra.core.plugins import Plugins

found = {"plugins": [plugin.__name__ for plugin in Plugins.instance().discover()]}
with hydra.initialize_config_module("detector.configs", version_base="1.3"):
    found["as_module"] = hydra.compose("train", ["model=c4"]).model.name
with hydra.initialize_config_dir(sys.argv[1], version_base="1.3"):
    found["by_plugin"] = hydra.compose("by_plugin", ["model=c5"]).model.name
    found["own_model"] = list(hydra.compose("by_plugin", ["data=coco", "model=mine"]).model.min_size)
    found["by_search_path"] = hydra.compose("by_search_path", ["model=c5"]).model.name
found["heavy"] = sorted({"torch", "pytorch_lightning", "matplotlib"} & sys.modules.keys())
import detector
found["file"] = detector.__file__
print(json.dumps(found))
"""
OTHER_PLUGIN = """
from hydra.plugins.search_path_plugin import SearchPathPlugin

class Portion(SearchPathPlugin):
    def manipulate_search_path(self, search_path):
        pass
"""


@pytest.fixture
def look(tmp_path):
    """A function: a Python -> what it finds of this package, beside an application and another plugin of Hydra's."""
    (tmp_path / "look.py").write_text(LOOK)
    conf, other = tmp_path / "conf", tmp_path / "other" / "hydra_plugins"
    (conf / "model").mkdir(parents=True)
    (conf / "by_plugin.yaml").write_text("defaults: [train, _self_]\n")
    (conf / "by_search_path.yaml").write_text(
        "hydra: {searchpath: ['pkg://detector.configs']}\ndefaults: [train, _self_]\n"
    )
    (conf / "model/mine.yaml").write_text("defaults: [fpn, _self_]\nmin_size: [77]\n")
    other.mkdir(parents=True)
    (other / "portion.py").write_text(OTHER_PLUGIN)

    def run(python, *path, options=()):
        variables = {"PYTHONPATH": ":".join(map(str, [*path, other.parent]))}
        done = call(python, *options, tmp_path / "look.py", conf, cwd=tmp_path, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def check(found):
    assert {"MultiscaleRcnnSearchPath", "Portion", "JoblibLauncher"} <= set(found["plugins"])
    assert [found[key] for key in ("as_module", "by_plugin", "by_search_path")] == ["c4", "c5", "c5"]
    assert found["own_model"] == [77]  # what the application's file sets wins over the data's tuning
    assert found["heavy"] == []


def test_a_wheel(look, plugin_python):
    found = look(plugin_python)
    check(found)
    assert str(ROOT) not in found["file"]


def test_an_editable_install(look, tmp_path):
    found = look(make_environment(tmp_path / "environment", *WITHOUT_KERNELS, "--editable", ROOT))
    check(found)
    assert str(ROOT) in found["file"]


def test_a_clone_that_is_not_installed(look, tmp_path):
    found = look(make_environment(tmp_path / "environment"), ROOT)
    check(found)
    assert str(ROOT) in found["file"]


@pytest.mark.slow
def test_a_source_archive(look, tmp_path):
    """The wheel that is built from the sdist, by a machine whose compiler does not work."""
    build = "import sys, scikit_build_core.build as backend; backend.build_sdist(sys.argv[1])"
    done = call(sysconfig.get_path("scripts") + "/python", "-c", build, tmp_path / "sdist", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert not [member.name for member in file if member.issym()]
    found = look(make_environment(tmp_path / "environment", build_wheel(archive, tmp_path, *WITHOUT_KERNELS)))
    check(found)


def test_an_application_with_a_package_of_our_name(plugin_python, tmp_path):
    """Hydra imports all plugins: ours is quiet where another `detector` hides ours."""
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector/__init__.py").write_text("")
    (tmp_path / "app.py").write_text(
        "import hydra, detector\n"
        "@hydra.main(version_base='1.3', config_path=None)\n"
        "def main(cfg): print('ran')\n"
        "main()\n"
    )
    done = call(plugin_python, "app.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
