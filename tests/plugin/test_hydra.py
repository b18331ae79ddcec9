"""Our configs in the applications of others, the configs of others in our commands, and searches."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from plugin.environments import ROOT, build_wheel, call, make_environment, site_of

EXAMPLE = ROOT / "docs" / "examples" / "hydra_app"
PACKAGE = Path(__file__).parent / "cell_recipes"
TINY = (
    *("data.shapes.train_images=4", "data.shapes.val_images=2", "data.shapes.image_size=64", "data.workers=0"),
    *("model.min_size=[64]", "model.fpn_channels=16", "model.head.width=16", "data.batch_size=2"),
    *("optim.warmup_steps=0", "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("logger.tensorboard=false", "logger.sheet_images=0", "data.root=shapes"),
)


@pytest.fixture(scope="module")
def with_recipes(wheel, tmp_path_factory):
    """The Python of an environment with this package and the plugin package ``cell_recipes``, each from its wheel."""
    source = tmp_path_factory.mktemp("source") / "cell_recipes"
    shutil.copytree(PACKAGE, source)  # setuptools builds in the source folder
    recipes = build_wheel(source, tmp_path_factory.mktemp("recipes"))
    return make_environment(tmp_path_factory.mktemp("with_recipes"), wheel, recipes)


def command(python, *arguments, cwd):
    """Run the console command of an environment."""
    return call(python.parent / "multiscale-rcnn", *arguments, cwd=cwd)


# ------------------------------------------------------------------------------ our configs in an application
@pytest.mark.slow
def test_the_example_trains(run_script, tmp_path):
    done = run_script(EXAMPLE / "app.py", "experiment=quick", "model=narrow", "site.name=here", *TINY)
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stdout.splitlines() if line.startswith("here: AP "))
    checkpoint = Path(said.split(", ")[-1])
    config = yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text())
    assert checkpoint.is_relative_to(tmp_path)
    assert (config["roi"]["kind"], config["optim"]["name"], config["optim"]["lr"]) == ("pool", "sgd", 0.01)


def test_the_choices_of_the_example(run_script):
    """Its own files win over the tuning that comes with the data, its primary config over both, a recipe over all."""
    choose = ("data=coco", "experiment=quick", "--cfg", "job")
    done = run_script(EXAMPLE / "app.py", *choose)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert (config["model"]["fpn_channels"], config["model"]["head"]["width"]) == (64, 256)
    assert (config["model"]["norm"], config["optim"]["warmup_steps"]) == ("frozen", 200)  # of the data's tuning
    assert (config["trainer"]["max_steps"], config["optim"]["lr"]) == (100, 0.01)
    assert config["site"] == {"name": "laboratory"}
    assert yaml.safe_load(run_script(EXAMPLE / "app.py", "model=c4", "--cfg", "job").stdout)["model"]["name"] == "c4"
    assert len((EXAMPLE / "app.py").read_text().splitlines()) <= 30


# --------------------------------------------------------------------------------- a plugin package in our commands
def test_help_lists_the_choices_of_a_plugin_package(with_recipes, tmp_path):
    done = command(with_recipes, "train", "--help", cwd=tmp_path)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "model=small_cells A pyramid for objects of 10 to 60 pixels" in lines
    assert "experiment=cells Cells: small, crowded, seen from any side" in lines
    assert "multiscale-rcnn train model=c4" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["train", "model=small_cels"], ("did you mean small_cells", "resnet50_fpn_v2, small_cells")),
        (["inspect_data", "experiment=cell"], ("did you mean cells",)),
        (["ablate", "study=cell"], ("did you mean cells",)),
    ],
)
def test_did_you_mean(with_recipes, tmp_path, arguments, facts):
    done = command(with_recipes, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert all(fact in done.stderr for fact in facts), done.stderr


def test_the_choices_of_a_plugin_package(with_recipes, tmp_path):
    """In a training, the data doctor, from Python and in an application that knows neither package."""
    for name in ("train", "inspect_data"):
        done = command(with_recipes, name, "experiment=cells", "--cfg", "job", cwd=tmp_path)
        config = yaml.safe_load(done.stdout)
        assert (config["model"]["max_size"], config["roi"]["kind"]) == (999, "pool"), done.stderr
        assert config["augment"]["vertical_flip"] == 0.5
    (tmp_path / "app.yaml").write_text("defaults: [train, _self_]\n")
    (tmp_path / "look.py").write_text(
        "import hydra, json, os\n"
        "from detector.config.configure import configure\n"
        "from detector.config.schema import Config\n"
        "with hydra.initialize_config_dir(os.getcwd(), version_base='1.3'):\n"
        "    sizes = [hydra.compose('app', ['model=small_cells']).model.max_size]\n"
        "print(json.dumps([*sizes, configure(Config, {'experiment': 'cells'}).model.max_size]))\n"
    )
    done = call(with_recipes, "look.py", cwd=tmp_path)
    assert json.loads(done.stdout) == [999, 999], done.stderr


@pytest.mark.slow
def test_a_study_of_a_plugin_package(with_recipes, tmp_path):
    done = command(with_recipes, "ablate", "study=cells", "action=plan", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[1:] for line in done.stdout.splitlines() if "-seed" in line]
    assert rows == [[kind, seed, "missing"] for kind in ("pool", "align") for seed in ("0", "1")]


@pytest.mark.slow
def test_plugin_packages_with_mistakes(wheel, tmp_path):
    """Our commands name the package; an application of somebody else's goes on without it."""
    python = make_environment(tmp_path / "environment", wheel)
    info = site_of(python) / "odd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[multiscale_rcnn.plugins]\ncells = odd_one:configs\n")
    done = command(python, "train", "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(fact in done.stderr for fact in ("odd", "odd_one/configs", "multiscale_rcnn.plugins"))
    done = call(python, EXAMPLE / "app.py", "--cfg", "job", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    # A choice of ours once more: which of the two is meant is not guessed.
    (site_of(python) / "odd_one/configs/model").mkdir(parents=True)
    (site_of(python) / "odd_one/configs/model/c4.yaml").write_text("defaults: [fpn, _self_]\n")
    done = command(python, "train", "model=c4", cwd=tmp_path)
    assert done.returncode == 2
    assert "odd_one/configs/model/c4.yaml" in done.stderr
    assert "detector/configs/model/c4.yaml" in done.stderr


# ------------------------------------------------------------------------------------------------------ searches
@pytest.mark.slow
def test_three_trials(plugin_python, tmp_path):
    """The best trial of the search is the one with the highest AP that the folders of the trials hold."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = command(plugin_python, "train", "--multirun", "hparams=finetune", "hydra.sweeper.n_trials=3",
                   "hydra.sweep.dir=search", *TINY, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "search/optimization_results.yaml").read_text())
    metrics = [json.loads((tmp_path / f"search/{n}/metrics.json").read_text()) for n in range(3)]
    assert found["best_value"] == max(trial["AP"] for trial in metrics)
    rates = {yaml.safe_load((tmp_path / f"search/{n}/config.yaml").read_text())["optim"]["lr"] for n in range(3)}
    assert len(rates) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert found["best_params"]["optim.lr"] in rates
    assert found["best_params"].keys() == {"optim.lr", "optim.backbone_lr", "optim.weight_decay", "augment"}
