"""The microkernel of every matrix product of the CPU backend: register tiles of rows x vectors, emitted as LLVM code.

    out[m, p, :] = init[m, p, :] + sum over k of a[m, k] * w[p, k, :]        m < rows, p < panels, k < depth

The contract, with all addresses and strides in bytes:
    a       packet (m, k) at a + m * a_row + k * size, where `size` is the format's row_packet, or else itemsize; transposed
            (floats alone), element (m, k) at a + m * itemsize + k * a_row
    w       panel p at w + p * w_panel: its head, then `vectors` whole vectors a k, one k after the other, without gaps
    init    vectors of (m, p) side by side at init + m * init_row + p * init_panel; a stride may be 0
    out     vectors of (m, p) side by side at out + m * out_row + p * out_panel
A packet holds an element, or several numbers of a format (`formats/`), and k counts packets. Addresses are aligned to an
element; vectors that cross no cache line are faster. All lanes are read and written: who calls pads rows, and zeros the lanes
of w that hold nothing. `init` may be `out`, at the same strides; `out` may overlap nothing else. With no rows or no panels
nothing is read or written; with no depth out = init.

Every output element runs over k in one order, in every tile: its bits do not depend on the rows beside it. That makes results
independent of batch size, threads and streaming. k is cut into at most four segments, by depth alone. Each has a sum
of its own, which is added to `init`, segment after segment: one long sum of many inputs would round more coarsely.

A tile of sums stays in registers. For each k, the smaller side of the tile is loaded first and kept, the larger one streams
through one register: 6 x 4 sums + 4 weights + 1 broadcast of 32 registers, 6 x 2 + 2 + 1 of 16. A few rows of one panel are
too few sums to hide the latency of a multiply-add: they take several panels at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...spec import Array
from ..codegen.compile import kernel_address
from ..codegen.inline import inlined, intrinsic, named
from ..codegen.intrinsics import call_with, load_word
from ..codegen.target import LINE, target
from ..codegen.vector import INT32, INT64, Vector, Vectors
from .formats import FORMATS, Format
from .formats.format import Packets, Sums

_ARGUMENTS = (
    *("rows", "a", "a_row", "panels", "w", "w_panel", "depth"),
    *("init", "init_row", "init_panel", "out", "out_row", "out_panel"),
)
# depth of a segment, at least where there is more than one; segments, at most
_SEGMENT, _SEGMENTS = 256, 4
_UNROLLED = 4  # k in a turn of the loop of a tile of few sums


@inlined
def multiply(job, vectors, rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel):
    """Multiplies by panels of `vectors` vectors, 1 to 4. The module's docstring has the contract; `a`'s elements of a row
    lie side by side."""
    words = (rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel)
    call_with(load_word(job.tiles + 8 * vectors), job.zero, words)


@inlined
def multiply_in_turn(
    job, vectors, rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel, descending
):
    """Multiplies like `multiply`; where `descending` is not 0, the last panel comes first."""
    if descending:
        w += (panels - 1) * w_panel
        init += (panels - 1) * init_panel
        out += (panels - 1) * out_panel
        w_panel, init_panel, out_panel = -w_panel, -init_panel, -out_panel
    multiply(job, vectors, rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel)


@inlined
def multiply_transposed(
    job, vectors, rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel
):
    """Multiplies like `multiply`, but a's rows lie side by side, and a_row bytes lie between its columns (k)."""
    words = (rows, a, a_row, panels, w, w_panel, depth, init, init_row, init_panel, out, out_row, out_panel)
    call_with(load_word(job.tiles_transposed + 8 * vectors), job.zero, words)


