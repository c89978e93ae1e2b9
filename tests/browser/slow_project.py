"""A project that loads once a file exists, so that a test can look at a running job."""

import os
import time
from pathlib import Path

import torch

import puma_dash as puma


def make():
    gate = Path(os.environ["SLOW_PROJECT_GATE"])
    while not gate.exists():
        time.sleep(0.05)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=generator)
    y = (x[:, 0] > 0).long()
    torch.manual_seed(0)
    rows = puma.Split(x, y)
    return puma.Project(
        name="Slow", model=torch.nn.Linear(2, 2), train=rows, validation=rows, weight_decay=0.1
    )
