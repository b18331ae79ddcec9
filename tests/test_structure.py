"""The tree as a whole: imports go one way, files and functions stay small, and every key of the schema is read."""

import ast
import dataclasses
import graphlib
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector.config import schema

ROOT = Path(__file__).resolve().parents[1]
# From top to bottom: a package imports only what stands in layers below its own. `detector` is the face of the package.
LAYERS = (
    *({"scripts", "__main__"}, {"detector"}, {"api"}, {"ablation", "benchmark", "illustrate"}, {"export"}),
    *({"training"}, {"inference"}, {"evaluation"}, {"inspection"}, {"data"}, {"models"}, {"outcome"}, {"plots"}),
    *({"config"}, {"terminal"}, {"files"}, {"exceptions", "words", "measure", "process_state"}, {"roi_ops"}),
)
# What shows or counts the insides of the operators: the figures of their weights, the bytes that the kernels move.
INSIDE = {"detector.illustrate.anatomy", "detector.benchmark.cuda_bytes_suite"}
PARAMETERS = 6  # of a function at most, self not counted
LINES = 330  # of a file at most
TABLES = {"detector.config.schema"}  # may be longer: the schema is one list of keys
# Signatures that torchvision or torch.library give: torchvision's functions and modules with our keywords, their forms
# for several maps, and what a registered operator takes one by one, as an operator has no structures.
GIVEN = {"roi_align", "multiscale_roi_align", "multiscale_roi_pool", "multiscale_prroi_pool"}
GIVEN |= {f"_{name}" for name in GIVEN} | {"_roi_pool"}  # the same for TorchScript
GIVEN |= {"MultiScaleRoIAlign.__init__", "_"}


def modules():
    """Name of each module -> its file."""
    found = {}
    for root in ("roi_ops", "detector", "scripts"):
        for file in (ROOT / root).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(text, known=MODULES):
    """The modules of ours that a text imports, in functions too, but not those for annotations only."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative import"
                full = [f"{child.module}.{alias.name}" for alias in child.names if alias.name != "_kernels"]  # no .py
                found.update(name if name in known else child.module for name in full)
            walk(child)

    found: set = set()
    walk(ast.parse(text))
    return {name for name in found if name.split(".")[0] in ("roi_ops", "detector", "scripts", "tests")}


def import_graph(texts):
    """Module -> the modules that it imports."""
    return {module: imports(text, texts) - {module} for module, text in texts.items()}


def package(module):
    """The part of ``detector`` that a module belongs to; ``roi_ops`` and ``scripts`` are one part each."""
    parts = module.split(".")
    return parts[1] if parts[0] == "detector" and len(parts) > 1 else parts[0]


def find_cycle(graph):
    """Nodes that import each other, the first again at the end; None if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return None


TEXTS = {module: file.read_text(encoding="utf-8") for module, file in MODULES.items()}
GRAPH = import_graph(TEXTS)


def test_imports_are_found():
    text = ("import roi_ops.ops\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import detector.words\n"
            "def f():\n    from detector import files, load\n    import torch\n")  # fmt: skip
    assert imports(text) == {"roi_ops.ops", "detector.files", "detector"}


def test_no_module_needs_itself():
    assert find_cycle(GRAPH) is None
    assert len(GRAPH) > 100


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("scripts.train", "detector.training.train"),  # between packages
        ("detector.config.schema", "detector.config.checks"),  # inside a package
        ("detector", "detector.words"),  # through the face of a package
        ("roi_ops", "roi_ops.levels"),
    ],
)
def test_a_planted_cycle_is_found(importer, module):
    """An import inside a function counts too."""
    planted = import_graph({**TEXTS, module: f"{TEXTS[module]}\ndef late():\n    import {importer}\n"})
    cycle = find_cycle(planted)
    assert module in cycle
    assert all(there in planted[here] for here, there in itertools.pairwise(cycle))


def test_imports_go_down():
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = [f"{module} imports {name}" for module, names in GRAPH.items() for name in sorted(names)
             if package(name) != package(module) and layer[package(name)] <= layer[package(module)]]  # fmt: skip
    assert wrong == []


