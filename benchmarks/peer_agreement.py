"""What published implementations answer to questions that have one answer: run by ``agreement``.

``python -m benchmarks.peer_agreement NAME CASE_FILE OUT`` asks one. Each gives one score per training row, in
our sign and scale: for TracIn and influence of the mean test cross-entropy, lower is more suspicious. A case
is a dict: model, rows x and y, test_x and test_y, weight decay, l2, checkpoints (k, p) with their rates.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import CrossEntropyLoss
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils import vector_to_parameters
from torch.utils.data import DataLoader, TensorDataset

BATCH = 500

Case = dict[str, Any]


def state_at(case: Case, theta: Tensor) -> nn.Module:
    """A copy of the model with the parameters ``theta`` (p,)."""
    model = copy.deepcopy(case["model"])
    vector_to_parameters(theta, model.parameters())
    return model


def loaders(case: Case) -> tuple[DataLoader, DataLoader]:
    """Training rows, and all test rows as one item."""
    train = DataLoader(TensorDataset(case["x"], case["y"]), batch_size=BATCH)
    return train, DataLoader(TensorDataset(case["test_x"][None], case["test_y"][None]), batch_size=1)


# --- captum ------------------------------------------------------------


def captum_tracin(case: Case, fast: bool, of_itself: bool) -> Tensor:
    """TracInCP, or TracInCPFast of the last layer, over all checkpoints with their learning rates."""
    from captum.influence import TracInCP, TracInCPFast

    model, rates = copy.deepcopy(case["model"]), dict(enumerate(case["rates"]))

    def at(module: nn.Module, k: int) -> float:
        vector_to_parameters(case["checkpoints"][k], module.parameters())
        return rates[k]

    settings = {
        "train_dataset": TensorDataset(case["x"], case["y"]),
        "checkpoints": list(rates),
        "checkpoints_load_func": at,
        "loss_fn": CrossEntropyLoss(reduction="sum"),
        "batch_size": BATCH,
    }

    if fast:
        explain = TracInCPFast(model, model[-1], **settings)
    else:
        explain = TracInCP(model, **settings, sample_wise_grads_per_batch=True)
    if of_itself:
        return -explain.self_influence()
    return explain.influence((case["test_x"], case["test_y"])).mean(0)


def captum_influence(case: Case) -> Tensor:
    """The exact Hessian of the summed loss, decomposed, all of its directions kept."""
    from captum.influence._core.influence_function import NaiveInfluenceFunction

    p, n = sum(parameter.numel() for parameter in case["model"].parameters()), len(case["y"])

    explain = NaiveInfluenceFunction(
        copy.deepcopy(case["model"]),
        TensorDataset(case["x"], case["y"]),
        checkpoint="final",
        checkpoints_load_func=lambda *_: 1.0,
        loss_fn=CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH,
        sample_wise_grads_per_batch=True,
        projection_dim=p,
        hessian_reg=case["decay"] * n,
        hessian_inverse_tol=0.0,
    )
    return explain.influence((case["test_x"], case["test_y"])).mean(0) * n


# --- dattri ------------------------------------------------------------


def dattri_task(case: Case, models: list[nn.Module]) -> Any:
    """The loss in the library's terms, and the models as its checkpoints."""
    from dattri.task import AttributionTask
    from torch.func import functional_call

    model = copy.deepcopy(case["model"])

    def loss(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        x = x.reshape(-1, *case["x"].shape[1:])
        return cross_entropy(functional_call(model, parameters, (x,)), y.ravel())

    return AttributionTask(loss_func=loss, model=model, checkpoints=[each.state_dict() for each in models])


def dattri_tracin(case: Case) -> Tensor:
    """TracIn without the random projection, which is its default."""
    from dattri.algorithm.tracin import TracInAttributor

    models = [state_at(case, theta) for theta in case["checkpoints"]]
    explain = TracInAttributor(
        dattri_task(case, models), weight_list=torch.tensor(case["rates"]), normalized_grad=False
    )
    explain.projector_kwargs = None
    return explain.attribute(*loaders(case)).ravel().detach()


def dattri_influence(case: Case, name: str, **settings: Any) -> Tensor:
    """Influence by the Hessian of the mean loss, solved in one of its ways."""
    from dattri.algorithm import influence_function

    kind = getattr(influence_function, f"IFAttributor{name}")
    explain = kind(dattri_task(case, [case["model"]]), regularization=case["decay"], **settings)
    everything = DataLoader(TensorDataset(case["x"], case["y"]), batch_size=len(case["y"]))
    explain.cache(everything)  # batches would have their inverses summed
    return explain.attribute(*loaders(case)).ravel().detach()


def dattri_representer(case: Case) -> Tensor:
    """-|alpha_j| f_j^T f_j by its fit and its weights, with the labels in place of the model's outputs."""
    from dattri.algorithm.utils import get_rps_weight, rps_finetune_theta

    with torch.no_grad():
        features = case["model"][:-1](case["x"])
    features = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    classes = case["model"][-1].out_features
    certain = 1e4 * one_hot(case["y"], classes).to(features)  # it takes logits
    decay = case["l2"] / 2  # its penalty has no factor 1/2
    start = torch.zeros(classes, features.shape[1], dtype=features.dtype)
    theta = rps_finetune_theta(features, certain, start, cross_entropy, decay, num_epoch=3_000)
    summed = partial(cross_entropy, reduction="sum")  # it divides by n itself
    alpha = get_rps_weight(theta, summed, features, certain, torch.arange(classes), decay)
    return -alpha.norm(dim=1) * features.square().sum(1)


def dattri_knn_shapley(case: Case) -> Tensor:
    """KNN-Shapley in the space of the last layer's inputs."""
    from dattri.algorithm.data_shapley import KNNShapleyAttributor

    with torch.no_grad():
        near, far = (case["model"][:-1](case[name]) for name in ("x", "test_x"))
    rows = (TensorDataset(near, case["y"]), TensorDataset(far, case["test_y"]))
    found = KNNShapleyAttributor(k_neighbors=5).attribute(*(DataLoader(part, BATCH) for part in rows))
    return found.mean(0)


METHODS: dict[str, Callable[[Case], Tensor]] = {
    "captum TracInCP": lambda case: captum_tracin(case, fast=False, of_itself=False),
    "captum TracInCP, self-influence": lambda case: captum_tracin(case, fast=False, of_itself=True),
    "captum TracInCPFast": lambda case: captum_tracin(case, fast=True, of_itself=False),
    "captum TracInCPFast, self-influence": lambda case: captum_tracin(case, fast=True, of_itself=True),
    "dattri TracIn": dattri_tracin,
    "captum NaiveInfluenceFunction": captum_influence,
    "dattri IF, explicit": lambda case: dattri_influence(case, "Explicit"),
    "dattri IF, CG": lambda case: dattri_influence(case, "CG", max_iter=500),
    "dattri RPS": dattri_representer,
    "dattri KNN-Shapley": dattri_knn_shapley,
}


def main() -> None:
    """Asks the peer; no facts go with the answer."""
    name, file, out = sys.argv[1:]
    torch.set_num_threads(1)
    scores = METHODS[name](torch.load(file, weights_only=False))
    np.save(f"{out}.npy", scores.detach().double().numpy())
    Path(f"{out}.json").write_text("{}", "utf-8")


if __name__ == "__main__":
    main()
