# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg, var-annotated"
"""The forward pass of a reset-before GRU: one launch for a direction of a layer, two grid barriers a step.

h of the last step to shared memory | W_r h | r * h | arrive | W_z h meanwhile | wait
r * h of all units to shared memory | W_n (r * h) | cells | y | arrive | prefetch W_x x | wait
"""

from functools import cache
from typing import Any

from ..compiler import cuda, inlined, types
from ..host.device import Kernel
from ..intrinsics.activations import ACCURATE, FAST
from ..intrinsics.elements import elements_of, store_float
from ..intrinsics.memory import afresh, load_shared, load_shared_int, split_index
from ..intrinsics.tile_weights import gate_rows
from ..intrinsics.traced import traced_activations, traced_cells
from .geometry import Geometry
from .pacing import TICKET_BYTES
from .parts import forward_pacing, make_parts

ADDRESS, SIZE = types.uint64, types.int64
SIGNATURE = (ADDRESS,) * 11 + (SIZE,) * 5


@cache
def forward_before_kernel(g: Geometry) -> Kernel:
    return Kernel(f"persistent_{g.cell}_forward", _forward(g), SIGNATURE, g.threads, 1, cooperative=g.blocks > 1)


def _sweeps(g: Geometry) -> Any:
    """-> loads of the weights of z, r, n to registers and the rest of them to shared memory, and their sweeps over a slice."""
    GROUPS, WIDTH, TURNS = g.groups, g.width, g.turns
    WARP_ROWS, SPAN, SPAN_WORDS, PITCH = g.tile.warp_rows, g.tile.span, g.tile.span_words, g.tile.pitch
    TURN_ROWS = g.tiles * g.tile.batch
    WARP_WEIGHTS, GATE_WEIGHTS, SPLIT_WORDS = g.tile.shared_words, g.warps * g.tile.shared_words, g.split_words
    SUMS, GATE_SUMS, IN_SHARED = g.layout.sums, g.splits * g.split_words, g.tile.shared_words > 0

    def of_gate(gate: int) -> tuple[Any, Any]:
        load_weights, fill_weights, sweep_tiles = g.tile_ops(gate_rows(g, range(gate, gate + 1)))

        @inlined
        def load(w, first):
            warp, lane = split_index(cuda.threadIdx.x, 32)
            split, group = split_index(warp, GROUPS)
            if IN_SHARED:
                word = gate * GATE_WEIGHTS + warp * WARP_WEIGHTS
                fill_weights(w, first, group * WARP_ROWS, split * SPAN, lane, word)
            return load_weights(w, first, group * WARP_ROWS, split * SPAN, lane)

        @inlined
        def sweep(weights, operand):
            warp, lane = split_index(afresh(cuda.threadIdx.x), 32)
            split, group = split_index(warp, GROUPS)
            sums = SUMS + gate * GATE_SUMS + split * SPLIT_WORDS + group * (WARP_ROWS * PITCH)
            word = gate * GATE_WEIGHTS + warp * WARP_WEIGHTS
            for turn in range(TURNS):
                here = operand + turn * (TURN_ROWS * WIDTH) + split * SPAN_WORDS
                sweep_tiles(weights, word, here, sums + turn * TURN_ROWS, lane)

        return load, sweep

    return [of_gate(gate) for gate in range(3)]


