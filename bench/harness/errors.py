"""Errors of a measurement. The text of each is one line for the reader of the report."""


class BenchError(Exception):
    """A wrong answer, a crash or a time-out of an implementation: reported as an error, and the exit status is 1."""


class Missing(Exception):
    """The implementation is not installed: left out of the run, and named in the report."""


class Unsupported(Exception):
    """The implementation cannot do this case (PyTorch has no reset-before GRU): its place in the table stays empty."""
