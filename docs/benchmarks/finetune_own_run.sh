#!/usr/bin/env bash
# Fine-tuning from one's own run against the same steps from backbone features, on photographs of blood cells:
#
#     docs/benchmarks/finetune_own_run.sh DIR FILE OUT
#
# DIR has train.json, val.json and images/ of BCCD, FILE the features of MobileNetV2 whose inputs are normalised to -1..1,
# OUT takes the runs; finished ones are not repeated. A detector is trained without the class Platelets (200 steps). Then
# all three classes are trained for 50 steps from it, and from the features, three seeds each. Prints the table.
set -euo pipefail
data=$1 features=$2 out=$3
cd "$(dirname "$0")/../.."

run() {  # NAME ARGUMENTS...
  local folder="$out/$1"
  shift
  [ -f "$folder/metrics.json" ] || nice -n 10 python -m detector train experiment=bccd data.root="$data" data.workers=0 \
    trainer.threads=1 trainer.eval_every=0 trainer.progress_bar=false logger.tensorboard=false logger.sheet_images=0 \
    run_dir="$folder" "$@"
}

run start model.weights="$features" 'data.drop_categories=[Platelets]'
for seed in 0 1 2; do
  short=(seed=$seed trainer.max_steps=50 optim.warmup_steps=10)
  run "own_run_$seed" "${short[@]}" model.weights="$out/start" data.old_val_annotations=val.json
  run "features_$seed" "${short[@]}" model.weights="$features"
done

python - "$out" <<'END'
import json
import sys
from pathlib import Path

out, old = Path(sys.argv[1]), ("RBC", "WBC")
columns = [*old, "RBC and WBC", "Platelets"]
print(f"| start | steps | seed | {' | '.join(f'AP {name}' for name in columns)} | seconds |")
print("|---|---|---|" + "---|" * (len(columns) + 1))
for name in ("start", *(f"{kind}_{seed}" for kind in ("own_run", "features") for seed in range(3))):
    found = json.loads((out / name / "metrics.json").read_text())
    ap = {row["name"]: row["AP"] for row in found["per_class"]}
    ap["RBC and WBC"] = sum(ap[name] for name in old) / 2
    cells = [f"{ap[name]:.3f}" if name in ap else "" for name in columns]
    kind, _, seed = name.rpartition("_")
    first = {"": "features, without Platelets", "own_run": "that run", "features": "features"}[kind]
    meta = found["meta"]
    print(f"| {first} | {meta['steps']} | {meta['seed']} | {' | '.join(cells)} | {meta['seconds']:.0f} |")
END
