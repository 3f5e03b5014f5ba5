"""Checks of the public calls' arguments: errors tell what was expected and received, before anything is computed."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.ma import MaskedArray

from gpurnn_kernels.spec import REDUCED, Array

from .backend import HOST, Place, on_device, place_of

DTYPES = ("float16", "float32", "float64")


def size(name: str, value: Any, least: int = 1) -> int:
    """Gives an integer >= `least`."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """Gives True or False, NumPy's as Python's."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def number(name: str, value: Any) -> float:
    """Gives a finite number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return float(value)


def clip(name: str, value: Any) -> float | None:
    """Gives a positive number, or None."""
    if value is None:
        return None
    found = number(name, value)
    if found <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")
    return found


def dtype(name: str, value: Any) -> np.dtype[Any]:
    """Gives a dtype that layers have, as NumPy's own object: one that was unpickled is equal to it, and another."""
    if value is None:
        raise TypeError(f"{name}: expected one of {', '.join(DTYPES)}, got None")
    given = np.dtype(value)
    if given.name not in DTYPES or not given.isnative:
        raise ValueError(f"{name}: expected one of {', '.join(DTYPES)}, got {given}")
    own: np.dtype[Any] = np.dtype(given.type)
    return own


def precision(value: Any, dtype: np.dtype[Any]) -> str | None:
    """Gives None, "tf32", "bf16" or "int8"."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"precision: expected None or a string, got {type(value).__name__}")
    if value in ("f16", "float16"):
        raise NotImplementedError(f"precision {value!r} is not built yet")
    if value not in ("tf32", *REDUCED):
        raise ValueError(f"precision: expected None, 'tf32', {' or '.join(map(repr, REDUCED))}, got {value!r}")
    if dtype != np.float32:
        raise ValueError(f"precision {value!r}: expected dtype float32 with it, got {dtype.name}")
    return str(value)  # of a subclass, such as NumPy's, too


def asked(precision: Any, own: str | None) -> Any:
    """Gives the precision of a layer whose source has one of its `own`: that one for None, none at all for "float32"."""
    return own if precision is None else None if isinstance(precision, str) and precision == "float32" else precision


def array(name: str, value: Any, dtype: np.dtype[Any], place: Place | None = None) -> Array:
    """Gives an array of exactly `dtype`, NumPy's or on a device, on element boundaries; a NumPy array that lies off them is
    copied.

    place: the memory of the call's other arrays, where this one must be.
    """
    device = on_device(value)
    if not device and (not isinstance(value, np.ndarray) or isinstance(value, MaskedArray)):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"{name}: expected a NumPy array, got {kind}{_way_from(value)}")
    if value.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype.name}, got {value.dtype}; convert with .astype(numpy.{dtype.name})")
    if place is not None:
        beside(name, value, place)
    if device:
        return on_elements(name, value)
    # the plain array of a memmap or another subclass
    found: Array = value if type(value) is np.ndarray else np.asarray(value)
    return found if found.flags.aligned else found.copy()


def _way_from(value: Any) -> str:
    """Gives a hint at what makes a NumPy array of another library's."""
    if hasattr(value, "__dlpack__"):
        return "; numpy.from_dlpack(...) makes one without a copy"
    for method in ("to_numpy", "toarray"):  # pandas', polars', xarray's; SciPy's sparse ones
        if callable(getattr(value, method, None)):
            return f"; .{method}() makes one"
    return ""


def ready(value: Any, dtype: np.dtype[Any]) -> Array | None:
    """Gives the value as a plain array if it is NumPy's, of `dtype` and without gaps; else None."""
    if on_device(value) or not isinstance(value, np.ndarray) or isinstance(value, MaskedArray) or value.dtype != dtype:
        return None
    found: Array = np.asarray(value)
    flags = found.flags
    return found if flags.c_contiguous and flags.aligned else None


def runs_on(name: str, dtype: np.dtype[Any], place: Place) -> None:
    """Raises TypeError for float16 on the CPU, which has no arithmetic of its own for it."""
    if dtype == np.float16 and place.device is None:
        raise TypeError(f"{name}: expected a CuPy array, got a NumPy array: float16 layers run on CUDA only")


def beside(name: str, value: Any, place: Place, other: str = "x") -> None:
    """Raises TypeError for an array that lives elsewhere: nothing is copied between memories unasked."""
    found = place_of(value)
    if found != place:
        raise TypeError(f"{name}: expected {place} like {other}, got {found}")


def on_elements(name: str, value: Any) -> Array:
    """Gives a device's array if it lies on element boundaries: kernels there read nothing else."""
    if place_of(value).device.address(value) % value.itemsize or any(stride % value.itemsize for stride in value.strides):
        raise ValueError(f"{name}: expected an array on element boundaries on a device, got one that lies off them")
    found: Array = value
    return found


def shape(name: str, value: Array, expected: Sequence[int | None], letters: str) -> None:
    """Raises ValueError unless the value has the expected shape, in which None matches any size.

    letters: the names of the sizes, "T, B, I".
    """
    fits = value.ndim == len(expected) and all(
        want is None or want == got for want, got in zip(expected, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            letter.strip() if want is None else str(want) for want, letter in zip(expected, letters.split(","), strict=True)
        )
        comma = "," if len(expected) == 1 else ""
        raise ValueError(f"{name}: expected shape ({letters}) = ({wanted}{comma}), got {value.shape}")


def lengths(value: Any, batch: int, steps: int, place: Place = HOST) -> Array:
    """Gives integers (B,) in 0..T as int64. Those on a device stay there: they are not looked at, kernels clamp them."""
    if on_device(value):
        beside("lengths", value, place)
        found = value
    else:
        found = np.asarray(value)
    if found.size == 0 and found.shape == (0,):
        found = found.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {found.dtype}")
    if found.shape != (batch,):
        raise ValueError(f"lengths: expected shape (B,) = ({batch},), got {found.shape}")
    if on_device(value):
        if found.dtype == np.int64:
            return place.contiguous(found)
        converted = place.empty((batch,), np.dtype(np.int64))
        with place.current():
            converted[...] = found
        return converted
    if found.size and (found.min() < 0 or found.max() > steps):
        raise ValueError(f"lengths: expected integers in 0..{steps} (T), got {found.min()}..{found.max()}")
    found = np.ascontiguousarray(found, np.int64)
    return found if place.device is None else place.device.upload(found)
