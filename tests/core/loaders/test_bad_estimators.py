"""A table of bad estimators of scikit-learn, and words that the answer must contain."""

import os
import pickle
import struct

import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from .makers import IMAGES, ROWS, Runs, changed, check_answer, dense, saved

X, Y = np.asarray(ROWS), np.array([0, 1, 2, 0, 1, 2])


def estimator(made, fit=True, y=Y, **changes):
    """An estimator, fitted, with attributes changed."""

    def make(folder):
        model = made.fit(X, y) if fit else made
        for name, value in changes.items():
            setattr(model, name, value)
        skops.io.dump(model, folder / "m.skops")
        return folder / "m.skops"

    return make


def logistic(**changes):
    return estimator(LogisticRegression(), **changes)


ESTIMATORS = {
    "a forest": (estimator(RandomForestClassifier(2)), "sklearn.ensemble._forest.RandomForestClassifier"),
    "a function": (
        estimator(make_pipeline(FunctionTransformer(os.path.join), StandardScaler()), fit=False),
        "posixpath.join",
    ),
    "components before": (
        estimator(make_pipeline(PCA(2), LogisticRegression())),
        "sklearn.decomposition._pca.PCA",
    ),
    "scaling behind": (estimator(make_pipeline(StandardScaler())), "but got StandardScaler"),
    "an empty pipeline": (estimator(make_pipeline("passthrough")), "but got NoneType"),
    "a network before": (
        estimator(make_pipeline(StandardScaler(), StandardScaler(), StandardScaler()), fit=False),
        "but got StandardScaler, StandardScaler, StandardScaler",
    ),
    "numbers only": (
        lambda folder: skops.io.dump([1, 2], folder / "m.skops") or folder / "m.skops",
        "but got list",
    ),
    "not fitted": (estimator(LogisticRegression(), fit=False), "a fitted LogisticRegression"),
    "not fitted, of layers": (estimator(MLPClassifier(), fit=False), "a fitted MLPClassifier"),
    "scaling not fitted": (
        estimator(make_pipeline(StandardScaler(), LogisticRegression()), fit=False),
        "a fitted LogisticRegression",
    ),
    "one class against the others": (
        logistic(multi_class="ovr"),
        "3 classes in another way (solver 'lbfgs', multi_class 'ovr')",
    ),
    "another solver": (logistic(solver="liblinear"), "solver 'liblinear'"),
    "the softmax of one score": (
        logistic(y=Y > 1, multi_class="multinomial"),
        "'multinomial'",
        {"outputs": 2},
    ),
    "several labels a row": (
        estimator(MLPClassifier(max_iter=1), y=np.eye(3, dtype=int)[Y]),
        "one label a row",
    ),
    "classes in words": (logistic(y=np.array(["a", "b", "c"])[Y]), "try classes = ['a', 'b', 'c']"),
    "classes from 1": (
        logistic(y=Y + 1),
        "labels 0, 1, 2, as the project has them, but the estimator knows 1, 2, 3",
    ),
    "other classes": (logistic(), "labels a, b, c, as", {"classes": list("abc")}),
    "a class twice": (logistic(), "labels 0, 1, 1", {"classes": [0, 1, 1]}),
    "fewer outputs": (logistic(), "labels 0, 1, as", {"outputs": 2}),
    "other rows": (logistic(), "m.skops raised RuntimeError", {"inputs": IMAGES}),
    "sparse weights": (logistic(coef_=sparse.csr_matrix(np.ones((3, 3)))), "scipy.sparse"),
    "weights of words": (logistic(coef_=np.array([["a"] * 3] * 3)), "numbers of 2 dimensions"),
    "weights of any things": (logistic(coef_=np.array([[None] * 3] * 3)), "numbers of 2 dimensions"),
    "a row of weights": (logistic(coef_=np.ones(3)), "numbers of 2 dimensions"),
    "no weights": (logistic(coef_=None), "cannot be read"),
    "NaN in weights": (logistic(coef_=np.full((3, 3), np.nan)), "NaN or infinite"),
    "an intercept too long": (logistic(intercept_=np.ones(4)), "cannot be read"),
    "a kernel missing": (estimator(MLPClassifier(max_iter=1), coefs_=[np.ones((3, 3))]), "cannot be read"),
    "an activation of no name": (estimator(MLPClassifier(max_iter=1), activation="step"), "cannot be read"),
    "a scale of nothing": (
        lambda folder: estimator(_scaled(np.zeros(3)), fit=False)(folder),
        "other numbers than features",
    ),
    "settings": (logistic(), "besides classes, but got hidden", {"hidden": [3]}),
    "an archive of something else": (
        lambda folder: saved(dense().state_dict(), folder / "m.pt").rename(folder / "m.skops"),
        "no schema.json",
    ),
    "no JSON": (changed(lambda n, d: b"{" if "schema" in n else d, logistic()), "cannot be read"),
    "JSON without end": (
        changed(lambda n, d: b"[" * 10**6 if "schema" in n else d, logistic()),
        "RecursionError",
    ),
    "arrays missing": (changed(lambda n, d: d if "schema" in n else None, logistic()), "KeyError"),
    "arrays that are no arrays": (
        changed(lambda n, d: d if "schema" in n else b"x", logistic()),
        "cannot be read",
    ),
    "an array of absurd shape": (
        changed(lambda n, d: d if "schema" in n else absurd(), logistic()),
        "cannot be read",
    ),
    "a pickle for an array": (
        changed(lambda n, d: d if "schema" in n else pickle.dumps(Runs()), logistic()),
        "cannot be read",
    ),
}


def _scaled(scale):
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    pipeline[0].scale_ = scale
    return pipeline


def absurd():
    """The beginning of an array of 2^60 numbers."""
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("entry", ESTIMATORS.values(), ids=ESTIMATORS)
def test_bad_estimators_are_answered_in_words(entry, tmp_path, monkeypatch):
    check_answer(entry, tmp_path, monkeypatch)
