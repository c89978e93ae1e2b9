"""Classifiers of scikit-learn, kept by skops, as the same networks: logits instead of probabilities.

skops writes estimators as JSON and arrays. Only files whose every type is named in ``KNOWN`` are opened, so
that nothing but the few estimators below is ever made out of one.
"""

from __future__ import annotations

import json
import reprlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from puma_dash.core.loaders.files import check_file, open_archive
from puma_dash.core.types import ProjectError, listing

LARGEST_FILE = 2**28
"""Bytes that a .skops file may unpack to."""
LARGEST_SCHEMA = 2**24
OPTIMIZERS = tuple(
    f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")
)
"""What MLPClassifier keeps of its training, and skops does not know: numbers only."""
KNOWN = frozenset(
    (
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._label.LabelBinarizer",
        *OPTIMIZERS,
        *(
            f"builtins.{name}"
            for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "NoneType")
        ),
        *(f"numpy.{name}" for name in ("ndarray", "float64", "float32", "int64", "int32", "bool", "bool_")),
        "numpy.random.mtrand.RandomState",
    )
)
HIDDEN = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid, "identity": nn.Identity}


class Standardize(nn.Module):
    """(x - mean) / scale with fixed numbers: a StandardScaler."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) from (b, d)."""
        return (x - self.mean) / self.scale


