"""The parameters of one direction of a layer, on a device."""

from ..spec import Array, Parameters, Spec
from .device import Device, DeviceArray

Weights = dict[str, DeviceArray]


def upload(device: Device, spec: Spec, parameters: Parameters) -> Weights:
    """"W_x" (G*H, I), "W_h" (G*H, H), "b" (G*H,) and, for a reset-after GRU, "b_hn" (H,), as they are; a layer without bias gets
    zeros, so that kernels need no second form."""
    sizes = {"b": spec.gates * spec.hidden_size}
    if spec.cell == "gru_after":
        sizes["b_hn"] = spec.hidden_size
    found = {name: device.upload(_contiguous(parameters[name])) for name in ("W_x", "W_h")}
    for name, size in sizes.items():
        array = parameters.get(name)
        found[name] = device.zeros((size,), spec.dtype) if array is None else device.upload(_contiguous(array))
    return found


def _contiguous(array: Array) -> Array:
    """Also of an array on a device, which NumPy's own function would refuse."""
    return array if array.flags.c_contiguous else array.copy()