def test_the_operators_are_used_by_their_public_names():
    inside = {module for module, names in GRAPH.items() if module.startswith(("detector", "scripts"))
              for name in names if name.startswith("roi_ops.")}  # fmt: skip
    assert inside == INSIDE


# ------------------------------------------------------------------------------------------------- sizes
def functions(node, prefix=""):
    """(name with its class, function) of everything in a syntax tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        yield from functions(child, f"{child.name}." if isinstance(child, ast.ClassDef) else prefix)


def parameters(function):
    """How many arguments a function takes, apart from self and cls."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_have_few_parameters():
    many = [f"{module}.{name}: {parameters(function)}" for module, text in TEXTS.items()
            for name, function in functions(ast.parse(text)) if parameters(function) > PARAMETERS
            and not (module.startswith("roi_ops") and name in GIVEN)]  # fmt: skip
    assert many == []


def test_parameters_are_counted():
    text = "class A:\n    def f(self, a, /, b, *c, d=1, **e):\n        def g(x): pass\n"
    assert [(name, parameters(f)) for name, f in functions(ast.parse(text))] == [("A.f", 3), ("A.g", 1)]


def test_files_have_one_idea():
    longest = sorted(((text.count("\n"), module) for module, text in TEXTS.items()), reverse=True)
    assert [f"{module}: {count}" for count, module in longest if count > LINES and module not in TABLES] == []


# -------------------------------------------------------------------------------------------------- files
def test_no_file_of_the_repository_is_one_that_git_ignores():
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no clone, or no git")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""


# ----------------------------------------------------------------------------------------------- fixtures
def without_device(text):
    """Tests that take the fixture ``device`` and use it nowhere: their tensors stay on the CPU."""
    return [name for name, function in functions(ast.parse(text))
            if name.startswith("test") and "device" in [a.arg for a in function.args.args]
            and not any(isinstance(node, ast.Name) and node.id == "device" for node in ast.walk(function))]  # fmt: skip


def test_tests_that_take_a_device_use_it():
    unused = {file.name: names for file in (ROOT / "tests").rglob("test_*.py")
              if (names := without_device(file.read_text(encoding="utf-8")))}  # fmt: skip
    assert unused == {}
    assert without_device("def test_a(device):\n    f()\ndef test_b(device):\n    f(device)\n") == ["test_a"]


# -------------------------------------------------------------------------------------------------- keys
def without_keys(text):
    """``schema.py`` with its groups, but without their keys."""
    groups = {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            kept = [s for s in node.body if isinstance(s, ast.AnnAssign) and ast.unparse(s.annotation) in groups]
            node.body = [*kept, ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.slow
def test_every_key_is_read(tmp_path):
    """The type checker is shown a ``schema.py`` without keys, and complains wherever one is read."""
    pytest.importorskip("mypy")
    shadow = tmp_path / "config.py"
    shadow.write_text(without_keys((ROOT / "detector/config/schema.py").read_text(encoding="utf-8")), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--follow-imports=skip", f"--cache-dir={tmp_path / 'cache'}",
               "--shadow-file", "detector/config/schema.py", str(shadow), "detector", "scripts"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    complaint = re.compile(r'^(\S+?):(\d+): .*"(\w+)"(?: of "[^"]*")? has no attribute "(\w+)"', re.MULTILINE)
    loaded: dict = {}
    read = set()
    for file, line, group, key in complaint.findall(done.stdout):
        if file not in loaded:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            loaded[file] = {(n.attr, line) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
                            and isinstance(n.ctx, ast.Load) for line in range(n.lineno, n.end_lineno + 1)}  # fmt: skip
        if (key, int(line)) in loaded[file]:  # set only is not read
            read.add((group, key))
    groups = [c for c in vars(schema).values() if dataclasses.is_dataclass(c) and c.__module__ == schema.__name__]
    assert len(groups) > 15, done.stderr
    keys = {(c.__name__, f.name) for c in groups for f in dataclasses.fields(c)
            if f.name in c.__annotations__ and f.type not in {g.__name__ for g in groups}}  # fmt: skip
    assert keys - read == set()
