"""One method on one problem in a process of its own, the same for every library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.clock import first_and_median
from benchmarks.problems import Problem, load


def main(methods: Mapping[str, Callable[[Problem], Callable[[], Tensor]]]) -> None:
    """Measures ``methods[NAME]`` for the arguments NAME PROBLEM_FILE OUT; writes OUT.npy and OUT.json."""
    name, file, out = sys.argv[1:]
    torch.set_num_threads(1)
    problem = load(file)
    facts, scores = first_and_median(lambda: methods[name](problem))
    np.save(f"{out}.npy", scores.detach().double().numpy())
    Path(f"{out}.json").write_text(json.dumps(facts), "utf-8")
