"""The product of a warp on tensor cores: 16 rows of weights in its registers, rounded to tf32, times 8 rows of the operand.

mma.sync m16n8k8. Lane (g, t) = (lane // 4, lane % 4). The order of k is free as long as both operands agree: of every 16 k the
lane takes 4 t .. 4 t + 3, one 128-bit load of the operand, which feeds two instructions (elements e = 0, 1 and e = 2, 3):

    a = W[g, e], W[g + 8, e], W[g, e + 1], W[g + 8, e + 1]      b = h[g, e], h[g, e + 1]
    c = sums of (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1), as (row of weights, row of the operand)
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from . import emit
from .emit import FLOAT, INT32, ZERO
from .tile import TileOps, Weight, integers

MMA = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"


@dataclass(frozen=True)
class TensorTile:
    quads: int  # of 16 k each
    stride: int  # words from one row of the operand to the next: 16 modulo 32, so that 8 lanes meet 8 banks
    pitch: int  # words from one row of sums to the next
    batch: int = 8
    rows: int = 16
    shared_words: int = 0  # registers hold all

    @property
    def warp_rows(self) -> int:
        return self.rows

    @property
    def span(self) -> int:
        """k of a warp."""
        return 16 * self.quads

    @property
    def registers(self) -> int:
        """Weights a lane holds."""
        return 8 * self.quads


def _rounded(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """To the nearest tf32, as the bits that mma takes."""
    return emit.ptx(builder, "cvt.rna.tf32.f32 $0, $1;", INT32, [value], "=r,f")


def make_tensor_tile(tile: TensorTile, tiles: int, weight: Callable[[ir.Value], Weight]) -> TileOps:
    """As `make_tile`; nothing is left to fill."""
    held = types.UniTuple(types.float32, tile.registers)

    def place(builder, lane):  # type: ignore[no-untyped-def]
        return builder.udiv(lane, INT32(4)), builder.urem(lane, INT32(4))

    @intrinsic
    def load(typingctx, address, first, row, k, lane):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            first, row, k, lane = integers(context, builder, sig, args, 1, 2, 3, 4)
            fetch = weight(args[0])
            group, t = place(builder, lane)
            upper = builder.add(row, group)
            k = builder.add(k, builder.mul(t, INT32(4)))
            values = []
            for q in range(tile.quads):
                at = builder.add(k, INT32(16 * q))
                low, high = fetch(builder, first, upper, at), fetch(builder, first, builder.add(upper, INT32(8)), at)
                for e in (0, 2):
                    values += [low[e], high[e], low[e + 1], high[e + 1]]
            values = [builder.bitcast(_rounded(builder, value), FLOAT) for value in values]
            return context.make_tuple(builder, sig.return_type, values)

        return held(address, first, row, k, lane), codegen

    def product(builder, weights, operand):  # type: ignore[no-untyped-def]
        chains = [[ZERO] * 4, [ZERO] * 4]  # two, since each instruction waits for the sum that it adds to
        for q in range(tile.quads):
            quad = emit.load_quad(builder, emit.shared_word(builder, builder.add(operand, INT32(16 * q))))
            quad = [_rounded(builder, value) for value in quad]
            for half in (0, 1):
                a = [builder.bitcast(value, INT32) for value in weights[8 * q + 4 * half :][:4]]
                result = ir.LiteralStructType([FLOAT] * 4)
                arguments = [*a, *quad[2 * half :][:2], *chains[half]]
                sums = emit.ptx(builder, MMA, result, arguments, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
                chains[half] = [builder.extract_value(sums, i) for i in range(4)]
        return [builder.fadd(one, other) for one, other in zip(*chains, strict=True)]

    @intrinsic
    def sweep(typingctx, weights, shared_weights, operand, sums, lane):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            operand, sums, lane = integers(context, builder, sig, args, 2, 3, 4)
            weights = [builder.extract_value(args[0], i) for i in range(tile.registers)]
            group, t = place(builder, lane)
            operand = builder.add(operand, builder.mul(group, INT32(tile.stride)))
            operand = builder.add(operand, builder.mul(t, INT32(4)))
            word = builder.add(sums, builder.mul(group, INT32(tile.pitch)))
            word = builder.add(word, builder.mul(t, INT32(2)))
            for x in range(tiles):
                total = product(builder, weights, builder.add(operand, INT32(x * tile.batch * tile.stride)))
                for value, offset in zip(total, (0, 1, 8 * tile.pitch, 8 * tile.pitch + 1), strict=True):
                    to = emit.shared_word(builder, builder.add(word, INT32(x * tile.batch + offset)))
                    builder.store(value, to, align=4)
            return context.get_dummy_value()

        return types.void(weights, shared_weights, operand, sums, lane), codegen

    return TileOps(load, None, sweep)
