"""Plain networks from names and shapes alone: the same outputs as the network that was saved."""

import itertools
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import puma_dash as puma
from puma_dash.core.loaders.convolutions import WHOLE, Convolution, Reading, solve

from .makers import IMAGES, ROWS, assert_same, convolutional, randomised, read, saved

SUFFIXES = (".safetensors", ".pt")


def flat(*layers) -> nn.Sequential:
    """A network of the layers, with numbers of its own choice."""
    torch.manual_seed(0)
    return randomised(nn.Sequential(*layers))


def split(features, classifier) -> nn.Module:
    """A network in two parts, as many are written."""
    torch.manual_seed(0)

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

        def forward(self, x):
            return self.classifier(self.features(x).flatten(1))

    return randomised(Split())


TOLD_BY_NAMES = {
    "convolutions": (convolutional, IMAGES),
    "in two parts": (
        lambda: split(
            [
                *(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            ],
            [nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3)],
        ),
        IMAGES,
    ),
    "the first layers of a VGG": (
        lambda: flat(
            *(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()),
            *(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        ),
        IMAGES,
    ),
    "strides and no pooling": (
        lambda: flat(
            *(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, stride=2, padding=1)),
            *(nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)),
        ),
        IMAGES,
    ),
    "a channel at a time": (
        lambda: flat(
            *(nn.Conv2d(2, 4, 3, groups=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)),
        ),
        IMAGES.repeat(1, 2, 1, 1),
    ),
    "batch norm behind the activation": (
        lambda: flat(
            *(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(2), nn.MaxPool2d(2)),
            *(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
        ),
        IMAGES,
    ),
    "no activation": (lambda: flat(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), ROWS),
    "no bias": (lambda: flat(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)), ROWS),
    "logistic": (lambda: flat(nn.Linear(3, 3)), ROWS),
    "a bare layer": (lambda: flat(nn.Linear(3, 3))[0], ROWS),
    "batch norm first": (lambda: flat(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)), ROWS),
    "batch norm between": (
        lambda: flat(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 3)),
        ROWS,
    ),
    "batch norm last": (
        lambda: flat(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3)),
        ROWS,
    ),
    "dropout": (
        lambda: flat(nn.Dropout(), nn.Linear(3, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3)),
        ROWS,
    ),
    "images for linear layers": (
        lambda: flat(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3)),
        IMAGES,
    ),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("make", "inputs"), TOLD_BY_NAMES.values(), ids=TOLD_BY_NAMES)
def test_told_by_names_and_shapes(make, inputs, suffix, tmp_path):
    model = make()
    assert_same(read(saved(model.state_dict(), tmp_path / f"m{suffix}"), inputs).model, model, inputs)


