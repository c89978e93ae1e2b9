"""A stand-in for a GPU: tensors that compute on the CPU and refuse to meet those of the CPU.

It answers to the device "meta", and finds what a GPU would refuse: tensors of two devices in one operation,
indices on the device into a tensor of the CPU, a generator of the CPU for random numbers on the device,
arrays taken without saying so. Where CUDA forgives (scalars, indices on the CPU, copies) so does it.
"""

from __future__ import annotations

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
COPIES = {"aten::_to_copy", "aten::copy_", "aten::copy"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class There(torch.Tensor):
    """A tensor that says it is on the device, around one of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        """Of the same size, strides and type."""
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), dtype=inner.dtype, device=DEVICE, **layout
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        """The operation, computed on the CPU."""
        return computed(operation, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """Sees the operations too that make tensors."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """The operation, computed on the CPU."""
        return computed(operation, args, kwargs or {})


def computed(operation, args, kwargs):
    name, tensors = operation._schema.name, [x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)]
    there = [x for x in tensors if isinstance(x, There)]
    here = [x for x in tensors if not isinstance(x, There) and x.ndim]
    forgiven = name in COPIES or (name in INDEXED and isinstance(args[0], There))
    if there and here and not forgiven:
        raise AssertionError(f"{name} met tensors of two devices: {[tuple(x.shape) for x in tensors]}")
    wanted = kwargs.get("device")
    result_there = bool(there) if wanted is None else torch.device(wanted) == DEVICE
    if name == "aten::copy_":
        result_there = isinstance(args[0], There)
    if result_there and kwargs.get("generator") is not None:
        raise AssertionError(f"{name} was given a generator of the CPU for random numbers on the device")
    if name == "aten::_efficientzerotensor":  # has no numbers, which is none of our business
        operation = torch.ops.aten.zeros.default
    kwargs = kwargs if wanted is None else {**kwargs, "device": CPU}
    args, kwargs = tree_map(lambda x: x.inner if isinstance(x, There) else x, (args, kwargs))
    known = {id(x.inner): x for x in there}  # what is changed in place stays the same tensor

    def placed(x):
        if not (result_there and torch.is_tensor(x)):
            return x
        return known[id(x)] if id(x) in known else There(x)

    return tree_map(placed, operation(*args, **kwargs))


@contextlib.contextmanager
def other_device():
    """Within it "meta" is a device that computes."""
    numpy, tolist = torch.Tensor.numpy, torch.Tensor.tolist

    def to_numpy(self, *, force=False):
        if not isinstance(self, There):
            return numpy(self, force=force)
        assert force, "numpy() of a tensor on the device"
        return numpy(self.detach().cpu(), force=True)

    def refused(self, *_, **__):
        raise AssertionError(
            "an array was made of a tensor, maybe one on the device, without numpy(force=True)"
        )

    def to_list(self):
        return tolist(self.detach().cpu()) if isinstance(self, There) else tolist(self)

    def made_then_moved(make):
        def call(data, *, device=None, **options):
            found = make(data, **options)
            return found if device is None else found.to(device)

        return call

    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    with (
        mock.patch.object(torch.Tensor, "numpy", to_numpy),
        mock.patch.object(torch.Tensor, "tolist", to_list),
        mock.patch.object(There, "__array__", refused, create=True),
        mock.patch.object(torch, "tensor", made_then_moved(torch.tensor)),
        mock.patch.object(torch, "as_tensor", made_then_moved(torch.as_tensor)),
        Dispatch(),
    ):
        try:
            yield str(DEVICE)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swap)
