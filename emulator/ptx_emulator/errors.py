"""Errors of an emulated launch."""


class PTXError(Exception):
    """A launch that a GPU would refuse, abort or hang in, or PTX that is not known here."""


class UnknownPTX(PTXError):
    """An opcode, modifier or operand that nobody has taught this interpreter: never guessed."""
