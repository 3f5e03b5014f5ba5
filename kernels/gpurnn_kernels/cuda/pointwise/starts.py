# mypy: disable-error-code="no-untyped-def"
"""Where rows of a ragged batch start, in the backward pass of a GRU."""

from ..compiler import inlined


@inlined
def starts(t, length, last):
    """Tells whether a row's sequence starts at t; last: T - 1 of a reverse direction, else -1."""
    return t == max(min(length - 1, last), 0)
