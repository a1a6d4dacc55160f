"""A GPU that is not there: tensors that say they are on it, and compute shapes alone."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
VALUES = {torch.bool: True, torch.int64: 1, torch.int32: 1}
"""What a tensor without values is said to hold where a number is read of it; 0.5 where it holds fractions."""


class PretendedGPU(FakeTensorMode):
    """PyTorch's mode of fake tensors, in which also what depends on values goes on.

    A tensor on the CPU that meets one on the GPU is an error, as on a real one, and so is one of 64 bit fractions on
    the GPU, which those of Apple do not have. Numbers that are read of tensors are made up, and what a mask selects is
    all.

    Attributes:
        used: Every operator that has been computed on the GPU.
    """

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.used = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            known = args[0].constant
            return VALUES.get(args[0].dtype, 0.5) if known is None else known.item()
        if func is aten.equal.default:
            return True
        with self:
            if func in {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}:
                args = (args[0], _without_masks(args[1]), *args[2:])
            elif func is aten.nonzero.default:
                return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64, device=args[0].device)
            elif func is aten._unique2.default:
                counts = torch.zeros(1, dtype=torch.int64, device=args[0].device)
                return args[0].flatten()[:1], counts, counts
        found = super().__torch_dispatch__(func, types, args, kwargs or {})
        on_gpu = [value for value in tree_leaves(found) if isinstance(value, FakeTensor) and value.device == GPU]
        if on_gpu and func.namespace == "aten":
            self.used.add(func)
        if any(value.dtype == torch.float64 for value in on_gpu):
            msg = f"{func} gives float64 on the GPU, which MPS does not have."
            raise TypeError(msg)
        return found


def _without_masks(indices):
    """Numbers in place of masks, as many as a mask has entries."""
    numbers = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            numbers += [torch.zeros(index.numel(), dtype=torch.int64, device=index.device)] * index.ndim
        else:
            numbers.append(index)
    return numbers


@contextmanager
def pretended_gpu(*modules):
    """Meanwhile there is a GPU, modules are on it, and tensors have no values.

    Args:
        *modules: Modules, built before; they cannot be used afterwards.

    Yields:
        The mode.
    """
    mode = PretendedGPU()
    with (
        mode,
        patch("torch.cuda.is_bf16_supported", lambda **_: True),
        patch.object(FakeTensor, "numpy", _made_up, create=True),
        patch.object(FakeTensor, "tolist", lambda tensor: _made_up(tensor.cpu()).tolist(), create=True),
    ):
        for module in modules:
            for part in module.modules():
                if hasattr(part, "_device"):
                    part._device = GPU
                for name, value in part._parameters.items():
                    if value is not None:
                        fake = mode.from_tensor(value).to(GPU)
                        part._parameters[name] = torch.nn.Parameter(fake, value.requires_grad)
                for name, value in part._buffers.items():
                    if value is not None:
                        part._buffers[name] = mode.from_tensor(value).to(GPU)
        yield mode


def _made_up(tensor, **_):
    """An array in place of a tensor on the CPU."""
    if tensor.device.type != "cpu":
        msg = "can't convert cuda:0 device type tensor to numpy."
        raise TypeError(msg)
    ones_and_zeros = np.arange(tensor.numel()).reshape(tensor.shape) % 2
    return (ones_and_zeros * VALUES.get(tensor.dtype, 0.5)).astype(str(tensor.dtype).removeprefix("torch."))


def images(*shape, device=GPU):
    """Images in [0, 1], without values, on a device."""
    return torch.rand(shape, device=device)


def is_fake(tensor, device=GPU):
    """Whether a tensor has no values and is on a device."""
    return isinstance(tensor, FakeTensor) and tensor.device == device