def _forward(g: Geometry) -> Any:
    H, U, G = g.hidden, g.units, g.gates
    BLOCKS, THREADS, ROWS, WIDTH, ALONE = g.blocks, g.threads, g.rows, g.width, g.blocks == 1
    H_AT, RESET, LENGTHS, PROJECTED = g.layout.h, g.layout.reset, g.layout.lengths, g.layout.projected
    Z_SUMS, GATE_SUMS = g.layout.sums, g.splits * g.split_words
    R_SUMS, N_SUMS = Z_SUMS + GATE_SUMS, Z_SUMS + 2 * GATE_SUMS
    (load_z, sweep_z), (load_r, sweep_r), (load_n, sweep_n) = _sweeps(g)
    pacing = forward_pacing(g)
    parts = make_parts(g, pacing)
    time, load_lengths, clear = pacing.time, pacing.load_lengths, pacing.clear
    await_fetches, arrive, wait = pacing.await_fetches, pacing.arrive, pacing.wait
    load_biases, pass_state, fetch_projection, fetch_h = (
        parts.load_biases,
        parts.pass_state,
        parts.fetch_projection,
        parts.fetch_h,
    )
    fetch_rows, product = parts.fetch_rows, parts.product
    elements = elements_of(g.operand.item)
    ITEM, store_element, load_h, store_h = g.operand.item, elements.store, elements.load_shared, elements.store_shared
    choice = FAST if g.fast_math else ACCURATE
    cells, activations = traced_cells(choice), traced_activations(choice)
    gru_reset, gru_update = cells.gru_reset, cells.gru_update
    sigmoid, tanh = activations.sigmoid, activations.tanh

    @inlined
    def pre_activation(sums, gate, unit, row):
        return load_shared(PROJECTED + (row * G + gate) * U + unit) + product(sums, 0, gate, unit, row)

    @inlined
    def reset_cells(s, base, rows, first, B, exchange, gates, saved):
        """r * h of the block's units, for the other blocks to read."""
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            length = load_shared_int(LENGTHS + row)
            if s < length and first + unit < H:
                r_ = pre_activation(R_SUMS, 1, unit, row)
                reset = gru_reset(r_, load_h(H_AT + row * WIDTH, first + unit))
                if ALONE:
                    store_h(RESET + row * WIDTH, unit, reset)
                else:
                    store_element(exchange + types.uint64(ITEM * ((base + row) * H + first + unit)), reset)
                if gates != 0:
                    at = time(s, length) * B + base + row
                    store_float(gates + types.uint64(4 * ((at * 3 + 1) * H + first + unit)), sigmoid(r_))
                    store_element(saved + types.uint64(ITEM * (at * H + first + unit)), reset)
            elif gates != 0 and first + unit < H:
                store_element(saved + types.uint64(ITEM * ((s * B + base + row) * H + first + unit)), types.float32(0))

    @inlined
    def update_cells(s, base, rows, first, B, y, y_step, y_row, h_n, gates):
        for i in range(afresh(cuda.threadIdx.x), rows * U, THREADS):
            row, unit = split_index(i, U)
            length = load_shared_int(LENGTHS + row)
            if s < length and first + unit < H:
                z_, n_ = pre_activation(Z_SUMS, 0, unit, row), pre_activation(N_SUMS, 2, unit, row)
                h = gru_update(z_, n_, load_h(H_AT + row * WIDTH, first + unit))
                t = time(s, length)
                store_element(y + types.uint64(t * y_step + (base + row) * y_row + ITEM * (first + unit)), h)
                if s == length - 1:
                    store_element(h_n + types.uint64(ITEM * ((base + row) * H + first + unit)), h)
                if ALONE:
                    store_h(H_AT + row * WIDTH, first + unit, h)
                if gates != 0:
                    to = gates + types.uint64(4 * ((t * B + base + row) * 3 * H + first + unit))
                    store_float(to, sigmoid(z_))
                    store_float(to + types.uint64(8 * H), tanh(n_))

    def kernel(xp, w, b, h0, y, h_n, lengths, gates, saved, exchange, tickets, T, B, y_step, y_row, slice_rows):
        first = cuda.blockIdx.y * U
        base = cuda.blockIdx.x * slice_rows
        rows = max(min(slice_rows, B - base), 0)
        ticket = tickets + types.uint64(cuda.blockIdx.x * TICKET_BYTES)

        z_weights, r_weights, n_weights = load_z(w, first), load_r(w, first), load_n(w, first)
        clear(H_AT, ROWS * WIDTH)
        clear(RESET, ROWS * WIDTH)
        load_lengths(lengths, T, base, rows)
        load_biases(b, 0, first)
        cuda.syncthreads()
        pass_state(h0, h_n, base, rows, first, -1)
        fetch_projection(0, xp, B, base, rows, first)
        if ALONE:
            fetch_h(0, h0, y, base, rows, y_step, y_row)

        for s in range(T):
            if not ALONE:
                fetch_h(s, h0, y, base, rows, y_step, y_row)
            await_fetches()
            cuda.syncthreads()
            sweep_r(r_weights, H_AT)
            cuda.syncthreads()
            reset_cells(s, base, rows, first, B, exchange, gates, saved)
            arrive(ticket)
            sweep_z(z_weights, H_AT)
            wait(ticket, (2 * s + 1) * BLOCKS)
            if not ALONE:
                fetch_rows(RESET, s, exchange + types.uint64(ITEM * H * base), rows)
                await_fetches()
                cuda.syncthreads()
            sweep_n(n_weights, RESET)
            cuda.syncthreads()
            update_cells(s, base, rows, first, B, y, y_step, y_row, h_n, gates)
            if s + 1 < T:
                arrive(ticket)
                fetch_projection(s + 1, xp, B, base, rows, first)
                wait(ticket, (2 * s + 2) * BLOCKS)

    return kernel