@cache
def _kernel(form: "_Form") -> Any:
    """Makes the kernel behind `multiply`."""

    @intrinsic
    def emitted(context: Any, zero: Any, words: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            pointer = builder.inttoptr(values[1], INT64.as_pointer())
            given = {name: builder.load(builder.gep(pointer, [INT64(k)])) for k, name in enumerate(_ARGUMENTS)}
            _emit_panels_loop(builder, signature.args[0], form, given)
            return context.get_dummy_value()

        return types.void(zero, words), code

    def tile(zero, words):
        emitted(zero, words)

    return named(form.name, tile)


@dataclass(frozen=True)
class _Form:
    """The form of a kernel."""

    width: int  # vectors of its panels
    format: Format
    transposed: bool = False  # how `a` lies
    prefetch: bool = False  # the next panel is fetched from memory while the first rows multiply by this one

    @property
    def name(self) -> str:
        name = f"_{self.format.name}" if self.format.reduced else ""
        return f"tile{name}{'_transposed' * self.transposed}{'_prefetch' * self.prefetch}_{self.width}"


WIDTHS = (1, 2, 3, 4)


def tiles(format: str, *, transposed: bool = False, prefetch: bool = False) -> dict[int, Any]:
    """Gives the kernels of a format by their panels' width."""
    return {width: _kernel(_Form(width, FORMATS[format], transposed, prefetch)) for width in WIDTHS}


@cache
def table(
    element: str,
    format: str = "float",
    widths: Sequence[int] = WIDTHS,
    *,
    transposed: bool = False,
    prefetch: bool = False,
) -> Array:
    """Gives the addresses of the kernels, indexed by their panels' width, for a job's `tiles` and `tiles_transposed`. widths:
    those that the job has; no other is compiled."""
    kernels = tiles(format, transposed=transposed, prefetch=prefetch)
    found = np.zeros(1 + max(kernels), np.int64)
    for width in widths:
        found[width] = kernel_address(kernels[width], element)
    return found


def _emit_panels_loop(builder: ir.IRBuilder, element: types.Float, form: _Form, given: dict[str, ir.Value]) -> None:
    """Emits the loop over panels: panel after panel or, for a few rows, groups of panels and then the remaining ones."""
    together = INT64(1)
    for rows, panels in target().tile_groups(form.width, form.format.split).items():
        together = builder.select(builder.icmp_signed("==", given["rows"], INT64(rows)), INT64(panels), together)
    given = given | {"segment": given["depth"] if form.format.exact else _segment(builder, given["depth"])}
    entry = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("panels", "some", "none"))
    builder.branch(head)

    builder.position_at_end(head)
    moving = {name: builder.phi(INT64) for name in ("panels", "w", "init", "out")}
    for name, phi in moving.items():
        phi.add_incoming(given[name], entry)
    builder.cbranch(builder.icmp_signed(">", moving["panels"], INT64(0)), body, done)

    builder.position_at_end(body)
    count = builder.select(builder.icmp_signed("<", moving["panels"], together), moving["panels"], together)
    _emit_rows_loop(builder, element, form, given | moving, count)
    moving["panels"].add_incoming(builder.sub(moving["panels"], count), builder.block)
    steps = {name: builder.mul(count, given[f"{name}_panel"]) for name in ("w", "init", "out")}
    for name, step in steps.items():
        moving[name].add_incoming(builder.add(moving[name], step), builder.block)
    builder.branch(head)
    builder.position_at_end(done)


def _emit_rows_loop(
    builder: ir.IRBuilder, element: types.Float, form: _Form, given: dict[str, ir.Value], count: ir.Value
) -> None:
    """Emits the loop over the rows of `count` panels. It cuts them into as few tiles as can be, of about equal heights: low
    tiles are the slower ones. Where `count` is more than 1, one tile has all rows."""
    width, split = form.width, form.format.split
    limit, groups = target().tile_rows(width, split), target().tile_groups(width, split)
    before = builder.block
    head, pick, done = (builder.append_basic_block(name) for name in ("rows", "pick", "done"))
    builder.branch(head)

    builder.position_at_end(head)
    moving = {name: builder.phi(INT64) for name in ("rows", "a", "init", "out")}
    for name, phi in moving.items():
        phi.add_incoming(given[name], before)
    remaining = moving["rows"]
    builder.cbranch(builder.icmp_signed(">", remaining, INT64(0)), pick, done)

    builder.position_at_end(pick)
    tiles = builder.udiv(builder.add(remaining, INT64(limit - 1)), INT64(limit))
    height = builder.udiv(builder.sub(builder.add(remaining, tiles), INT64(1)), tiles)
    most = max(groups.values(), default=1)
    shapes = [(rows, panels) for rows in range(1, limit + 1) for panels in range(1, groups.get(rows, 1) + 1)]
    cases = {(panels - 1) * limit + rows: _Tile(rows, panels, form) for rows, panels in shapes}
    tile = builder.add(builder.mul(builder.sub(count, INT64(1)), INT64(limit)), height)
    if form.prefetch:
        fetching = most * limit
        # a few rows, which take several panels at once, are slower with it
        cases |= {key + fetching: replace(case, fetches=True) for key, case in cases.items() if case.panels == 1}
        first, alone = builder.icmp_signed("==", remaining, given["rows"]), builder.icmp_signed("==", count, INT64(1))
        tile = builder.select(builder.and_(first, alone), builder.add(tile, INT64(fetching)), tile)
    blocks = {key: builder.append_basic_block("tile") for key in cases}
    switch = builder.switch(tile, blocks[limit])
    for key, block in blocks.items():
        if key != limit:
            switch.add_case(INT64(key), block)

    for key, case in cases.items():
        builder.position_at_end(blocks[key])
        v = form.format.packets(builder, element)
        case.emit(v, given | moving)
        moving["rows"].add_incoming(builder.sub(remaining, INT64(case.rows)), builder.block)
        steps = {name: builder.mul(given[f"{name}_row"], INT64(case.rows)) for name in ("a", "init", "out")}
        if form.transposed:
            steps["a"] = INT64(case.rows * v.itemsize)
        for name, step in steps.items():
            moving[name].add_incoming(builder.add(moving[name], step), builder.block)
        builder.branch(head)
    builder.position_at_end(done)


