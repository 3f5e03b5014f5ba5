"""The device that an array lies on."""

from typing import Any

from .device import Device


def device_of(array: Any) -> Device:
    """For a CuPy array its GPU; an array of another kind brings its `Device` as the attribute `home`."""
    home: Device | None = getattr(array, "home", None)
    if home is not None:
        return home
    from .cupy_device import gpu

    return gpu(array.device.id)
