"""What each public library answers, in its own words: run where they are installed, by ``peers``.

``python -m benchmarks.peer NAME PROBLEM_FILE OUT`` measures one method. A method prepares and returns the
call to be measured; the call gives one score per training row in our sign and scale: for psi
grad C^T (G + shift I)^-1 grad l_j with C the mean test cross-entropy, for self-influence (by whatever
product the library has) its negative, so that lower is more suspicious.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import main
from benchmarks.problems import Problem

BATCH = 1_000
TOLERANCE = 1e-2

Call = Callable[[], Tensor]


def loader(problem: Problem, batch: int = BATCH) -> DataLoader:
    """The training rows in order."""
    return DataLoader(TensorDataset(problem.x, problem.y), batch_size=batch)


def test_gradient(problem: Problem) -> list[Tensor]:
    """grad C, a tensor for each parameter: for libraries that have products only."""
    loss = cross_entropy(problem.model(problem.test_x), problem.test_y)
    return list(torch.autograd.grad(loss, list(problem.model.parameters())))


def scores_along(problem: Problem, direction: list[Tensor]) -> Tensor:
    """s^T grad l_j (n,) by forward mode: for libraries that have products only."""
    from torch.func import functional_call, jvp

    named = {name: value.detach() for name, value in problem.model.named_parameters()}
    tangents = dict(zip(named, direction, strict=True))

    def scores(x: Tensor, y: Tensor) -> Tensor:
        def losses(parameters: dict[str, Tensor]) -> Tensor:
            return cross_entropy(functional_call(problem.model, parameters, (x,)), y, reduction="none")

        return jvp(losses, (named,), (tangents,))[1]

    return torch.cat([scores(x, y) for x, y in loader(problem)])


# --- curvlinops ------------------------------------------------------------


def curvlinops_cg(problem: Problem) -> Call:
    """The Gauss-Newton matrix itself, by conjugate gradients."""
    from curvlinops import GGNLinearOperator
    from linear_operator.utils.linear_cg import linear_cg

    def psi() -> Tensor:
        parameters = list(problem.model.parameters())
        ggn = GGNLinearOperator(
            problem.model,
            CrossEntropyLoss(),
            parameters,
            list(loader(problem)),
            check_deterministic=False,
            num_data=len(problem.y),
        )
        gradient = torch.cat([part.reshape(-1, 1) for part in test_gradient(problem)])
        solved = linear_cg(
            lambda v: ggn @ v + problem.shift * v, gradient, tolerance=TOLERANCE, max_iter=500
        ).ravel()
        parts = solved.split([parameter.numel() for parameter in parameters])
        return scores_along(problem, [part.view_as(p) for part, p in zip(parts, parameters, strict=True)])

    return psi


def curvlinops_ekfac(problem: Problem) -> Call:
    """EK-FAC with labels sampled from the model, as the library does by default."""
    from curvlinops import EKFACLinearOperator, KFACInverseLinearOperator

    def psi() -> Tensor:
        ekfac = EKFACLinearOperator(
            problem.model,
            CrossEntropyLoss(),
            list(problem.model.parameters()),
            list(loader(problem)),
            check_deterministic=False,
            num_data=len(problem.y),
            separate_weight_and_bias=False,
        )
        inverse = KFACInverseLinearOperator(ekfac, damping=problem.shift, use_exact_damping=True)
        return scores_along(problem, inverse @ test_gradient(problem))

    return psi


# --- nngeometry ------------------------------------------------------------


def nngeometry_kfac(problem: Problem) -> Call:
    """K-FAC, the exact Fisher matrix of each layer."""
    return nngeometry(problem, corrected=False)


def nngeometry_ekfac(problem: Problem) -> Call:
    """The same with its eigenvalues corrected, which has to be asked for in a second call."""
    return nngeometry(problem, corrected=True)


def nngeometry(problem: Problem, corrected: bool) -> Call:
    """Both of them."""
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatEKFAC, PMatKFAC
    from nngeometry.object.vector import PVector

    def psi() -> Tensor:
        rows = loader(problem)
        fisher = FIM(problem.model, rows, PMatEKFAC if corrected else PMatKFAC)
        if corrected:
            fisher.update_diag(rows)
        gradient = torch.cat([part.ravel() for part in test_gradient(problem)])
        layers = LayerCollection.from_model(problem.model)
        solved = fisher.solve(PVector(layers, vector_repr=gradient), regul=problem.shift).to_dict()
        return scores_along(problem, [part for layer in layers.layers for part in solved[layer]])

    return psi


# --- kronfluence ------------------------------------------------------------


def kronfluence_ekfac(problem: Problem) -> Call:
    """EK-FAC; the scores of all test rows are asked for as one aggregate."""

    def ask(analyzer: Any, arguments: Any, train: TensorDataset) -> Tensor:
        arguments.aggregate_query_gradients = True
        analyzer.compute_pairwise_scores(
            scores_name="scores",
            factors_name="factors",
            query_dataset=TensorDataset(problem.test_x, problem.test_y),
            train_dataset=train,
            per_device_query_batch_size=BATCH,
            per_device_train_batch_size=BATCH,
            score_args=arguments,
        )
        summed = analyzer.load_pairwise_scores("scores")["all_modules"]  # (1, n)
        return summed.ravel() / len(problem.test_y)

    return kronfluence(problem, ask)


def kronfluence_self_influence(problem: Problem) -> Call:
    """Self-influence through the same factors."""

    def ask(analyzer: Any, arguments: Any, train: TensorDataset) -> Tensor:
        analyzer.compute_self_scores(
            scores_name="scores",
            factors_name="factors",
            train_dataset=train,
            per_device_train_batch_size=BATCH,
            score_args=arguments,
        )
        return -analyzer.load_self_scores("scores")["all_modules"].ravel()

    return kronfluence(problem, ask)


def kronfluence(problem: Problem, ask: Callable[[Any, Any, TensorDataset], Tensor]) -> Call:
    """What both need: the loss in the library's terms, a wrapped copy of the model, factors on disk."""
    from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):
            outputs = model(batch[0])
            labels = torch.multinomial(outputs.detach().softmax(1), 1).ravel() if sample else batch[1]
            return cross_entropy(outputs, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    def scores() -> Tensor:
        task, train = Classification(), TensorDataset(problem.x, problem.y)
        model = prepare_model(copy.deepcopy(problem.model), task)
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer(
                "benchmark", model, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=40
            )
            analyzer.fit_all_factors(
                factors_name="factors",
                dataset=train,
                per_device_batch_size=BATCH,
                factor_args=FactorArguments("ekfac"),
            )
            return ask(analyzer, ScoreArguments(damping_factor=problem.shift), train)

    return scores


# --- captum ------------------------------------------------------------


def captum_tracin(problem: Problem) -> Call:
    """Dot products of last-layer gradients at the final weights (TracInCPFast with one checkpoint)."""
    explain = captum_fast(problem)
    return lambda: explain().influence((problem.test_x, problem.test_y)).mean(0)


def captum_tracin_self_influence(problem: Problem) -> Call:
    """Squared norms of last-layer gradients."""
    explain = captum_fast(problem)
    return lambda: -explain().self_influence()


def captum_fast(problem: Problem) -> Callable[[], Any]:
    """Makes the library's object."""
    from captum.influence import TracInCPFast

    model = copy.deepcopy(problem.model)
    return lambda: TracInCPFast(
        model,
        model[-1],
        TensorDataset(problem.x, problem.y),
        checkpoints=["final"],
        checkpoints_load_func=lambda *_: 1.0,  # the model holds its weights already
        loss_fn=CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH,
    )


def captum_arnoldi(problem: Problem) -> Call:
    """Low-rank Hessian: 50 directions kept of 200 Arnoldi steps, as by default."""
    explain = captum_low_rank(problem)

    def psi() -> Tensor:
        arnoldi = explain()
        of = arnoldi.compute_intermediate_quantities
        test = DataLoader(TensorDataset(problem.test_x, problem.test_y), batch_size=BATCH)
        summed = of(test, aggregate=True, test=True)  # (1, 50)
        # Its Hessian is that of the summed loss, hence the factor n.
        return (of(loader(problem)) @ summed.T).ravel() * len(problem.y) / len(problem.test_y)

    return psi


def captum_arnoldi_self_influence(problem: Problem) -> Call:
    """Self-influence in the same directions."""
    explain = captum_low_rank(problem)
    return lambda: -explain().self_influence(loader(problem))


def captum_low_rank(problem: Problem) -> Callable[[], Any]:
    """Makes the library's object, which computes the directions."""
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    model = copy.deepcopy(problem.model)
    return lambda: ArnoldiInfluenceFunction(
        model,
        TensorDataset(problem.x, problem.y),
        checkpoint="final",
        checkpoints_load_func=lambda *_: 1.0,
        loss_fn=CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH,
        sample_wise_grads_per_batch=True,
        hessian_reg=problem.shift * len(problem.y),
    )


# --- dattri ------------------------------------------------------------


def dattri_cg(problem: Problem) -> Call:
    """The Hessian by 50 steps of conjugate gradients; it has no stopping rule."""
    from dattri.algorithm.influence_function import IFAttributorCG

    def psi() -> Tensor:
        solver = IFAttributorCG(dattri_task(problem), max_iter=50, regularization=problem.shift)
        solver.cache(loader(problem, len(problem.y)))  # batches would have their inverses summed
        return dattri_scores(problem, solver)

    return psi


def dattri_ekfac(problem: Problem) -> Call:
    """EK-FAC of the linear layers, the only ones it knows."""
    from dattri.algorithm.influence_function import IFAttributorEKFAC

    def psi() -> Tensor:
        solver = IFAttributorEKFAC(dattri_task(problem), damping=problem.shift)
        solver.cache(loader(problem))
        return dattri_scores(problem, solver)

    return psi


def dattri_scores(problem: Problem, solver: Any) -> Tensor:
    """Scores against all test rows as one item, whose loss is their mean."""
    criterion = DataLoader(TensorDataset(problem.test_x[None], problem.test_y[None]), batch_size=1)
    return solver.attribute(loader(problem), criterion).ravel().detach()


def dattri_task(problem: Problem) -> Any:
    """The loss in the library's terms: of rows, and of the one item that holds all test rows."""
    from dattri.task import AttributionTask
    from torch.func import functional_call

    model = copy.deepcopy(problem.model)

    def loss(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        x = x.reshape(-1, *problem.x.shape[1:])
        return cross_entropy(functional_call(model, parameters, (x,)), y.ravel())

    return AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())


METHODS: dict[str, Callable[[Problem], Call]] = {
    "curvlinops GGN by CG to 1 %": curvlinops_cg,
    "curvlinops EK-FAC": curvlinops_ekfac,
    "nngeometry K-FAC": nngeometry_kfac,
    "nngeometry EK-FAC": nngeometry_ekfac,
    "kronfluence EK-FAC": kronfluence_ekfac,
    "kronfluence EK-FAC, self-influence": kronfluence_self_influence,
    "captum TracInCPFast": captum_tracin,
    "captum TracInCPFast, self-influence": captum_tracin_self_influence,
    "captum Arnoldi": captum_arnoldi,
    "captum Arnoldi, self-influence": captum_arnoldi_self_influence,
    "dattri CG, 50 steps": dattri_cg,
    "dattri EK-FAC": dattri_ekfac,
}
DIGITS_ONLY = {"dattri CG, 50 steps", "captum Arnoldi", "captum Arnoldi, self-influence"}
"""On the convolutional network the first needs more than 24 GB, since it keeps every step's graph, and the
other two more than the limit of time: 200 products with the Hessian of all rows, about 4 s each."""

if __name__ == "__main__":
    main(METHODS)
