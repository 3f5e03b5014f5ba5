"""Numbers as they are: a packet is a float of the element type."""

from .format import Format, Packets

FLOATS = Format("float", numbers=1, packets=Packets)
