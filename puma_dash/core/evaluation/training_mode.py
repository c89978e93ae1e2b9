"""What a model computes differently in training mode: dropout, batch statistics, whatever else there is."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from puma_dash.core.objective import PROBE_ROWS, as_model_input, forward

if TYPE_CHECKING:
    from puma_dash.core.types import Split


@torch.no_grad()
def modules_that_differ(model: nn.Module, split: Split) -> Counter[str]:
    """How many modules of each type change the outputs on ``split`` in training mode, tried one by one."""
    model = copy.deepcopy(model).eval()
    rows = as_model_input(split.inputs[torch.arange(PROBE_ROWS) % len(split)], model)
    usual, state = forward(model, {}, rows), copy.deepcopy(model.state_dict())

    def differs() -> bool:
        """Whether the outputs are others than in eval mode; running statistics are put back."""
        outputs = forward(model, {}, rows)
        model.load_state_dict(state)
        return not isinstance(outputs, Tensor) or not torch.equal(outputs, usual)

    kinds: Counter[str] = Counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        if not differs():
            return kinds
        model.eval()
        for module in model.modules():
            module.training = True
            kinds[type(module).__name__] += differs()
            module.training = False
    return +kinds