def read_estimator(
    path: Path, classes: Sequence[Any] | None, outputs: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network of a LogisticRegression or MLPClassifier in a .skops file, and notes on it.

    StandardScalers before it in a Pipeline become fixed layers. Of two classes scikit-learn keeps one logit z
    for the second: it stays one where the project has one output, and becomes -z/2 and z/2 where it has two
    (the pair of the smallest weights, with the same probabilities).

    Args:
        path: the file.
        classes: the labels of the project in the order of its outputs; needed where those of the estimator
            are not 0, 1, 2, ...
        outputs: number of outputs that the network must have.

    Raises:
        ProjectError: the file is broken, holds another type (named) or an estimator that is no such network.
    """
    estimator = _loaded(path)
    steps = [step for _, step in estimator.steps] if type(estimator).__name__ == "Pipeline" else [estimator]
    *scalers, last = [step for step in steps if step is not None and not isinstance(step, str)] or [None]
    kinds = [type(step).__name__ for step in (*scalers, last)]
    if set(kinds[:-1]) - {"StandardScaler"} or kinds[-1] not in ("LogisticRegression", "MLPClassifier"):
        raise ProjectError(
            f"expected a LogisticRegression or MLPClassifier in {path.name}, after StandardScalers at most, "
            f"but got {', '.join(kinds)}; try transforming the data first."
        )
    try:
        kernels, hidden = _logistic(last) if kinds[-1] == "LogisticRegression" else _perceptron(last)
        order = _order(last, classes, outputs)
        layers = [_scaler(step, kernels[0][0].dtype) for step in scalers]
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        if isinstance(error, ProjectError):
            raise
        raise ProjectError(
            f"expected a fitted {kinds[-1]} in {path.name}, but it cannot be read ({error}); "
            "try fitting it and saving it with skops.io.dump."
        ) from error
    kernels[-1] = _with_outputs(*kernels[-1], order, outputs)
    for kernel, bias in kernels:
        layers += [_linear(kernel, bias), hidden()]
    return nn.Sequential(nn.Flatten(), *layers[:-1]), (
        f"The network of {' and '.join(kinds)} of scikit-learn.",
    )


def _loaded(path: Path) -> Any:
    """The estimator in the file, all of whose types are known."""
    import skops.io

    check_file(path)
    with open_archive(path, LARGEST_FILE) as archive:
        if (
            "schema.json" not in archive.namelist()
            or archive.getinfo("schema.json").file_size > LARGEST_SCHEMA
        ):
            raise ProjectError(
                f"expected an estimator of skops in {path.name}, but it has no schema.json of a usual size; "
                "try saving it with skops.io.dump."
            )
        try:
            found = set(_types(json.loads(archive.read("schema.json"))))
        except Exception as error:
            raise _broken(path, error) from error
    if found - KNOWN:
        raise ProjectError(
            f"expected a LogisticRegression or MLPClassifier, after StandardScalers at most, but {path.name} "
            f"also holds {listing(found - KNOWN)}; try one of these, or a factory that builds your network."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions: what is read here has not changed
            return skops.io.load(path, trusted=list(OPTIMIZERS))
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> ProjectError:
    return ProjectError(
        f"expected an estimator of skops in {path.name}, but it cannot be read "
        f"({type(error).__name__}: {str(error)[:120]}); try saving it again with skops.io.dump."
    )


def _types(state: Any) -> Iterator[str]:
    """The full names of all types in a schema of skops."""
    todo = [state]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if "__class__" in part:
                yield f"{part.get('__module__')}.{part['__class__']}"
            todo += part.values()
        elif isinstance(part, list):
            todo += part


Kernels = list[tuple[Tensor, Tensor]]


def _logistic(model: Any) -> tuple[Kernels, type[nn.Module]]:
    """The kernel (out, in) and bias (out,) of a logistic regression."""
    several = len(model.classes_) > 2
    way = getattr(model, "multi_class", "auto")
    if (several and (way == "ovr" or model.solver == "liblinear")) or (not several and way == "multinomial"):
        raise ProjectError(
            "expected the softmax of linear scores, but this LogisticRegression makes probabilities of "
            f"{len(model.classes_)} classes in another way (solver {model.solver!r}, multi_class {way!r}); "
            'try fitting it with solver="lbfgs" and the default multi_class.'
        )
    bias = np.broadcast_to(model.intercept_, (len(model.coef_),))  # a single 0 where there is no intercept
    return [(_numbers(model.coef_, 2), _numbers(bias, 1))], nn.Identity


def _perceptron(model: Any) -> tuple[Kernels, type[nn.Module]]:
    """The kernels (out, in) and biases (out,) of a multilayer perceptron, and the module between them."""
    if model.out_activation_ != ("logistic" if len(model.classes_) == 2 else "softmax"):
        raise ProjectError(
            f"expected an MLPClassifier of one label a row, but its {len(model.classes_)} outputs end in "
            f"{model.out_activation_!r}; try one label a row."
        )
    pairs = zip(model.coefs_, model.intercepts_, strict=True)
    kernels = [(_numbers(coef, 2).T.contiguous(), _numbers(bias, 1)) for coef, bias in pairs]
    return kernels, HIDDEN[model.activation]


def _numbers(array: Any, dimensions: int) -> Tensor:
    """A tensor of finite real numbers."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim != dimensions:
        raise ValueError(f"numbers of {dimensions} dimensions are due, not {reprlib.repr(array)}")
    if not np.isfinite(array).all():
        raise ValueError("weights are NaN or infinite")
    return torch.tensor(array.astype(np.result_type(array.dtype, np.float32)))


def _scaler(step: Any, dtype: torch.dtype) -> nn.Module:
    """The fixed layer of a StandardScaler."""
    count = int(step.n_features_in_)
    mean = np.zeros(count) if not step.with_mean else step.mean_
    scale = np.ones(count) if not step.with_std else step.scale_
    if len(mean) != count or len(scale) != count or not (np.asarray(scale) > 0).all():
        raise ValueError("its StandardScaler has other numbers than features")
    return Standardize(_numbers(mean, 1).to(dtype), _numbers(scale, 1).to(dtype))


def _order(model: Any, classes: Sequence[Any] | None, outputs: int) -> list[int]:
    """Which class of the estimator each output of the project is."""
    own = [str(label) for label in np.asarray(model.classes_).tolist()]
    wanted = [str(label) for label in (range(max(outputs, 2)) if classes is None else classes)]
    if len(set(own)) != len(own) or sorted(own) != sorted(wanted):
        raise ProjectError(
            f"expected the labels {', '.join(wanted[:20])}, as the project has them, but the estimator knows "
            f"{', '.join(own[:20])}; try classes = {own[:20]} in the [model] table, in the project's order."
        )
    return [own.index(label) for label in wanted]


def _with_outputs(kernel: Tensor, bias: Tensor, order: list[int], outputs: int) -> tuple[Tensor, Tensor]:
    """The last layer with its rows in the order of the project's outputs."""
    if len(kernel) == 1:
        sign = 1.0 if order == [0, 1] else -1.0
        signs = torch.tensor([sign] if outputs == 1 else [-sign / 2, sign / 2], dtype=kernel.dtype)
        return signs[:, None] * kernel, signs * bias
    return kernel[order], bias[order]


def _linear(kernel: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(kernel.shape[1], kernel.shape[0], device="meta")
    layer.load_state_dict({"weight": kernel, "bias": bias}, assign=True)
    return layer
