"""Kernels written as straight-line emission: where a thread stands, what it loads, what it stores.

A kernel's body is a plain Python function of a `Code` and of the kernel's arguments as LLVM values; `emitted` makes it an
intrinsic, which the function that Numba compiles calls. Addresses are 64-bit integers, indices unsigned 32-bit ones: no
negative indices are looked for and none is promoted.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Annotated, Any, NamedTuple, get_type_hints

from numba.core import cgutils

from ..compiler import intrinsic, types
from ..host.device import Kernel
from .llvm import ir
from .number import INT32, INT64, Scalars, Value, element_type

# what a kernel's arguments are: the annotations of its body
Address = Annotated[Any, types.uint64]
Count = Annotated[Any, types.uint32]  # sizes, and strides in bytes
Step = Annotated[Any, types.int32]

THREADS = 256
COLUMNS = 32  # threads side by side over the units of a row: a warp, so that its loads are one line after the other
ROWS = THREADS // COLUMNS

_GLOBAL = 1  # NVVM's address space


class Block(NamedTuple):
    """How a block's threads lie over rows and units; lanes: units of a thread, loaded and stored at once."""

    lanes: int = 1
    columns: int = COLUMNS  # threads side by side over the units of a row, a power of two

    @classmethod
    def over(cls, units: int, lanes: int) -> "Block":
        """As many threads on a row as leave no more of them idle: where rows fill blocks, none asks whether it is inside."""
        threads = -(-units // lanes)
        columns = COLUMNS
        while columns < THREADS and -(-threads // columns) % 2 == 0:
            columns *= 2
        return cls(lanes, columns)

    @property
    def rows(self) -> int:
        return THREADS // self.columns

    def grid(self, rows: int, units: int) -> tuple[int, int]:
        return -(-rows // self.rows), -(-units // (self.lanes * self.columns))


class Code(Scalars):
    """Emits one kernel over arrays of `storage` bits an element, computing in at least 32."""

    def __init__(self, builder: ir.IRBuilder, storage: int) -> None:
        super().__init__(builder, max(storage, 32))
        self.storage = storage
        self.item = storage // 8
        # for arrays of what is computed in: with float16, all that is neither input nor output
        self.wide: Code = self if storage == self.bits else Code(builder, self.bits)

    def register(self, name: str) -> ir.Value:
        """One of the thread's own numbers, such as "tid.x"."""
        return self.call(f"llvm.nvvm.read.ptx.sreg.{name}", INT32)

    def row_and_unit(self, block: Block) -> tuple[ir.Value, ir.Value]:
        """Of this thread, in a grid of rows and units: its row and the first of its units."""
        b, columns = self.builder, block.columns
        thread = self.register("tid.x")
        row, column = self.register("ctaid.x"), b.add(b.mul(self.register("ctaid.y"), INT32(columns)), thread)
        if block.rows > 1:
            row = b.add(b.mul(row, INT32(block.rows)), b.lshr(thread, INT32(columns.bit_length() - 1)))
            column = b.add(b.mul(self.register("ctaid.y"), INT32(columns)), b.and_(thread, INT32(columns - 1)))
        return row, b.mul(column, INT32(block.lanes))

    def for_rows(
        self,
        block: Block,
        row: ir.Value,
        batch: ir.Value,
        unit: ir.Value,
        units: int,
        lengths: ir.Value | None,
        t: ir.Value,
        step: Callable[[], None],
        keep: Callable[[], None],
    ) -> None:
        """Emits `step` for the threads that have a unit of a row, and `keep` for rows that have ended before step t."""
        b = self.builder
        limits = []
        if block.rows > 1:
            limits.append(b.icmp_unsigned("<", row, batch))
        if units % (block.lanes * block.columns):
            limits.append(b.icmp_unsigned("<", unit, INT32(units)))
        with b.if_then(reduce(b.and_, limits)) if limits else nullcontext():
            if lengths is None:
                step()
                return
            with b.if_else(b.icmp_signed("<", b.sext(t, INT64), self.load_int64(lengths, row))) as (valid, past):
                with valid:
                    step()
                with past:
                    keep()

    def times(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The 64-bit product of unsigned 32-bit numbers."""
        return self.builder.mul(self.builder.zext(a, INT64), self.builder.zext(b, INT64))

    def at_step(self, address: ir.Value, step: ir.Value, stride: ir.Value) -> ir.Value:
        """The part of an array that belongs to a step; the stride is in bytes."""
        return self.builder.add(address, self.times(step, stride))

    def at(self, address: ir.Value, row: ir.Value, width: int, unit: ir.Value, gate: int = 0) -> ir.Value:
        """Of one unit of a row, in an array whose rows of `width` units lie one after the other; gate: elements to skip."""
        b = self.builder
        index = b.add(b.mul(row, INT32(width)), unit)
        return b.add(b.add(address, self.times(index, INT32(self.item))), INT64(gate * self.item))

    def at_strided(self, address: ir.Value, row: ir.Value, stride: ir.Value, unit: ir.Value) -> ir.Value:
        """Of one unit of a row, with rows `stride` bytes apart."""
        return self.builder.add(self.builder.add(address, self.times(unit, INT32(self.item))), self.times(row, stride))

    def load(self, address: ir.Value, lanes: int) -> list[Value]:
        """`lanes` elements side by side, in one load."""
        kind = element_type(self.storage)
        value = self.builder.load(self._pointer(address, kind, lanes))
        value.align = lanes * self.item
        elements = [value] if lanes == 1 else [self.builder.extract_element(value, INT32(i)) for i in range(lanes)]
        return [Value(self, self._widened(element)) for element in elements]

    def store(self, address: ir.Value, values: Sequence[Value]) -> None:
        """Elements side by side, in one store."""
        kind = element_type(self.storage)
        elements = [self._narrowed(value.value) for value in values]
        stored = elements[0]
        if len(elements) > 1:
            stored = ir.Constant(ir.VectorType(kind, len(elements)), ir.Undefined)
            for i, element in enumerate(elements):
                stored = self.builder.insert_element(stored, element, INT32(i))
        self.builder.store(stored, self._pointer(address, kind, len(elements))).align = len(elements) * self.item

    def load_int64(self, address: ir.Value, index: ir.Value) -> ir.Value:
        """An element of an int64 array."""
        value = self.builder.load(self._pointer(self.builder.add(address, self.times(index, INT32(8))), INT64, 1))
        value.align = 8
        return value

    def sum(self, count: ir.Value, term: Callable[[ir.Value], Value]) -> Value:
        """Of `count` terms, first to last, in a loop."""
        total = cgutils.alloca_once_value(self.builder, ir.Constant(self.type, 0.0))
        with cgutils.for_range(self.builder, count) as loop:
            self.builder.store(self.builder.fadd(self.builder.load(total), term(loop.index).value), total)
        return Value(self, self.builder.load(total))

    def zeros(self, lanes: int) -> list[Value]:
        return [self.constant(0.0)] * lanes

    def _pointer(self, address: ir.Value, kind: ir.Type, lanes: int) -> ir.Value:
        target = kind if lanes == 1 else ir.VectorType(kind, lanes)
        return self.builder.inttoptr(address, ir.PointerType(target, _GLOBAL))

    def _widened(self, element: ir.Value) -> ir.Value:
        if self.storage != 16:
            return element
        return self.builder.fpext(self.builder.bitcast(element, ir.HalfType()), self.type)

    def _narrowed(self, value: ir.Value) -> ir.Value:
        if self.storage != 16:
            return value
        return self.builder.bitcast(self.builder.fptrunc(value, ir.HalfType()), element_type(16))


def emitted(emit: Callable[..., None], storage: int) -> Any:
    """Makes `emit(code, *arguments)` an intrinsic of the arguments."""

    def function(context: Any, *arguments: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            emit(Code(builder, storage), *(builder.extract_value(values[0], i) for i in range(len(arguments))))
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(arguments)), code

    function.__name__ = function.__qualname__ = emit.__name__
    function.__doc__ = emit.__doc__
    return intrinsic(function)


def kernel(emit: Callable[..., None], storage: int, name: str, resident: int) -> Kernel:
    """The kernel of a body `emit(code, *arguments)`, whose annotations are its arguments' types; resident: at least so many
    blocks to a multiprocessor."""
    hints = {name: hint for name, hint in get_type_hints(emit, include_extras=True).items() if hasattr(hint, "__metadata__")}
    # a kernel has a fixed number of arguments, so its function is spelt out
    arguments = ", ".join(hints)
    namespace: dict[str, Any] = {"body": emitted(emit, storage)}
    exec(f"def {emit.__name__}({arguments}):\n    body({arguments})\n", namespace)
    signature = tuple(hint.__metadata__[0] for hint in hints.values())
    return Kernel(name, namespace[emit.__name__], signature, THREADS, resident)
