"""Makes the table of docs/benchmarks/small_data.md: a small data set, three recipes, three seeds.

    python docs/benchmarks/small_data.py DIR --weights FILE --out FOLDER

DIR holds train.json, val.json and images/. The recipes: `experiment=finetune_small`; the command that inspect_data.py
prints; torchvision_loop.py, with torchvision's size of the input and with 320 pixels. Runs that FOLDER has already are
not done again. Every run has one thread and loads its data itself. Its CPU seconds are those of the whole process, with
start and evaluation: the seconds of a core, which depend little on what else the machine does.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LOOP = Path(__file__).with_name("torchvision_loop.py")
ALONE = ["data.workers=0", "trainer.threads=1", "trainer.progress_bar=false", "logger.tensorboard=false"]
STEPS = {800: 48, 320: 162}  # short side of torchvision's input -> steps that take 600 CPU seconds, without evaluation


def timed(command: list[str], log: Path) -> dict[str, float]:
    """Run ``command``; its seconds, and those of CPU."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as out:
        subprocess.run(command, check=True, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu}


def score(annotations: Path, predictions: Path) -> dict[str, float]:
    """AP and AP50 by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        scored = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return {"AP": float(scored.stats[0]), "AP50": float(scored.stats[1])}


def ours(root: Path, arguments: list[str], folder: Path, seed: int) -> dict[str, float]:
    """Train with ``arguments``, and score."""
    command = [sys.executable, "scripts/train.py", *arguments, *ALONE, f"seed={seed}", f"run_dir={folder}"]
    spent = timed(command, folder.with_suffix(".log"))
    return {**spent, **score(root / "val.json", folder / "predictions.json")}


def theirs(root: Path, weights: Path, folder: Path, side: int, seed: int) -> dict[str, float]:
    """Train the plain loop; it scores itself."""
    out = folder.with_suffix(".result.json")
    size = [] if side == 800 else ["--min-size", str(side)]
    command = [sys.executable, str(LOOP), str(root), "--weights", str(weights), "--steps", str(STEPS[side]), *size]
    spent = timed([*command, "--seed", str(seed), "--out", str(out)], folder.with_suffix(".log"))
    found = json.loads(out.read_text())
    return {**spent, "AP": found["AP"], "AP50": found["AP50"]}


def main() -> None:
    """Do the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description="A small data set, three recipes, three seeds.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 features for inputs of -1..1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--only", nargs="+", default=["finetune_small", "inspect_data", "torchvision_320", "torchvision"]
    )
    given = parser.parse_args()
    root, out = given.root.resolve(), given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    features = [f"model.weights={given.weights.resolve()}", "model.image_mean=[0.5,0.5,0.5]"]
    plain = [f"data.root={root}", *features, "model.image_std=[0.5,0.5,0.5]"]
    inspected = ["data=coco", *plain, f"output_dir={out / 'inspected'}", "overwrite=true", "progress_bar=false"]
    subprocess.run([sys.executable, "scripts/inspect_data.py", *inspected], check=True, stdout=subprocess.DEVNULL)
    derived = json.loads((out / "inspected" / "data.json").read_text())["recipe"]["arguments"]
    recipes = {
        "finetune_small": lambda folder, seed: ours(root, ["experiment=finetune_small", *plain], folder, seed),
        "inspect_data": lambda folder, seed: ours(root, derived, folder, seed),
        "torchvision_320": lambda folder, seed: theirs(root, given.weights, folder, 320, seed),
        "torchvision": lambda folder, seed: theirs(root, given.weights, folder, 800, seed),
    }
    print("| recipe | AP | AP50 | CPU seconds |\n|---|---|---|---|")
    for name in given.only:
        rows = []
        for seed in given.seeds:
            record = out / f"{name}-{seed}.json"
            if not record.is_file():
                found = recipes[name](out / f"{name}-{seed}", seed)
                record.write_text(json.dumps(found) + "\n", encoding="utf-8")
            rows.append(json.loads(record.read_text()))
        formats = {"AP": "{:.3f}", "AP50": "{:.3f}", "cpu_seconds": "{:.0f}"}
        cells = [", ".join(form.format(row[key]) for row in rows) for key, form in formats.items()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
