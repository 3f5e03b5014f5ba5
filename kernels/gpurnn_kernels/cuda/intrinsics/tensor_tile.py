"""The product of a warp on tensor cores: 16 rows of weights in its registers times 8 rows of the operand.

mma.sync m16n8, of k that fill one or two words of a row: tf32 8, float16 16 (8 before compute capability 8.0). Lane (g, t) =
(lane // 4, lane % 4). The order of k is free as long as both operands agree: of every 16 words of a row the lane takes
4 t .. 4 t + 3, one 128-bit load of the operand, which feeds two instructions of two words (w = 0, 1 and 2, 3) or four of one:

    a = W[g, w], W[g + 8, w], W[g, w + 1], W[g + 8, w + 1]      b = h[g, w], h[g, w + 1]
    c = sums of (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1), as (row of weights, row of the operand)
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..compiler import intrinsic, types
from . import llvm
from .llvm import FLOAT, INT32, ZERO, integers, ir
from .operand import Operand
from .tile import TileOps, Weight


@dataclass(frozen=True)
class TensorTile:
    operand: Operand
    quads: int  # of 16 words each
    stride: int  # words from one row of the operand to the next: 16 modulo 32, so that 8 lanes meet 8 banks
    pitch: int  # words from one row of sums to the next
    batch: int = 8
    rows: int = 16
    shared_words: int = 0  # registers hold all

    @property
    def warp_rows(self) -> int:
        return self.rows

    @property
    def span_words(self) -> int:
        """Words of a row of the operand that a warp multiplies."""
        return 16 * self.quads

    @property
    def span(self) -> int:
        """k of a warp."""
        return self.operand.per_word * self.span_words

    @property
    def registers(self) -> int:
        """Words of weights that a lane holds."""
        return 8 * self.quads


def _factors(operand: Operand, builder: ir.IRBuilder, words: list[ir.Value]) -> list[ir.Value]:
    """Words as mma takes them: tf32 rounded to the nearest, float16 as it is."""
    if operand.name == "float16":
        return [builder.bitcast(word, INT32) for word in words]
    return [llvm.ptx(builder, "cvt.rna.tf32.f32 $0, $1;", INT32, [word], "=r,f") for word in words]


def _multiply_add(
    operand: Operand, builder: ir.IRBuilder, a: list[ir.Value], b: list[ir.Value], c: list[ir.Value]
) -> list[ir.Value]:
    """One instruction; -> a b + c."""
    kind = "f16" if operand.name == "float16" else operand.name
    first = [4, 4 + len(a), 4 + len(a) + len(b)]
    groups = [_places(0, 4), *(_places(at, len(part)) for at, part in zip(first, (a, b, c), strict=True))]
    text = f"mma.sync.aligned.m16n8k{operand.depth}.row.col.f32.{kind}.{kind}.f32 {', '.join(groups)};"
    constraints = ",".join(["=f"] * 4 + ["r"] * len(a + b) + ["f"] * 4)
    sums = llvm.ptx(builder, text, ir.LiteralStructType([FLOAT] * 4), [*a, *b, *c], constraints)
    return [builder.extract_value(sums, i) for i in range(4)]


def _places(first: int, count: int) -> str:
    return "{" + ", ".join(f"${first + i}" for i in range(count)) + "}"


def make_tensor_tile(tile: TensorTile, tiles: int, weight: Callable[[ir.Value], Weight]) -> TileOps:
    """Makes the functions of `make_tile` on tensor cores; nothing is left to fill."""
    held = types.UniTuple(types.int32, tile.registers)
    per_word = tile.operand.per_word
    words = tile.operand.depth // (4 * per_word)  # of a lane's 4, that an instruction takes

    def place(builder, lane):  # type: ignore[no-untyped-def]
        return builder.udiv(lane, INT32(4)), builder.urem(lane, INT32(4))

    @intrinsic
    def load(typingctx, address, first, row, k, lane):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            first, row, k, lane = integers(context, builder, sig, args, 1, 2, 3, 4)
            fetch = weight(args[0])
            group, t = place(builder, lane)
            upper = builder.add(row, group)
            lower = builder.add(upper, INT32(8))
            k = builder.add(k, builder.mul(t, INT32(4 * per_word)))
            values = []
            for q in range(tile.quads):
                sides = [fetch(builder, first, side, k, 16 * per_word * q) for side in (upper, lower)]
                pairs = zip(*(_factors(tile.operand, builder, side) for side in sides), strict=True)
                values += [word for pair in pairs for word in pair]
            return context.make_tuple(builder, sig.return_type, values)

        return held(address, first, row, k, lane), codegen

    def product(builder, weights, operand):  # type: ignore[no-untyped-def]
        chains = [[ZERO] * 4, [ZERO] * 4]  # two, since each instruction waits for the sum that it adds to
        for q in range(tile.quads):
            quad = llvm.load_quad(builder, llvm.shared_word(builder, builder.add(operand, INT32(16 * q))))
            quad = _factors(tile.operand, builder, quad)
            for w in range(0, 4, words):
                a, chain = weights[8 * q + 2 * w :][: 2 * words], w // words % 2
                chains[chain] = _multiply_add(tile.operand, builder, a, quad[w : w + words], chains[chain])
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
                    to = llvm.shared_word(builder, builder.add(word, INT32(x * tile.batch + offset)))
                    builder.store(value, to, align=4)
            return context.get_dummy_value()

        return types.void(weights, shared_weights, operand, sums, lane), codegen

    return TileOps(load, None, sweep)