class Listed(nn.Module):
    """Layers in a list, whose numbers tell nothing of what lies between them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 3)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_list_of_layers(suffix, tmp_path):
    torch.manual_seed(0)
    model = Listed().eval()
    assert_same(read(saved(model.state_dict(), tmp_path / f"m{suffix}")).model, model, ROWS)


class Example(nn.Module):
    """Two convolutions, one pooling, as in PyTorch's own first example."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
        self.fc1, self.fc2 = nn.Linear(48, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.max_pool2d(self.conv2(self.conv1(x).relu()).relu(), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_solved_where_names_do_not_tell(suffix, tmp_path):
    """12 - 10 - 8, pooled to 4: nothing else leaves 4 x 4 pixels."""
    torch.manual_seed(0)
    model, images = Example().eval(), torch.randn(4, 1, 12, 12)
    assert_same(read(saved(model.state_dict(), tmp_path / f"m{suffix}"), images).model, model, images)


OPTIONS = {
    "activation": ({"activation": "tanh"}, nn.Tanh, nn.MaxPool2d(2)),
    "average": ({"pooling": "average"}, nn.ReLU, nn.AvgPool2d(2)),
    "whole image": ({"pool": 0, "padding": 1, "stride": 1}, nn.ReLU, nn.AdaptiveAvgPool2d(1)),
    "padding": ({"padding": 2}, nn.ReLU, nn.MaxPool2d(2)),
    "larger pooling": ({"pool": 3, "padding": 1}, nn.ReLU, nn.MaxPool2d(3)),
}


@pytest.mark.parametrize(("options", "activation", "pooling"), OPTIONS.values(), ids=OPTIONS)
def test_what_shapes_cannot_tell_is_set(options, activation, pooling, tmp_path):
    convolution = nn.Conv2d(1, 2, 3, padding=options.get("padding", 1))
    features = nn.Sequential(convolution, activation(), pooling, nn.Flatten())
    model = flat(*features, nn.Linear(features(IMAGES).shape[1], 4), activation(), nn.Linear(4, 3))
    path = saved(model.state_dict(), tmp_path / "m.safetensors")
    assert_same(read(path, IMAGES, **options).model, model, IMAGES)


def test_several_readings_are_told_and_each_can_be_chosen(tmp_path):
    """5 x 5 kernels on 32 x 32 images, by pooling or by strides of 2: the same shapes (as in LeNet-5)."""
    torch.manual_seed(0)
    images = torch.randn(4, 1, 32, 32)

    class Bare(Example):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(400, 5)

        def forward(self, x):
            for layer in (self.conv1, self.conv2):
                x = torch.max_pool2d(layer(x).relu(), 2)
            return self.fc2(self.fc1(x.flatten(1)).relu())

    model = Bare().eval()
    path = saved(model.state_dict(), tmp_path / "m.pt")
    with pytest.raises(puma.ProjectError) as caught:
        read(path, images)
    assert "padding = 0, stride = 1, pool = 2" in str(caught.value)
    assert "padding = 0, stride = 2, pool = 1" in str(caught.value)
    assert_same(read(path, images, padding=0, stride=1, pool=2).model, model, images)
    assert not torch.equal(read(path, images, padding=0, stride=2, pool=1).model(images), model(images))


SIDES = st.integers(1, 3)
LAYERS = st.lists(
    st.fixed_dictionaries(
        {
            "channels": SIDES,
            "kernel": SIDES,
            "padding": st.integers(0, 1),
            "stride": st.integers(1, 2),
            "norm": st.booleans(),
            "pool": st.integers(1, 2),
        }
    ),
    max_size=3,
)


def drawn(layers, widths, bias) -> nn.Sequential:
    """The network of the layers drawn; the last widths are those of its linear layers."""
    before, modules = 1, []
    for layer in layers:
        after = layer["channels"]
        modules += [nn.Conv2d(before, after, layer["kernel"], layer["stride"], layer["padding"], bias=bias)]
        modules += [nn.BatchNorm2d(after)] if layer["norm"] else []
        modules += [nn.ReLU()] + ([nn.MaxPool2d(layer["pool"])] if layer["pool"] > 1 else [])
        before = after
    modules.append(nn.Flatten())
    entering = nn.Sequential(*modules).eval()(IMAGES).shape[1]
    for width, following in itertools.pairwise([entering, *widths, 3]):
        modules += [nn.Linear(width, following, bias=bias), nn.ReLU()]
    return randomised(nn.Sequential(*modules[:-1]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LAYERS, st.lists(SIDES, max_size=2), st.booleans(), st.sampled_from(SUFFIXES), st.booleans())
def test_any_plain_network(layers, widths, bias, suffix, told):
    """With its numbers told it comes back; without, it comes back or the question is asked."""
    try:
        model = drawn(layers, widths, bias)
    except (RuntimeError, ValueError):  # nothing left of the image
        return
    numbers = {name: [layer[name] for layer in layers] for name in ("padding", "stride", "pool")}
    with tempfile.TemporaryDirectory() as folder:
        path = saved(model.state_dict(), Path(folder) / f"m{suffix}")
        if told or not layers:
            assert_same(read(path, IMAGES, **(numbers if layers else {})).model, model, IMAGES)
            return
        try:
            loaded = read(path, IMAGES)
        except puma.ProjectError as error:
            answer = str(error)
        else:
            shapes = [tuple(value.shape) for value in model.state_dict().values()]
            assert [tuple(value.shape) for value in loaded.model.state_dict().values()] == shapes
            return
    assert "readings fit" in answer or "no usual" in answer


KERNELS = st.tuples(st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(KERNELS, st.sampled_from([True, False, None])), min_size=1, max_size=4),
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.sampled_from(["none", "same"]),
    st.integers(1, 2),
    st.data(),
)
def test_the_reading_that_was_is_found_or_among_those_told(layers, sides, padding, stride, data):
    convolutions = [Convolution(*layer) for layer in layers]
    count = len(layers)
    padded = tuple((min(k) - 1) // 2 if padding == "same" else 0 for k, _ in layers)
    pools = [{True: 2, False: 1}.get(p) or data.draw(st.sampled_from([1, 2])) for _, p in layers]
    if layers[-1][1] is not False and data.draw(st.booleans()):
        pools[-1] = WHOLE
    truth = Reading(padded, (stride,) * count, tuple(pools))
    left = truth.places(convolutions, sides)
    if not left:
        return
    try:
        found = solve(convolutions, sides, left)
    except puma.ProjectError as error:
        answer = str(error)
    else:
        assert found.places(convolutions, sides) == left
        assert found == truth or pools[-1] == WHOLE
        return
    assert "readings fit" in answer
    assert f"{truth};" in answer or " more;" in answer or pools[-1] == WHOLE
