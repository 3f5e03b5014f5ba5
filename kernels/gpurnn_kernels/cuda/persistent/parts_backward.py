# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The parts of both backward kernels around their cells, as functions that Numba inlines."""

from typing import Any, NamedTuple

from ..compiler import cuda, inlined, types
from ..intrinsics.elements import load_float, store_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index, store_shared
from ..intrinsics.tile import make_tile
from ..intrinsics.tile_weights import gate_columns
from .geometry_backward import BackwardGeometry
from .pacing import Pacing


class Product(NamedTuple):
    load: Any  # W_h, first unit -> the weights in registers; the others go to shared memory
    sweep: Any  # weights: the operand times them, to the sums


class BackwardParts(NamedTuple):
    """Device functions; a: the kernel's record, base: the slice's first row, first: the block's first unit."""

    fetch_inputs: Any  # a, step, base, rows, first
    publish: Any  # exchange, parity: the sums to the blocks that own them
    gather: Any  # exchange, parity: the shares of this block's units, over the sums
    arrived: Any  # local unit, local row -> the sum of the shares, in a fixed order
    pass_gradient: Any  # from, to, base, rows, first: of rows of length 0
    given: Any  # which input, local unit, local row -> it


def make_product(g: BackwardGeometry, which: int) -> Product:
    tile = g.products[which]
    OPERAND = g.layout.operand + g.rows * sum(earlier.stride for earlier in g.products[:which])
    SUMS, WARP_ROWS, PITCH, STRIDE = g.layout.shares, tile.warp_rows, tile.pitch, tile.stride
    TURNS, TURN_ROWS = g.turns, g.tiles * tile.batch
    WEIGHTS = g.layout.weights + g.warps * sum(earlier.shared_words for earlier in g.products[:which])
    WARP_WEIGHTS, IN_SHARED = tile.shared_words, tile.shared_words > 0
    load_weights, fill_weights, sweep_tiles = make_tile(tile, g.tiles, gate_columns(g.hidden, g.units, g.product_gates[which]))

    @inlined
    def load(w, first):
        warp, lane = split_index(cuda.threadIdx.x, 32)
        if IN_SHARED:
            fill_weights(w, first, warp * WARP_ROWS, 0, lane, WEIGHTS + warp * WARP_WEIGHTS)
            cuda.syncthreads()  # the compiler, if it mixed the two loads, would run out of registers
        return load_weights(w, first, warp * WARP_ROWS, 0, lane)

    @inlined
    def sweep(weights):
        warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
        for turn in range(TURNS):
            operand, sums = OPERAND + turn * (TURN_ROWS * STRIDE), SUMS + warp * (WARP_ROWS * PITCH) + turn * TURN_ROWS
            sweep_tiles(weights, WEIGHTS + warp * WARP_WEIGHTS, operand, sums, lane)

    return Product(load, sweep)


def make_backward_parts(g: BackwardGeometry, pacing: Pacing) -> BackwardParts:
    H, U, G, NUM_INPUTS = g.hidden, g.units, g.num_gates, g.num_inputs
    EXTRA, DY = G, G + 2
    BLOCKS, THREADS, SHARE, PITCH, ALONE = g.blocks, g.threads, g.share, g.products[0].pitch, g.alone
    SHARES, INPUTS, LENGTHS = g.layout.shares, g.layout.inputs, g.layout.lengths
    HAS_EXTRA = not g.resets_before
    time, fetch_word, fetch_quad = pacing.time, pacing.fetch_word, pacing.fetch_quad

    @inlined
    def fetch_inputs(a, step, base, rows, first):
        for i in range(afresh(cuda.threadIdx.x), rows * (NUM_INPUTS * U), THREADS):
            pair, local = split_index(i, U)
            row, item = split_index(pair, NUM_INPUTS)
            unit, length = first + local, load_shared_int(LENGTHS + row)
            if step < length and unit < H:
                t = time(step, length)
                at = t * a.B + base + row
                if item < G:
                    fetch_word(INPUTS + i, a.gates + types.uint64(4 * ((at * G + item) * H + unit)))
                elif item == EXTRA:
                    if HAS_EXTRA:
                        fetch_word(INPUTS + i, a.extra + types.uint64(4 * (at * H + unit)))
                elif item == DY:
                    if a.dy != 0:
                        fetch_word(INPUTS + i, a.dy + types.uint64(t * a.dy_step + (base + row) * a.dy_row + 4 * unit))
                    else:
                        store_shared(INPUTS + i, types.float32(0))
                elif step > 0:
                    at_prev = time(step - 1, length) * a.prev_step + (base + row) * a.prev_row + 4 * unit
                    fetch_word(INPUTS + i, a.prev + types.uint64(at_prev))
                else:
                    fetch_word(INPUTS + i, a.prev0 + types.uint64(4 * ((base + row) * H + unit)))

    @inlined
    def buffer(exchange, parity, owner):
        """Shares for a block: (blocks, rows, units) of (parity, slices, blocks)."""
        place = (types.int64(parity) * cuda.gridDim.x + cuda.blockIdx.x) * BLOCKS + owner
        return exchange + types.uint64(4 * BLOCKS * SHARE * place)

    @inlined
    def publish(exchange, parity):
        if not ALONE:
            for i in range(afresh(cuda.threadIdx.x), BLOCKS * SHARE, THREADS):
                owner, at = split_index(i, SHARE)
                row, local = split_index(at, U)
                column = owner * U + local
                value = types.float32(0)
                if column < H:
                    value = load_shared(SHARES + column * PITCH + row)
                store_float(buffer(exchange, parity, owner) + types.uint64(4 * (cuda.blockIdx.y * SHARE + at)), value)

    @inlined
    def gather(exchange, parity):
        if not ALONE:
            source = buffer(exchange, parity, cuda.blockIdx.y)
            for i in range(4 * afresh(cuda.threadIdx.x), BLOCKS * SHARE, 4 * THREADS):
                fetch_quad(SHARES + i, source + types.uint64(4 * i))

    @inlined
    def arrived(unit, row):
        if ALONE:
            return load_shared(SHARES + unit * PITCH + row)
        total = types.float32(0)
        for block in range(BLOCKS):
            total += load_shared(SHARES + block * SHARE + row * U + unit)
        return total

    @inlined
    def pass_gradient(given, to, base, rows, first):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, local = split_index(i, U)
            if load_shared_int(LENGTHS + row) == 0 and first + local < H:
                at = types.uint64(4 * ((base + row) * H + first + local))
                store_float(to + at, load_float(given + at))

    @inlined
    def given(item, unit, row):
        return load_shared(INPUTS + (row * NUM_INPUTS + item) * U + unit)

    return BackwardParts(fetch_inputs, publish, gather, arrived, pass_gradient, given)
