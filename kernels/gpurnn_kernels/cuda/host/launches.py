"""Launches: a record is handed over field by field, each number as the C type that the kernel takes."""

from collections.abc import Sequence
from typing import Any

from ..records import scalars
from .device import Kernel


def flattened(kernel: Kernel, given: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Returns the values of the kernel's first arguments, and the C types of all of them.

    Raises TypeError for a record that is not the kernel's.
    """
    values: list[Any] = []
    for kind, value in zip(kernel.signature, given, strict=False):
        record = getattr(kind, "instance_class", None)
        if record is None:
            values.append(value)
        elif type(value) is record:
            values += value
        else:
            raise TypeError(f"{kernel.name}: expected a {record.__name__}, got a {type(value).__name__}")
    return values, scalars(kernel.signature)