@dataclass(frozen=True)
class _Tile:
    """One register tile."""

    rows: int
    panels: int
    form: _Form
    fetches: bool = False  # weights that will be taken later

    def emit(self, v: Packets, given: dict[str, ir.Value]) -> None:
        builder, transposed = v.builder, self.form.transposed
        cells = [(m, p, u) for m in range(self.rows) for p in range(self.panels) for u in range(self.form.width)]
        a_row = INT64(v.itemsize) if transposed else given["a_row"]
        a_rows = _multiples(builder, a_row, self.rows)
        w_panels = [builder.mul(given["w_panel"], INT64(p)) for p in range(self.panels)]

        def step(a: ir.Value, w: ir.Value, sums: Sums) -> Sums:
            panels = [builder.add(w, panel) for panel in w_panels]
            if self.fetches:
                for panel in panels:
                    _emit_fetch(v, builder.add(panel, given["w_panel"]), self.form.width * v.size)
            return self._step(v, [builder.add(a, row) for row in a_rows], panels, sums)

        before = builder.block
        segment, after = (builder.append_basic_block(name) for name in ("segment", "joined"))
        builder.branch(segment)
        builder.position_at_end(segment)
        moving = {name: builder.phi(INT64) for name in ("depth", "a", "w", "init", "init_row", "init_panel")}
        for name, phi in moving.items():
            phi.add_incoming(given[name], before)
        now = given | moving
        depth, a, w = now["depth"], now["a"], now["w"]
        rows, heads = [builder.add(a, row) for row in a_rows], [builder.add(w, panel) for panel in w_panels]
        w = v.at(w, self.form.format.head * self.form.width * v.size)
        count = builder.select(builder.icmp_signed("<", depth, given["segment"]), depth, given["segment"])
        a_step = given["a_row"] if transposed else INT64(self.form.format.row_packet or v.itemsize)
        # of few sums, a turn of the loop would have about as much to do for the loop itself
        unroll = _UNROLLED if len(cells) <= 16 else 1
        several = builder.and_(count, INT64(-unroll))
        sums: Sums = {(m, p, u): v.start(heads[p], self.form.width, u) for m, p, u in cells}
        for turns, turn in ((several, unroll), (builder.sub(count, several), 1)) if unroll > 1 else ((count, 1),):
            a, w, sums = self._loop(v, turns, turn, step, a, a_step, w, sums)
        totals, floats = v.totals(sums, heads, self.form.width, rows), v.floats
        for m, p, u in cells:
            total = floats.load(_at(builder, now, "init", m, p), u) + totals[m, p, u]
            floats.store(_at(builder, now, "out", m, p), total, u)
        left = builder.sub(depth, count)
        # the next segment's sums are added to what this one has left
        following = {"depth": left, "a": a, "w": w} | {f"init{end}": given[f"out{end}"] for end in ("", "_row", "_panel")}
        for name, value in following.items():
            moving[name].add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed(">", left, INT64(0)), segment, after)
        builder.position_at_end(after)

    def _step(self, v: Packets, a: list[ir.Value], w: list[ir.Value], sums: Sums) -> Sums:
        """Emits one k: the smaller side of the tile is loaded first and kept."""
        columns = [(p, u) for p in range(self.panels) for u in range(self.form.width)]
        following = {}
        if len(columns) <= self.rows:
            kept = [v.weights(w[p], u) for p, u in columns]
            for m in range(self.rows):
                row = v.row(a[m])
                for (p, u), weight in zip(columns, kept, strict=True):
                    following[m, p, u] = v.multiply_add(row, weight, sums[m, p, u])
        else:
            kept = [v.row(address) for address in a]
            for p, u in columns:
                weight = v.weights(w[p], u)
                for m, row in enumerate(kept):
                    following[m, p, u] = v.multiply_add(row, weight, sums[m, p, u])
        return following

    def _loop(
        self,
        v: Packets,
        count: ir.Value,
        turn: int,
        step: Callable[[ir.Value, ir.Value, Sums], Sums],
        a: ir.Value,
        a_step: ir.Value,
        w: ir.Value,
        sums: Sums,
    ) -> tuple[ir.Value, ir.Value, Sums]:
        """Emits `count` times `step`, `turn` of them in each turn of the loop. Gives a, w and the sums after the loop."""
        builder = v.builder
        before = builder.block
        loop, body, after = (builder.append_basic_block(name) for name in ("loop", "body", "after"))
        builder.branch(loop)
        builder.position_at_end(loop)
        remaining, a_k, w_k = (builder.phi(INT64) for _ in range(3))
        for phi, start in ((remaining, count), (a_k, a), (w_k, w)):
            phi.add_incoming(start, before)
        carried = {cell: Vector(v, builder.phi(v.type)) for cell in sums}
        for cell, phi in carried.items():
            phi.value.add_incoming(sums[cell].value, before)
        builder.cbranch(builder.icmp_signed(">", remaining, INT64(0)), body, after)

        builder.position_at_end(body)
        a_next, w_next, following = a_k, w_k, carried
        for _ in range(turn):
            following = step(a_next, w_next, following)
            a_next, w_next = builder.add(a_next, a_step), builder.add(w_next, INT64(self.form.width * v.size))
        remaining.add_incoming(builder.sub(remaining, INT64(turn)), builder.block)
        a_k.add_incoming(a_next, builder.block)
        w_k.add_incoming(w_next, builder.block)
        for cell, phi in carried.items():
            phi.value.add_incoming(following[cell].value, builder.block)
        builder.branch(loop)
        builder.position_at_end(after)
        return a_k, w_k, carried


