"""The one matrix product of the CPU backend: register tiles of rows x vectors, emitted as LLVM code.

    out[m, :] = init[m, :] + sum over k of a[m, k] * w[k, :]        m < rows, k < depth

`w` is packed: `vectors` whole vectors a k, one k after the other. Every output element has one accumulator and runs over k
in one order, in every tile: its bits do not depend on the rows beside it. That is what makes results independent of batch
size, threads and streaming.

A tile of `rows` x `vectors` sums stays in registers. For each k, the smaller side of the tile is loaded first and kept, the
larger one streams through one register: 6 x 4 sums + 4 weights + 1 broadcast of 32 registers, 3 x 4 + 3 + 1 of 16.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .vector import INT64, Vector, Vectors

_ARGUMENTS = ("rows", "a", "a_stride", "w", "depth", "init", "init_stride", "out", "out_stride")


def _product(name: str, doc: str, transposed: bool) -> Any:
    def product(context: Any, vectors: Any, zero: Any, arguments: Any) -> Any:
        if not isinstance(vectors, types.IntegerLiteral):
            return None
        width = vectors.literal_value

        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            function = _tile_function(builder.module, signature.args[1], width, transposed)
            builder.call(function, [builder.extract_value(values[2], i) for i in range(len(_ARGUMENTS))])
            return context.get_dummy_value()

        return types.void(vectors, zero, types.UniTuple(types.int64, len(_ARGUMENTS))), code

    product.__name__ = product.__qualname__ = name
    product.__doc__ = doc
    return intrinsic(prefer_literal=True)(product)


multiply = _product(
    "multiply",
    "multiply(vectors, zero, (rows, a, a_stride, w, depth, init, init_stride, out, out_stride)): a's rows lie a_stride bytes "
    "apart, its columns side by side. `vectors` is a literal, the type of `zero` is the element type, all else bytes.",
    transposed=False,
)
multiply_transposed = _product(
    "multiply_transposed",
    "The same with a's rows side by side and its columns (k) a_stride bytes apart.",
    transposed=True,
)


def _tile_function(module: ir.Module, element: types.Float, width: int, transposed: bool) -> ir.Function:
    """The module's function for tiles of `width` vectors; emitted at first use."""
    name = f"gpurnn_tile{'_t' if transposed else ''}_{width}_f{element.bitwidth}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * len(_ARGUMENTS)), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    for argument, argument_name in zip(function.args, _ARGUMENTS, strict=True):
        argument.name = argument_name
    _emit_rows_loop(function, element, width, transposed)
    return function


def _emit_rows_loop(function: ir.Function, element: types.Float, width: int, transposed: bool) -> None:
    """Cuts the rows into tiles: full ones, then two of about equal height instead of a full one and a sliver."""
    rows, a, a_stride, w, depth, init, init_stride, out, out_stride = function.args
    entry, head, pick, done = (function.append_basic_block(n) for n in ("entry", "head", "pick", "done"))
    builder = ir.IRBuilder(entry)
    limit = Vectors(builder, element).machine.tile_rows(width)
    builder.branch(head)

    builder.position_at_end(head)
    left, a_row, init_row, out_row = (builder.phi(INT64) for _ in range(4))
    for phi, start in ((left, rows), (a_row, a), (init_row, init), (out_row, out)):
        phi.add_incoming(start, entry)
    builder.cbranch(builder.icmp_signed(">", left, INT64(0)), pick, done)

    builder.position_at_end(pick)
    half = builder.lshr(builder.add(left, INT64(1)), INT64(1))
    several = builder.select(builder.icmp_signed(">=", left, INT64(2 * limit)), INT64(limit), half)
    height = builder.select(builder.icmp_signed("<=", left, INT64(limit)), left, several)
    cases = [function.append_basic_block(f"tile{m}") for m in range(1, limit + 1)]
    switch = builder.switch(height, cases[-1])
    for m, block in enumerate(cases[:-1], 1):
        switch.add_case(INT64(m), block)

    for m, block in enumerate(cases, 1):
        builder.position_at_end(block)
        v = Vectors(builder, element)
        _emit_tile(v, m, width, transposed, a_row, a_stride, w, depth, init_row, init_stride, out_row, out_stride)
        step = INT64(m)
        end = builder.block
        left.add_incoming(builder.sub(left, step), end)
        a_step = INT64(m * v.itemsize) if transposed else builder.mul(step, a_stride)
        a_row.add_incoming(builder.add(a_row, a_step), end)
        init_row.add_incoming(builder.add(init_row, builder.mul(step, init_stride)), end)
        out_row.add_incoming(builder.add(out_row, builder.mul(step, out_stride)), end)
        builder.branch(head)

    builder.position_at_end(done)
    builder.ret_void()


def _emit_tile(
    v: Vectors,
    height: int,
    width: int,
    transposed: bool,
    a: ir.Value,
    a_stride: ir.Value,
    w: ir.Value,
    depth: ir.Value,
    init: ir.Value,
    init_stride: ir.Value,
    out: ir.Value,
    out_stride: ir.Value,
) -> None:
    builder = v.builder
    cells = [(m, u) for m in range(height) for u in range(width)]
    init_rows = [builder.add(init, builder.mul(init_stride, INT64(m))) for m in range(height)]
    sums = {(m, u): v.load(init_rows[m], u) for m, u in cells}
    offsets = [INT64(m * v.itemsize) if transposed else builder.mul(a_stride, INT64(m)) for m in range(height)]
    a_step = a_stride if transposed else INT64(v.itemsize)

    before = builder.block
    loop, body, after = (builder.append_basic_block(f"{n}{height}") for n in ("loop", "body", "after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    k, a_k, w_k = (builder.phi(INT64) for _ in range(3))
    for phi, start in ((k, depth), (a_k, a), (w_k, w)):
        phi.add_incoming(start, before)
    carried = {}
    for cell in cells:
        phi = builder.phi(v.type)
        phi.add_incoming(sums[cell].value, before)
        carried[cell] = Vector(v, phi)
    builder.cbranch(builder.icmp_signed(">", k, INT64(0)), body, after)

    builder.position_at_end(body)
    following = {}
    if width <= height:
        kept = [v.load(w_k, u) for u in range(width)]
        for m in range(height):
            row = v.broadcast(builder.add(a_k, offsets[m]))
            for u in range(width):
                following[m, u] = v.fma(row, kept[u], carried[m, u])
    else:
        kept = [v.broadcast(builder.add(a_k, offsets[m])) for m in range(height)]
        for u in range(width):
            weight = v.load(w_k, u)
            for m in range(height):
                following[m, u] = v.fma(kept[m], weight, carried[m, u])
    k.add_incoming(builder.sub(k, INT64(1)), builder.block)
    a_k.add_incoming(builder.add(a_k, a_step), builder.block)
    w_k.add_incoming(builder.add(w_k, INT64(width * v.size)), builder.block)
    for cell in cells:
        carried[cell].value.add_incoming(following[cell].value, builder.block)
    builder.branch(loop)

    builder.position_at_end(after)
    for m, u in cells:
        v.store(builder.add(out, builder.mul(out_stride, INT64(m))), carried[m, u], u)
