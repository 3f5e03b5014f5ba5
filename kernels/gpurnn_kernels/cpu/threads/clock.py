"""A clock for machine code. Its words: the system's function, its first argument, the nanoseconds that the first of the two
words counts which it writes, and these two words."""

import numpy as np

from ...spec import Array
from ..codegen.inline import called
from ..codegen.intrinsics import call2, load_word
from . import system

CLOCK_WORDS = 40  # bytes


@called
def clock(at):
    """Nanoseconds of a clock that never goes back, by the words at an address. For one thread at a time."""
    call2(load_word(at), load_word(at + 8), at + 24)
    return load_word(at + 24) * load_word(at + 16) + load_word(at + 32)


def clock_words(at: int) -> Array:
    """The words for `clock` at an address."""
    argument, unit = system.clock_argument(at + 24)
    return np.array([system.CLOCK, argument, unit, 0, 0], np.int64)
