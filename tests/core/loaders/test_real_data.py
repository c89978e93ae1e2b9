"""Real data sets from the files as they are published: Adult, German Credit, MNIST (PUMA_DASH_TEST_DATA)."""

import gzip
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import puma_dash as puma
from puma_dash.core.loaders.starter import start

ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]


def fit_and_save(path, weight_decay):
    """scikit-learn's logistic regression on the encoding that is stored, saved as the project's model."""
    train = puma.read_data(path).splits["train"]
    model = LogisticRegression(C=1 / (weight_decay * len(train)), max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.inputs.numpy(), train.targets.numpy())
    layer = {"0.weight": model.coef_.astype(np.float32), "0.bias": model.intercept_.astype(np.float32)}
    save_file(layer, path / "model.safetensors")


def right(project, split):
    outputs = project.model(project.split(split).inputs)[:, 0]
    return ((outputs > 0).long() == project.split(split).targets).numpy(force=True)


def test_adult_from_its_files(tmp_path, test_data):
    """No header, "?" for missing, a dot after the labels of test, a comment: .853 on test, gap by sex .17."""
    for name in ("adult.data.gz", "adult.test.gz"):
        (tmp_path / name).symlink_to(test_data / "adult" / name)
    start(
        tmp_path,
        {
            "name": "Adult income",
            "loss": "binary_cross_entropy",
            "weight_decay": 1e-4,
            "model": {"weights": "model.safetensors"},
            "data": {
                "train": "adult.data.gz",
                "test": "adult.test.gz",
                "target": "income",
                "header": ADULT,
                "missing": ["?"],
                "comment": "|",
                "groups": ["sex", "race"],
                "labels": {"<=50K.": "<=50K", ">50K.": ">50K"},
            },
        },
    )
    fit_and_save(tmp_path, 1e-4)
    project = puma.load(tmp_path)
    assert project.class_names == ("<=50K", ">50K")
    assert tuple(project.train.inputs.shape) == (32_561, 108)
    assert len(project.validation) + len(project.test) == 16_281
    correct = np.concatenate([right(project, split) for split in ("validation", "test")])
    assert correct.mean() == pytest.approx(0.853, abs=0.0015)
    rates = []
    for sex in ("Male", "Female"):
        parts = [project.split(split) for split in ("validation", "test")]
        rates.append(
            np.concatenate(
                [(project.model(p.inputs)[:, 0] > 0).numpy()[(p.groups.sex == sex).to_numpy()] for p in parts]
            ).mean()
        )
    assert rates == pytest.approx([0.252, 0.076], abs=0.006)


def test_german_credit_from_its_file(tmp_path, test_data):
    """Blanks between fields, no header, labels 1 and 2: about .76 on the last 300 rows."""
    lines = (test_data / "german_credit" / "german.data").read_text().splitlines(keepends=True)
    (tmp_path / "train.data").write_text("".join(lines[:700]))
    (tmp_path / "test.data").write_text("".join(lines[700:]))
    start(
        tmp_path,
        {
            "loss": "binary_cross_entropy",
            "weight_decay": 1e-3,
            "class_names": ["good", "bad"],
            "model": {"weights": "model.safetensors"},
            "data": {
                "train": "train.data",
                "test": "test.data",
                "validation": {"from": "train", "share": 0.2},
                "target": "credit",
                "header": [*(f"a{k}" for k in range(1, 21)), "credit"],
                "separator": " ",
                "groups": ["a9"],
                "labels": {"1": "good", "2": "bad"},
            },
        },
    )
    fit_and_save(tmp_path, 1e-3)
    project = puma.load(tmp_path)
    assert [len(project.split(split)) for split in ("train", "validation", "test")] == [560, 140, 300]
    assert right(project, "test").mean() == pytest.approx(0.76, abs=0.03)


def test_mnist_from_its_files(tmp_path, test_data):
    """60 000 pictures as they are, gzipped; the numbers of its home page."""
    for path in (test_data / "mnist").glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "project.toml").write_text(
        "[normalise]\nmean = 0.1307\nstd = 0.3081\n[data]\n"
        'train = { inputs = "train-images-idx3-ubyte.gz", targets = "train-labels-idx1-ubyte.gz" }\n'
        'test = { inputs = "t10k-images-idx3-ubyte.gz", targets = "t10k-labels-idx1-ubyte.gz" }\n'
    )
    data = puma.read_data(tmp_path)
    train = data.splits["train"]
    assert tuple(train.inputs.shape) == (60_000, 1, 28, 28)
    assert train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(train.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (float(train.inputs.min()), float(train.inputs.max())) == (0, 1)
    assert float(train.inputs.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(train.inputs.std()) == pytest.approx(0.3081, abs=5e-5)
    with gzip.open(test_data / "mnist" / "train-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(), np.uint8)[16:].reshape(-1, 28, 28)
    np.testing.assert_array_equal((train.inputs[::5000, 0] * 255).round(), raw[::5000])
    assert len(data.splits["validation"]) == len(data.splits["test"]) == 5_000
