"""A project whose model serves one group worse, with a column of numbers and a class name to escape."""

import numpy as np
import pandas as pd
import torch

import puma_dash as puma


def make():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(700, 3)).astype(np.float32))
    group, age = rng.choice(["a", "b"], 700), rng.normal(40, 10, 700)
    y = (x[:, 0] > 0).long()
    noisy = torch.from_numpy((group == "b") & (rng.random(700) < 0.4))
    y = torch.where(noisy, 1 - y, y)
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-2.0, 0, 0], [2.0, 0, 0]]))
        model.bias.zero_()

    def split(rows):
        frame = pd.DataFrame({"age": age[rows]})
        return puma.Split(x[rows], y[rows], meta=frame, groups=pd.DataFrame({"region": group[rows]}))

    return puma.Project(
        name="Grouped",
        model=model,
        train=split(slice(0, 300)),
        validation=split(slice(300, 700)),
        class_names=("no *loan*", "loan"),
        weight_decay=1e-2,
    )
