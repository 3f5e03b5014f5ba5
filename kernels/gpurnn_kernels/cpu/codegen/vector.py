"""SIMD vectors while a kernel is being emitted.

A `Vector` stands for an LLVM vector value; arithmetic on it emits instructions. So plain Python functions (the cell equations,
the activations) run once, at compile time, on vectors, and leave straight-line machine code behind. `Vectors` makes them: it
knows the builder, the element type and the lanes, and loads and stores at raw byte addresses. Addresses are aligned to an
element at least, except where a method asks for more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .target import LINE, Target, target

_MOST_CONSTANTS = 128  # that one function may use
INT64 = ir.IntType(64)
INT32 = ir.IntType(32)


class Vector:
    """An LLVM vector value and the `Vectors` it belongs to."""

    __slots__ = ("of", "value")

    def __init__(self, of: Vectors, value: ir.Value) -> None:
        self.of = of
        self.value = value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.of, self.of.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.of, self.of.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.of, self.of.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.of, self.of.builder.fdiv(self.value, other.value))


class Vectors:
    """Emits vector code for one element type into one function."""

    def __init__(self, builder: ir.IRBuilder, element: types.Float, machine: Target | None = None) -> None:
        self.builder = builder
        self.machine = machine or target()
        self.bits = element.bitwidth
        self.itemsize = self.bits // 8
        self.lanes = self.machine.lanes(self.itemsize)
        self.size = self.machine.vector_bytes
        self.element = ir.FloatType() if self.bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.element, self.lanes)
        self.integer = ir.VectorType(ir.IntType(self.bits), self.lanes)
        self.suffix = f"v{self.lanes}f{self.bits}"
        self.known: dict[tuple[Any, int], tuple[Vector, Any]] = {}  # what `once` has found

    def at(self, address: ir.Value, offset: int = 0) -> ir.Value:
        """Gives `address` + `offset` bytes."""
        return self.builder.add(address, INT64(offset)) if offset else address

    def load(self, address: ir.Value, index: int = 0) -> Vector:
        """Loads the vector that starts `index` vectors past a byte address, which is aligned to an element."""
        pointer = self.builder.inttoptr(self.at(address, index * self.size), self.type.as_pointer())
        return Vector(self, self.builder.load(pointer, align=self.itemsize))

    def store(self, address: ir.Value, value: Vector, index: int = 0) -> None:
        pointer = self.builder.inttoptr(self.at(address, index * self.size), self.type.as_pointer())
        self.builder.store(value.value, pointer, align=self.itemsize)

    def store_streaming(self, address: ir.Value, value: Vector, index: int = 0) -> None:
        """Stores past the caches what is read much later, so that no cache fetches the line first. The address is aligned
        to the vector's size, which must be a whole cache line; smaller vectors are stored plainly."""
        if self.size < LINE:
            self.store(address, value, index)
            return
        pointer = self.builder.inttoptr(self.at(address, index * self.size), self.type.as_pointer())
        instruction = self.builder.store(value.value, pointer, align=self.size)
        instruction.set_metadata("nontemporal", self.builder.module.add_metadata([INT32(1)]))

    def broadcast(self, address: ir.Value) -> Vector:
        """Gives the element at a byte address, in every lane."""
        pointer = self.builder.inttoptr(address, self.element.as_pointer())
        return self.splat(self.builder.load(pointer, align=self.itemsize))

    def splat(self, element: ir.Value) -> Vector:
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, element, INT32(0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return Vector(self, self.builder.shuffle_vector(first, undefined, zeros))

    def constant(self, value: float) -> Vector:
        return Vector(self, ir.Constant(self.type, [value] * self.lanes))

    def integers(self, value: int) -> ir.Constant:
        """Gives an integer, as wide as an element, in every lane."""
        return ir.Constant(self.integer, [value] * self.lanes)

    def zero(self) -> Vector:
        return self.constant(0.0)

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """Gives a * b + c, fused where the target can (elsewhere llvm.fma would be a library call a lane)."""
        if not self.machine.fma:
            return a * b + c
        return Vector(self, self.intrinsic(f"llvm.fma.{self.suffix}", self.type, [a.value, b.value, c.value]))

    def minimum(self, a: Vector, b: Vector) -> Vector:
        """Gives the smaller lane; a NaN in `a` comes through (llvm.minnum would swallow it). x86's minps gives the same for
        b, a."""
        less = self.builder.fcmp_ordered("<", b.value, a.value)
        return Vector(self, self.builder.select(less, b.value, a.value))

    def maximum(self, a: Vector, b: Vector) -> Vector:
        """Gives the larger lane; a NaN in `a` comes through."""
        more = self.builder.fcmp_ordered(">", b.value, a.value)
        return Vector(self, self.builder.select(more, b.value, a.value))

    def clamp(self, a: Vector, limit: Vector) -> Vector:
        """Clamps to [-limit, limit]; NaN comes through."""
        return self.minimum(self.maximum(a, self.negative(limit)), limit)

    def inside(self, gradient: Vector, a: Vector, limit: Vector) -> Vector:
        """Gives the gradient where |a| <= limit or a is NaN, else zero."""
        kept = self.builder.fcmp_unordered("<=", self.absolute(a).value, limit.value)
        return Vector(self, self.builder.select(kept, gradient.value, self.zero().value))

    def by_sign(self, x: Vector, positive: Vector, other: Vector) -> Vector:
        """Gives `other` where x has its sign bit set, else `positive`."""
        zeros = ir.Constant(self.integer, [0] * self.lanes)
        signed = self.builder.icmp_signed("<", self.builder.bitcast(x.value, self.integer), zeros)
        return Vector(self, self.builder.select(signed, other.value, positive.value))

    def canonical(self, a: Vector) -> Vector:
        """Gives `a` with one NaN for all. An operation on two NaNs gives either of them, with either sign: the compiler
        chooses, and may choose otherwise in a bundle."""
        nan = self.builder.fcmp_unordered("uno", a.value, a.value)
        return Vector(self, self.builder.select(nan, self.constant(math.nan).value, a.value))

    def negative(self, a: Vector) -> Vector:
        return Vector(self, self.builder.fneg(a.value))

    def absolute(self, a: Vector) -> Vector:
        return Vector(self, self.intrinsic(f"llvm.fabs.{self.suffix}", self.type, [a.value]))

    def copysign(self, magnitude: Vector, sign: Vector) -> Vector:
        return Vector(self, self.intrinsic(f"llvm.copysign.{self.suffix}", self.type, [magnitude.value, sign.value]))

    def exponent(self, biased: Vector) -> Vector:
        """Gives 2**n where the low bits of `biased` hold n plus the exponent's bias."""
        mantissa = 23 if self.bits == 32 else 52
        shift = ir.Constant(self.integer, [mantissa] * self.lanes)
        shifted = self.builder.shl(self.builder.bitcast(biased.value, self.integer), shift)
        return Vector(self, self.builder.bitcast(shifted, self.type))

    def load_first(self, address: ir.Value, count: ir.Value) -> Vector:
        """Loads the first `count` lanes, with zeros in the others; nothing beyond them is read."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        mask = self._first(count)
        args = [pointer, INT32(self.itemsize), mask, self.zero().value]
        return Vector(self, self.intrinsic(f"llvm.masked.load.{self.suffix}.p0", self.type, args))

    def store_first(self, address: ir.Value, value: Vector, count: ir.Value) -> None:
        """Stores the first `count` lanes; nothing beyond them is written."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        args = [value.value, pointer, INT32(self.itemsize), self._first(count)]
        self.intrinsic(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), args)

    def shared(self, address: ir.Value, gate: int, count: ir.Value) -> ir.Value:
        """Gives the address of a gate of `count` units in vectors that the gates share."""
        return self.builder.add(address, self.builder.mul(count, INT64(gate * self.itemsize)))

    def load_tail(self, address: ir.Value, remaining: ir.Value) -> Vector:
        """Loads from a user's array that ends `remaining` elements on: whole vectors plainly, the last one under a mask."""
        with self.builder.if_else(self._whole(remaining), likely=True) as (then, otherwise):
            with then:
                plain = self.load(address).value
                from_plain = self.builder.block
            with otherwise:
                masked = self.load_first(address, remaining).value
                from_masked = self.builder.block
        value = self.builder.phi(self.type)
        value.add_incoming(plain, from_plain)
        value.add_incoming(masked, from_masked)
        return Vector(self, value)

    def store_tail(self, address: ir.Value, value: Vector, remaining: ir.Value) -> None:
        """Stores into a user's array that ends `remaining` elements on: whole vectors plainly, the last one under a mask."""
        with self.builder.if_else(self._whole(remaining), likely=True) as (then, otherwise):
            with then:
                self.store(address, value)
            with otherwise:
                self.store_first(address, value, remaining)

    def _whole(self, remaining: ir.Value) -> ir.Value:
        return self.builder.icmp_signed(">=", remaining, INT64(self.lanes))

    def transposed(self, rows: Sequence[Vector]) -> list[Vector]:
        """Gives the columns of a square that has as many rows as a vector has lanes. Two rows half the square apart are
        merged lane by lane; after log2(lanes) rounds every lane is in place."""
        half = self.lanes // 2
        kind = ir.VectorType(INT32, self.lanes)
        beside = [lane // 2 + self.lanes * (lane % 2) for lane in range(self.lanes)]
        merged = [ir.Constant(kind, [start + lane for lane in beside]) for start in (0, half)]
        values = [row.value for row in rows]
        for _ in range(self.lanes.bit_length() - 1):
            values = [self.builder.shuffle_vector(values[i], values[i + half], order) for i in range(half) for order in merged]
        return [Vector(self, value) for value in values]

    def pointer(self, table: ir.Value, index: int, offset: ir.Value) -> ir.Value:
        """Gives the index-th address in a table of words, plus `offset` bytes."""
        word = self.builder.inttoptr(self.at(table, 8 * index), INT64.as_pointer())
        return self.builder.add(self.builder.load(word, align=8), offset)

    def _first(self, count: ir.Value) -> ir.Value:
        lane = ir.VectorType(INT32, self.lanes)
        one = self.builder.insert_element(ir.Constant(lane, ir.Undefined), self.builder.trunc(count, INT32), INT32(0))
        all_ = self.builder.shuffle_vector(one, ir.Constant(lane, ir.Undefined), ir.Constant(lane, [0] * self.lanes))
        return self.builder.icmp_signed("<", ir.Constant(lane, list(range(self.lanes))), all_)

    def intrinsic(self, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
        """Emits the call of one of LLVM's intrinsics."""
        function_type = ir.FunctionType(result, [arg.type for arg in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), args)


def once(function: Callable[[Vector], Any]) -> Callable[[Vector], Any]:
    """Has `function` emitted once for each vector that it is given. The compiler would not find the repeated work itself,
    since it takes `Bundles.constant` for variable."""

    def found(x: Vector) -> Any:
        key = function, id(x)
        if key not in x.of.known:
            x.of.known[key] = x, function(x)
        return x.of.known[key][1]

    return found


class Bundles(Vectors):
    """Several vectors as one. Each address, count or table is a sequence, one a part. The code of one part stands beside
    the code of the others, so that the latencies of long chains of operations overlap."""

    def __init__(self, builder: ir.IRBuilder, element: types.Float, parts: int, machine: Target | None = None) -> None:
        """Makes bundles of `parts` vectors, a power of two."""
        super().__init__(builder, element, machine)
        self.part = Vectors(builder, element, machine)
        self.lanes *= parts
        self.type = ir.VectorType(self.element, self.lanes)
        self.integer = ir.VectorType(ir.IntType(self.bits), self.lanes)
        self.suffix = f"v{self.lanes}f{self.bits}"
        self._constants: list[float] = []
        kind = ir.ArrayType(self.part.type, _MOST_CONSTANTS)
        self._table = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("gpurnn_constants"))
        self._table.linkage = "weak"
        self._table.align = self.size

    def constant(self, value: float) -> Vector:
        """Loads a constant from a table that the compiler takes for variable, at a place of this use's own. Else it would
        load all constants before a loop, find the registers too few for them, and keep copies of them and of everything
        else on the stack."""
        place = self.builder.gep(self._table, [INT32(0), INT32(len(self._constants))], inbounds=True)
        self._constants.append(value)
        loaded = Vector(self.part, self.builder.load(place, align=self.size))
        return self._joined([loaded] * (self.lanes // self.part.lanes))

    def finish(self) -> None:
        """Gives the table its contents, and a name made from them. Call it when all is emitted."""
        part = self.part.type
        rows = [ir.Constant(part, [value] * part.count) for value in self._constants]
        rows += [ir.Constant(part, None)] * (_MOST_CONSTANTS - len(rows))
        self._table.initializer = ir.Constant(self._table.value_type, rows)
        digest = hashlib.sha256(repr((self.suffix, self._constants)).encode()).hexdigest()[:16]
        module = self.builder.module
        module.globals.pop(self._table.name)
        used = sum(name.startswith(f"gpurnn_{digest}") for name in module.globals)
        self._table.name = f"gpurnn_{digest}_{used}"
        module.add_global(self._table)

    def load(self, address: ir.Value, index: int = 0) -> Vector:
        return self._joined([self.part.load(one, index) for one in address])

    def store(self, address: ir.Value, value: Vector, index: int = 0) -> None:
        for one, part in zip(address, self._parts(value), strict=True):
            self.part.store(one, part, index)

    def load_tail(self, address: ir.Value, remaining: ir.Value) -> Vector:
        return self._joined([self.part.load_tail(*one) for one in zip(address, remaining, strict=True)])

    def store_tail(self, address: ir.Value, value: Vector, remaining: ir.Value) -> None:
        """Stores each part into a user's array that ends `remaining` elements on. The last part has the fewest elements
        remaining."""
        with self.builder.if_else(self.part._whole(remaining[-1]), likely=True) as (then, otherwise):
            with then:
                self.store(address, value)
            with otherwise:
                for one, part, units in zip(address, self._parts(value), remaining, strict=True):
                    self.part.store_tail(one, part, units)

    def store_streaming(self, address: ir.Value, value: Vector, index: int = 0) -> None:
        for one, part in zip(address, self._parts(value), strict=True):
            self.part.store_streaming(one, part, index)

    def pointer(self, table: ir.Value, index: int, offset: ir.Value) -> ir.Value:
        return [self.part.pointer(one, index, to) for one, to in zip(table, offset, strict=True)]

    def _joined(self, parts: list[Vector]) -> Vector:
        values = [part.value for part in parts]
        while len(values) > 1:
            lanes = 2 * values[0].type.count
            order = ir.Constant(ir.VectorType(INT32, lanes), list(range(lanes)))
            values = [self.builder.shuffle_vector(a, b, order) for a, b in zip(values[::2], values[1::2], strict=True)]
        return Vector(self, values[0])

    def _parts(self, value: Vector) -> list[Vector]:
        lanes = self.part.lanes
        orders = [list(range(start, start + lanes)) for start in range(0, self.lanes, lanes)]
        undefined = ir.Constant(self.type, ir.Undefined)
        shuffled = [
            self.builder.shuffle_vector(value.value, undefined, ir.Constant(ir.VectorType(INT32, lanes), order))
            for order in orders
        ]
        return [Vector(self.part, part) for part in shuffled]
