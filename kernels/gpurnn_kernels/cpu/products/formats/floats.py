"""Numbers as they are: a word is a float of the element type."""

from .format import Format, Words

FLOATS = Format("float", numbers=1, words=Words)