def _segment(builder: ir.IRBuilder, depth: ir.Value) -> ir.Value:
    """Gives the depth of a segment: segments are about equal, and whole turns of a loop."""
    wanted = builder.udiv(builder.add(depth, INT64(_SEGMENT - 1)), INT64(_SEGMENT))
    for limit, compared in ((1, "<"), (_SEGMENTS, ">")):
        wanted = builder.select(builder.icmp_signed(compared, wanted, INT64(limit)), INT64(limit), wanted)
    even = builder.udiv(builder.add(depth, builder.sub(wanted, INT64(1))), wanted)
    return builder.and_(builder.add(even, INT64(_UNROLLED - 1)), INT64(-_UNROLLED))


def _at(builder: ir.IRBuilder, given: dict[str, ir.Value], name: str, m: int, p: int) -> ir.Value:
    """Gives the address of the vectors of (m, p) of `init` or `out`."""
    row = builder.mul(given[f"{name}_row"], INT64(m))
    return builder.add(builder.add(given[name], row), builder.mul(given[f"{name}_panel"], INT64(p)))


def _multiples(builder: ir.IRBuilder, step: ir.Value, count: int) -> list[ir.Value]:
    """Gives 0 to count - 1 times `step`. Odd multiples stand in registers; an address mode makes the even ones from them,
    twice to eight times as large. The values are hidden from the compiler: it would add step after step up in each turn of
    a loop."""
    opaque = ir.FunctionType(INT64, [INT64])
    odd = {m: builder.asm(opaque, "", "=r,0", [builder.mul(step, INT64(m))], False) for m in range(1, count, 2)}
    found = [INT64(0)]
    for m in range(1, count):
        twos = min((m & -m).bit_length() - 1, 3)
        found.append(builder.shl(odd[m >> twos], INT64(twos)) if twos else odd[m])
    return found


def _emit_fetch(v: Vectors, address: ir.Value, size: int) -> None:
    """Emits the fetch of `size` bytes into L2."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(v.builder.module, kind, "llvm.prefetch.p0")
    for offset in range(0, size, LINE):
        at = v.builder.inttoptr(v.at(address, offset), pointer)
        v.builder.call(function, [at, INT32(0), INT32(2), INT32(1)])
