"""Runs steps within a number of seconds: each has its own limit and what is left, none stops the others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpu_kit.steps import Step

LEAST = 10.0  # seconds that a step is begun with
LAST_WORDS = 5.0  # seconds that a step has to write what it has found, when its time is over

PASSED, FAILED, STOPPED, SKIPPED, NOT_BEGUN = "passed", "FAILED", "STOPPED", "skipped", "not begun"


@dataclass(frozen=True)
class Outcome:
    """What came of a step.

    Attributes:
        name: of the step.
        outcome: PASSED, FAILED, STOPPED at its limit, SKIPPED or NOT_BEGUN.
        seconds: that it took.
        detail: exit code, limit or reason.
    """

    name: str
    outcome: str
    seconds: float
    detail: str

    @property
    def is_bad(self) -> bool:
        """Whether it failed, or was not done when its time was over."""
        return self.outcome in (FAILED, STOPPED)


def run_steps(
    steps: Sequence[Step],
    budget: float,
    environment: dict[str, str],
    folder: Path,
    after: Callable[[list[Outcome]], None],
) -> list[Outcome]:
    """Run the steps in turn.

    Args:
        steps: what to run.
        budget: seconds for all of them.
        environment: of all of them.
        folder: where they are run.
        after: called with all outcomes so far, after each step.
    """
    end = time.monotonic() + budget
    outcomes: list[Outcome] = []
    for step in steps:
        left = end - time.monotonic() - LAST_WORDS
        if step.skipped:
            outcome = Outcome(step.name, SKIPPED, 0.0, step.skipped)
        elif left < LEAST:
            outcome = Outcome(step.name, NOT_BEGUN, 0.0, f"{max(left, 0):.0f} s were left")
        else:
            limit = min(step.limit, left)
            print(f"\n== {step.name} (at most {limit:.0f} s): {' '.join(step.command)}", flush=True)
            outcome = run_step(step, limit, {**environment, **step.environment}, folder)
        outcomes.append(outcome)
        after(outcomes)
    return outcomes


def run_step(step: Step, limit: float, environment: dict[str, str], folder: Path) -> Outcome:
    """Run a step with everything that it starts; after ``limit`` seconds it is asked to stop, then killed."""
    begun = time.monotonic()
    try:
        process = subprocess.Popen(step.command, cwd=folder, env=environment, process_group=0)
    except OSError as error:
        return Outcome(step.name, FAILED, 0.0, str(error))
    try:
        code = process.wait(limit)
        outcome = PASSED if code == 0 else FAILED
        detail = step.note if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        outcome, detail = STOPPED, f"not done after {limit:.0f} s"
        _signal(process, signal.SIGINT)  # tests and tables say what they have found so far
        with suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WORDS)
    finally:
        _signal(process, signal.SIGKILL)  # and what it has started and left behind
        process.wait()
    return Outcome(step.name, outcome, time.monotonic() - begun, detail)


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
