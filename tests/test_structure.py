"""The tree as a whole: imports go one way, and every key of the configuration is read."""

import ast
import dataclasses
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detector.config import schema

ROOT = Path(__file__).resolve().parents[1]
# Who may import whom: each only what stands before it.
ORDER = (
    *(
        "roi_ops",
        "detector",
        "exceptions",
        "words",
        "files",
        "measure",
        "terminal",
        "config",
        "plots",
        "models",
        "data",
    ),
    *("inspection", "evaluation", "training", "inference", "export", "illustrate", "benchmark", "ablation"),
    *("scripts", "__main__"),
)
# Imports inside functions that go the other way, and why.
LATE = {
    ("detector", "inference"),  # detector.load
}
# What shows or counts the insides of the operators: the figures of their weights, the bytes that the kernels move.
INSIDE = {"detector.illustrate.anatomy", "detector.benchmark.cuda_bytes_suite"}


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
    """(module, whether inside a function) for each import of ours, without those for annotations only."""

    def walk(node, late):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update((alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative import"
                full = [f"{child.module}.{alias.name}" for alias in child.names if alias.name != "_kernels"]  # no .py
                found.update((name if name in known else child.module, late) for name in full)
            walk(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    found: set = set()
    walk(ast.parse(text), False)
    return {(name, late) for name, late in found if name.split(".")[0] in ("roi_ops", "detector", "scripts", "tests")}


def room(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "detector" and len(parts) > 1 else parts[0]


def test_imports_are_found():
    text = ("import roi_ops.ops\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import detector.files\n"
            "def f():\n    from detector import files, load\n    import torch\n")  # fmt: skip
    assert imports(text) == {("roi_ops.ops", False), ("detector.files", True), ("detector", True)}


def test_imports_go_one_way():
    wrong, late_ones = [], set()
    for module, file in MODULES.items():
        for name, late in imports(file.read_text(encoding="utf-8")):
            here, there = room(module), room(name)
            if ORDER.index(there) <= ORDER.index(here):
                continue
            if late and (here, there) in LATE:
                late_ones.add((here, there))
            else:
                wrong.append(f"{module} imports {name}")
    assert wrong == []
    assert late_ones == LATE  # none is listed that is no longer needed


def test_no_module_needs_itself():
    """At import time; :class:`graphlib.CycleError` names the circle."""
    graph = {
        m: {n for n, late in imports(f.read_text(encoding="utf-8")) if not late and n != m} for m, f in MODULES.items()
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_the_operators_are_used_by_their_public_names():
    inside = {module for module, file in MODULES.items() if module.startswith(("detector", "scripts"))
              for name, _ in imports(file.read_text(encoding="utf-8")) if name.startswith("roi_ops.")}  # fmt: skip
    assert inside == INSIDE


# -------------------------------------------------------------------------------------------------- keys
def without_keys(text):
    """``config.py`` with its groups, but without their keys; ``never_read`` is a key that nobody reads."""
    groups = {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            kept = [s for s in node.body if isinstance(s, ast.AnnAssign) and ast.unparse(s.annotation) in groups]
            node.body = [*kept, ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.slow
def test_every_key_is_read(tmp_path):
    """The type checker is shown a ``config.py`` without keys, and complains wherever one is read."""
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
