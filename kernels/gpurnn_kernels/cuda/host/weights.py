"""The parameters of one direction of a layer, on a device."""

from dataclasses import dataclass

import numpy as np

from ...spec import Array, Parameters, Spec
from .device import Device, DeviceArray


@dataclass(frozen=True)
class Weights:
    """Holds the parameters as they are; a layer without bias has zeros, so that kernels need no second form."""

    W_x: DeviceArray  # (G*H, I)
    W_h: DeviceArray  # (G*H, H)
    b: DeviceArray  # (G*H,), as wide as computed in
    pointwise_b: DeviceArray  # (G*H,): b; with fast_math, half of it for sigma's gates, as pointwise kernels take it
    b_hn: DeviceArray  # (H,); used by a reset-after GRU


def upload(device: Device, spec: Spec, parameters: Parameters) -> Weights:
    """Copies that calls on every stream may read."""

    def bias(name: str, size: int) -> Array:
        wide = np.dtype(np.float32) if spec.dtype == np.float16 else spec.dtype
        array = parameters.get(name)
        return np.zeros(size, wide) if array is None else array.astype(wide)

    given = bias("b", spec.gates * spec.hidden_size)
    arrays = [parameters["W_x"], parameters["W_h"], bias("b_hn", spec.hidden_size), given]
    if spec.fast_math and spec.dtype != np.float64:
        halved = given.copy()
        halved[: (spec.gates - 1) * spec.hidden_size] *= 0.5  # all gates but the last
        arrays.append(halved)
    W_x, W_h, b_hn, b, *rest = device.publish(*arrays)
    return Weights(W_x, W_h, b, rest[0] if rest else b, b_hn)
