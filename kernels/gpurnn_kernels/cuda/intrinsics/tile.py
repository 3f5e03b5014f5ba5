"""The product of a warp: weights that stay in its registers, times a few rows of a vector operand in shared memory.

A tile is `rows` x `span` weights a lane group, `batch` rows of the operand. `lanes` lanes share the k of one row group (four
neighbouring k a lane, then 4 * lanes further on), so a warp holds 32 / lanes row groups. The code is straight-line: an array
indexed by a loop that stays a loop would live in local memory.

Sums over the lanes by recursive halving, without a select: the lane that keeps value v of a tile's rows * batch holds it in
slot 0, since slot i of lane l is value i ^ (l * kept). Hence the exclusive ors in the row and batch numbers below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..compiler import intrinsic, types
from . import llvm
from .llvm import FLOAT, INT32, integers, ir

WARP = 32
# first unit, row, k, a constant that k is further on -> 4 words of W[row, k + further :]
Weight = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value, int], list[ir.Value]]


@dataclass(frozen=True)
class Tile:
    rows: int  # of weights a lane, a power of two
    batch: int  # rows of the operand, a power of two
    lanes: int  # that share k
    quads: int  # float4 a lane and row
    held: int  # of them in registers, the others in shared memory
    stride: int  # words from one row of the operand to the next
    pitch: int  # words from one row of sums to the next

    @property
    def kept(self) -> int:
        """Sums a lane ends with."""
        return self.rows * self.batch // self.lanes

    @property
    def warp_rows(self) -> int:
        return self.rows * (WARP // self.lanes)

    @property
    def span(self) -> int:
        """k of a warp."""
        return 4 * self.lanes * self.quads

    @property
    def span_words(self) -> int:
        """Words of a row of the operand that a warp multiplies."""
        return self.span

    @property
    def registers(self) -> int:
        """Weights a lane holds."""
        return 4 * self.rows * self.held

    @property
    def shared_words(self) -> int:
        """Weights that a warp holds in shared memory."""
        return 4 * WARP * self.rows * (self.quads - self.held)


class TileOps(NamedTuple):
    load: Any  # weight address, first unit, first row of the warp, first k of the warp, lane -> the weights in registers
    fill: Any  # the same and a word: the other weights to shared memory from there on
    sweep: Any  # weights, their word in shared memory, word of the operand, word of the sums, lane: `tiles` tiles


def make_tile(tile: Tile, tiles: int, weight: Callable[[ir.Value], Weight]) -> TileOps:
    """`weight(address)` knows where the matrix stands. Sums of row r, operand row b go to word r * pitch + b."""
    held = types.UniTuple(types.float32, tile.registers)

    def lane_place(builder, lane):  # type: ignore[no-untyped-def]
        """-> row group of the lane, its place among the lanes that share k"""
        return builder.udiv(lane, INT32(tile.lanes)), builder.urem(lane, INT32(tile.lanes))

    def row_flip(builder, place):  # type: ignore[no-untyped-def]
        return builder.udiv(builder.mul(place, INT32(tile.kept)), INT32(tile.batch))

    def quads_of(builder, address, first, row, k, lane, quads):  # type: ignore[no-untyped-def]
        """The weights of slots r = 0 .. rows - 1, each for the given quads."""
        group, place = lane_place(builder, lane)
        fetch = weight(address)
        first_row = builder.add(row, builder.mul(group, INT32(tile.rows)))
        k = builder.add(k, builder.mul(place, INT32(4)))
        for r in range(tile.rows):
            slot_row = builder.add(first_row, builder.xor(row_flip(builder, place), INT32(r)))
            for q in quads:
                yield r, q, fetch(builder, first, slot_row, k, 4 * tile.lanes * q)

    @intrinsic
    def load(typingctx, address, first, row, k, lane):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            first, row, k, lane = integers(context, builder, sig, args, 1, 2, 3, 4)
            fetched = quads_of(builder, args[0], first, row, k, lane, range(tile.held))
            return context.make_tuple(builder, sig.return_type, [value for _, _, quad in fetched for value in quad])

        return held(address, first, row, k, lane), codegen

    @intrinsic
    def fill(typingctx, address, first, row, k, lane, word):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            first, row, k, lane, word = integers(context, builder, sig, args, 1, 2, 3, 4, 5)
            word = builder.add(word, builder.mul(lane, INT32(4)))
            for r, q, quad in quads_of(builder, args[0], first, row, k, lane, range(tile.held, tile.quads)):
                for e, value in enumerate(quad):
                    builder.store(value, llvm.shared_word(builder, builder.add(word, INT32(shared_quad(r, q) + e))), align=4)
            return context.get_dummy_value()

        return types.void(address, first, row, k, lane, word), codegen

    def shared_quad(r: int, q: int) -> int:
        return 4 * WARP * (r * (tile.quads - tile.held) + q - tile.held)

    def dot(builder, weights, shared_weights, operand):  # type: ignore[no-untyped-def]
        """Slot r * batch + b: this lane's share of the sum. operand: a word for each batch slot."""
        total: list[ir.Value] = [None] * (tile.rows * tile.batch)
        for q in range(tile.quads):
            if q < tile.held:
                column = [weights[(r * tile.held + q) * 4 :][:4] for r in range(tile.rows)]
            else:
                words = [builder.add(shared_weights, INT32(shared_quad(r, q))) for r in range(tile.rows)]
                column = [llvm.load_quad(builder, llvm.shared_word(builder, word)) for word in words]
            for b in range(tile.batch):
                word = builder.add(operand[b], INT32(4 * tile.lanes * q))
                quad = llvm.load_quad(builder, llvm.shared_word(builder, word))
                for e in range(4):
                    for r in range(tile.rows):
                        slot, value = r * tile.batch + b, column[r][e]
                        before = total[slot]
                        total[slot] = (
                            builder.fmul(value, quad[e]) if before is None else llvm.fma(builder, value, quad[e], before)
                        )
        return total

    def reduce(builder, values):  # type: ignore[no-untyped-def]
        step = tile.lanes // 2
        while step:
            half = len(values) // 2
            text = f"shfl.sync.bfly.b32 $0, $1, {step}, 31, -1;"
            moved = [llvm.ptx(builder, text, FLOAT, [value], "=f,f") for value in values[half:]]
            values = [builder.fadd(mine, other) for mine, other in zip(values[:half], moved, strict=True)]
            step //= 2
        return values

    @intrinsic
    def sweep(typingctx, weights, shared_weights, operand, sums, lane):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            shared_weights, operand, sums, lane = integers(context, builder, sig, args, 1, 2, 3, 4)
            weights = [builder.extract_value(args[0], i) for i in range(tile.registers)]
            shared_weights = builder.add(shared_weights, builder.mul(lane, INT32(4)))
            group, place = lane_place(builder, lane)
            kept = builder.mul(place, INT32(tile.kept))  # the first value that this lane keeps
            flip = builder.urem(kept, INT32(tile.batch))
            operand = builder.add(operand, builder.mul(place, INT32(4)))
            slots = [builder.mul(builder.xor(flip, INT32(b)), INT32(tile.stride)) for b in range(tile.batch)]
            slots = [builder.add(operand, slot) for slot in slots]
            sums = builder.add(sums, builder.mul(group, INT32(tile.rows * tile.pitch)))
            places = []
            for s in range(tile.kept):
                value = builder.add(kept, INT32(s))
                row = builder.mul(builder.udiv(value, INT32(tile.batch)), INT32(tile.pitch))
                places.append(builder.add(sums, builder.add(row, builder.urem(value, INT32(tile.batch)))))
            for x in range(tiles):
                here = [builder.add(slot, INT32(x * tile.batch * tile.stride)) for slot in slots]
                for word, value in zip(places, reduce(builder, dot(builder, weights, shared_weights, here)), strict=True):
                    builder.store(value, llvm.shared_word(builder, builder.add(word, INT32(x * tile.batch))), align=4)
            return context.get_dummy_value()

        return types.void(weights, shared_weights, operand, sums, lane), codegen

    return TileOps(load, fill, sweep)
