"""Networks that a weight file can name: sizes known from elsewhere, and the same outputs written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import puma_dash as puma
from puma_dash.core.architectures import LeNet, Logistic, Mlp, ResNet18, ResNet34
from puma_dash.core.training import fresh

# The counts of the original LeNet-5 (with full connections) and of the usual ResNets for CIFAR-10.
SIZES = [
    (Logistic(), (4,), 3, 15),
    (Mlp(hidden=(100,)), (28, 28), 10, 79_510),
    (LeNet(), (1, 32, 32), 10, 61_706),
    (ResNet18(), (3, 32, 32), 10, 11_173_962),
    (ResNet34(), (3, 32, 32), 10, 21_282_122),
]


@pytest.mark.parametrize(("architecture", "shape", "outputs", "count"), SIZES)
def test_number_of_parameters(architecture, shape, outputs, count):
    with torch.device("meta"):
        model = architecture(shape, outputs)
    assert sum(p.numel() for p in model.parameters()) == count


def randomised(model):
    """The model with running statistics that are not 0 and 1, in eval mode."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                value.data.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model.double().eval()


def block(state, name, x):
    """A residual block, of the tensors under the names in common use."""

    def normed(conv, bn, x, **options):
        x = F.conv2d(x, state[f"{name}.{conv}.weight"], **options)
        parts = (state[f"{name}.{bn}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    shrinks = f"{name}.downsample.0.weight" in state
    inside = F.relu(normed("conv1", "bn1", x, padding=1, stride=2 if shrinks else 1))
    inside = normed("conv2", "bn2", inside, padding=1)
    return F.relu(inside + (normed("downsample.0", "downsample.1", x, stride=2) if shrinks else x))


@pytest.mark.parametrize(("architecture", "blocks"), [(ResNet18, (2, 2, 2, 2)), (ResNet34, (3, 4, 6, 3))])
def test_residual_networks(architecture, blocks):
    model = randomised(architecture(width=2)((3, 16, 12), 5))
    state, images = model.state_dict(), torch.randn(4, 3, 16, 12).double()
    x = F.conv2d(images, state["conv1.weight"], padding=1)
    x = F.relu(
        F.batch_norm(x, *(state[f"bn1.{p}"] for p in ("running_mean", "running_var", "weight", "bias")))
    )
    for stage, count in enumerate(blocks, 1):
        for number in range(count):
            x = block(state, f"layer{stage}.{number}", x)
    expected = x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(model(images), expected)


def test_lenet():
    model = LeNet(channels=(2, 3), hidden=(7,), kernel=3, padding=1, pooling="average", activation="tanh")
    model, images = model((1, 9, 8), 4).double(), torch.randn(5, 1, 9, 8).double()
    state, x = model.state_dict(), images
    for number in (0, 3):
        kernel = (state[f"features.{number}.{part}"] for part in ("weight", "bias"))
        x = F.avg_pool2d(torch.tanh(F.conv2d(x, *kernel, padding=1)), 2)
    x = torch.tanh(x.flatten(1) @ state["classifier.0.weight"].T + state["classifier.0.bias"])
    expected = x @ state["classifier.2.weight"].T + state["classifier.2.bias"]
    torch.testing.assert_close(model(images), expected)


def test_mlp():
    model, rows = Mlp(hidden=(3,), activation="sigmoid")((2, 2), 2).double(), torch.randn(5, 2, 2).double()
    w1, b1, w2, b2 = model.parameters()
    torch.testing.assert_close(model(rows), torch.sigmoid(rows.flatten(1) @ w1.T + b1) @ w2.T + b2)


IMAGES = [LeNet(channels=(2,), kernel=3), ResNet18(width=1)]


@pytest.mark.parametrize("architecture", IMAGES)
def test_images_without_channels(architecture):
    flat, deep = architecture((8, 8), 3).eval(), architecture((1, 8, 8), 3).eval()
    deep.load_state_dict(flat.state_dict())
    images = torch.randn(4, 8, 8)
    assert torch.equal(flat(images), deep(images[:, None]))


@pytest.mark.parametrize("key", puma.ARCHITECTURES)
def test_all_can_be_drawn_anew(key):
    """Retraining needs it."""
    model = puma.ARCHITECTURES[key]()((1, 16, 16), 3)
    again = fresh(model, seed=1)
    assert again.state_dict().keys() == model.state_dict().keys()
    weights = [(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True) if a.ndim > 1]
    assert not any(torch.equal(a, b) for a, b in weights)


MISTAKES = {
    "hidden is a number": (lambda: Mlp(hidden=64), "hidden to be a list"),
    "hidden of words": (lambda: Mlp(hidden="64"), "hidden to be a list"),
    "a layer without units": (lambda: Mlp(hidden=(4, 0)), "from 1 to"),
    "a layer of half a unit": (lambda: Mlp(hidden=(4.5,)), "whole numbers"),
    "a layer too wide": (lambda: Mlp(hidden=(10**9,)), "1048576"),
    "too many layers": (lambda: Mlp(hidden=(1,) * 10**6), "at most 1000"),
    "no activation of that name": (lambda: Mlp(activation="swish"), "silu"),
    "channels of no number": (lambda: LeNet(channels=(None,)), "channels to be a list"),
    "images too small": (lambda: LeNet()((1, 8, 8), 2), "images large enough"),
    "rows for convolutions": (lambda: ResNet18()((64,), 2), "one row has the shape (64,)"),
}


@pytest.mark.parametrize(("mistake", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(mistake, words):
    with pytest.raises(puma.ProjectError) as caught:
        mistake()
    text = str(caught.value)
    assert words in text
    assert text.startswith("expected ")
    assert len(text) < 400
