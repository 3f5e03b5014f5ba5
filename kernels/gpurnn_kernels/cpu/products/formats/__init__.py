"""Formats: how products hold the numbers that they multiply. `format.py` says what a format is; each other file is one."""

from ....spec import Spec
from .bf16 import BF16
from .floats import FLOATS
from .format import Format as Format
from .int8 import INT8

FORMATS: dict[str, Format] = {one.name: one for one in (FLOATS, BF16, INT8)}


def format_of(spec: Spec) -> Format:
    """Gives the format of a layer's products: that of its precision; floats for None, and for "tf32", which rounds on GPUs
    alone."""
    return FLOATS if spec.precision in (None, "tf32") else FORMATS[spec.precision]
