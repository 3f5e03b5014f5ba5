"""A clock for machine code. Its five int64 words are: the system's function, its first argument, the nanoseconds that the
first word written counts, and the two words that the function writes."""

import numpy as np

from ...spec import Array
from ..codegen.inline import called
from ..codegen.intrinsics import call2, load_word
from . import system

CLOCK_WORDS = 40  # bytes


@called
def clock(at):
    """Gives the nanoseconds of a clock that never goes back, from the words at an address. One thread at a time may call
    it."""
    call2(load_word(at), load_word(at + 8), at + 24)
    return load_word(at + 24) * load_word(at + 16) + load_word(at + 32)


def clock_words(at: int) -> Array:
    """Gives the words that `clock` needs at an address."""
    argument, unit = system.clock_argument(at + 24)
    return np.array([system.CLOCK, argument, unit, 0, 0], np.int64)
