"""A project that takes its time to load, so that a test can look at a running job."""

import time

import torch

import puma_dash as puma


def make():
    time.sleep(8)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=generator)
    y = (x[:, 0] > 0).long()
    torch.manual_seed(0)
    rows = puma.Split(x, y)
    return puma.Project(
        name="Slow", model=torch.nn.Linear(2, 2), train=rows, validation=rows, weight_decay=0.1
    )
