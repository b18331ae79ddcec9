"""Training, evaluation, comparison and use of a detector, from Python."""

import sys

import numpy as np

import detector

if __name__ == "__main__":
    quick = {"max_steps": 3, "warmup_steps": 1, "workers": 0, "min_size": [64], "optim": {"lr": 1e-3}}
    run = detector.train(data=sys.argv[1], model="fpn", weights="none", norm="batch", trainable_stages=5, **quick)
    evaluation = detector.evaluate(checkpoint=run, resamples=20, workers=0)
    again = detector.evaluate(checkpoint=run, resamples=20, workers=0, score_thresh=0.5, output_dir="again")
    comparison = detector.compare(evaluation, again, resamples=20)
    image = np.zeros((64, 64, 3), np.uint8)
    picture = run.load()(image)[0].draw(image)
    try:
        detector.train(data=sys.argv[1], modle="fpn")
    except detector.exceptions.ConfigError as error:
        print(error)
    print(run.steps, evaluation.metrics == run.metrics, comparison.table[0]["metric"], picture.size, len(run.history))
