"""How psi and a one-step patch grow with the number of rows: a network of 13 002 parameters on 784 inputs."""

from __future__ import annotations

import pandas as pd
import torch

import puma_dash as puma
from benchmarks.clock import seconds

ROWS = (1_000, 4_000, 16_000)


def measure():
    """Title and table."""
    table = []
    for n in ROWS:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n + 500, 784, generator=generator)
        y = (x[:, :10] + torch.randn(n + 500, 10, generator=generator)).argmax(1)
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(784, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
        project = puma.Project(
            name="growth",
            model=model,
            train=puma.Split(x[:n], y[:n]),
            validation=puma.Split(x[n:], y[n:]),
            weight_decay=1e-3,
        )
        plan = puma.PatchPlan(remove=tuple(range(n // 20)))

        def cold(call, project=project):
            project.memo.clear()
            return call(project)

        psi = seconds(lambda cold=cold: cold(lambda p: puma.value(p, device="cpu")), 3)
        patch = seconds(lambda cold=cold, plan=plan: cold(lambda p: puma.patch(p, plan, device="cpu")), 3)
        per_row = f"{1e6 * psi / n:.0f}"
        table.append(
            {"rows": f"{n:,}", "psi, s": f"{psi:.2f}", "us a row": per_row, "patch, s": f"{patch:.2f}"}
        )
    yield (
        "Growth with the number of rows, 784 inputs, 12 730 parameters, conjugate gradient to 1e-2",
        pd.DataFrame(table),
    )
