"""Kernels that pack a matrix for the products: its rows into the lanes of vectors, or its columns, cut into panels.

`layout.py` has the orders. The source is a matrix (all gates * H, columns), row after row without gaps. It and the packed
array `to` do not overlap. Each kernel writes the pieces [panel_begin, panel_end) of its share alone, and leaves padding as it
is.
"""

from llvmlite import ir

from ..codegen.bundle import pointwise
from ..codegen.descriptors import V1
from ..codegen.elementwise import copy_element, copy_vector
from ..codegen.inline import inlined
from ..codegen.intrinsics import load_word, record
from ..codegen.vector import INT64, Vectors
from .amx.instructions import BLOCK, ROW
from .amx.strips import LANES, PAIRS, blocks_of, split_pair, strips_of


@pointwise
def transpose_square(v: Vectors, to: ir.Value, to_row: ir.Value, source: ir.Value, source_row: ir.Value) -> None:
    """Transposes a square of as many rows as a vector has lanes, one vector a row. source_row and to_row are bytes between
    rows."""
    b = v.builder
    rows = [v.load(b.add(source, b.mul(source_row, INT64(row)))) for row in range(v.lanes)]
    for column, value in enumerate(v.transposed(rows)):
        v.store(b.add(to, b.mul(to_row, INT64(column))), value)


def pack_forward(packing, share):
    """Packs vectors [panel_begin, panel_end) of the first `units` units: to[panel][k][vector][lane] = source[gate * H +
    unit, k], vectors by block of units, then by gate."""
    packing, share = record(packing), record(share)
    zero, item, lanes, depth, width = packing.zero, packing.item, packing.lanes, packing.columns, packing.width
    vectors = -(-packing.units // lanes) * packing.gates_n
    for vector in range(share.panel_begin, share.panel_end):
        block, index = vector // packing.gates_n, vector % packing.gates_n
        gate = load_word(packing.gates + 8 * index)
        first = vector // width * width
        row = min(width, vectors - first) * lanes
        count = min(lanes, packing.units - block * lanes)
        squares = depth // lanes * lanes if count == lanes and count * item == V1 else 0
        to = packing.to + (first * depth + vector - first) * lanes * item
        source = packing.source + (gate * packing.H + block * lanes) * depth * item
        for k in range(0, squares, lanes):
            transpose_square(zero, (to + k * row * item, row * item, source + k * item, depth * item))
        for k in range(squares, depth):
            for lane in range(count):
                copy_element(zero, (to + (k * row + lane) * item, source + (lane * depth + k) * item))


def pack_backward(packing, share):
    """Packs gates [panel_begin, panel_end), counted over all blocks of units: to[panel][block of units, gate,
    lane][vector][lane] = source[gate * H + unit]. Vectors and their lanes run over the columns, `width` vectors to a panel.
    Nothing is written for units past H and columns past the last one."""
    packing, share = record(packing), record(share)
    zero, item, lanes, columns = packing.zero, packing.item, packing.lanes, packing.columns
    vectors = -(-columns // lanes)
    depth = -(-packing.units // lanes) * packing.gates_n * lanes
    for turn in range(share.panel_begin, share.panel_end):
        block, index = turn // packing.gates_n, turn % packing.gates_n
        gate = load_word(packing.gates + 8 * index)
        # panel by panel: rows of many panels at once would fall on the same lines of the cache
        for first in range(0, vectors, packing.width):
            row = min(packing.width, vectors - first)
            for lane in range(min(lanes, packing.units - block * lanes)):
                source = packing.source + (gate * packing.H + block * lanes + lane) * columns * item
                to = packing.to + (first * depth + (turn * lanes + lane) * row) * lanes * item
                for vector in range(first, first + row):
                    at = vector * lanes
                    if lanes * item == V1 and at + lanes <= columns:
                        copy_vector(zero, (to + (at - first * lanes) * item, source + at * item))
                    else:
                        for column in range(at, min(at + lanes, columns)):
                            copy_element(zero, (to + (column - first * lanes) * item, source + column * item))


@inlined
def unit_row(packing, turn, lane):
    """Gives the address of the row of a unit and gate, counted in the order of k; 0 past the last one."""
    block, index = turn // packing.gates_n, turn % packing.gates_n
    unit = block * LANES + lane
    if unit >= packing.units:
        return 0
    return packing.source + (load_word(packing.gates + 8 * index) * packing.H + unit) * packing.columns * packing.item


def pack_strips(packing, share):
    """Packs blocks [panel_begin, panel_end) of all strips of the matrix's columns, for AMX (`amx/strips.py`). k runs over
    blocks of units, gates, lanes, with zeros for units past H."""
    packing, share = record(packing), record(share)
    strips, gates = strips_of(packing.columns), packing.gates_n
    blocks = blocks_of(-(-packing.units // LANES) * gates)
    for block in range(share.panel_begin, share.panel_end):
        for pair in range(PAIRS):
            one, other = unit_row(packing, 2 * block, pair), unit_row(packing, 2 * block + 1, pair)
            for strip in range(strips):
                at, remaining = strip * V1, packing.columns - strip * LANES
                to = packing.to + (strip * blocks + block) * BLOCK + pair * ROW
                split_pair(packing.zero, (to, one + at, remaining if one else 0, other + at, remaining if other else 0))
