"""Elementwise operations on single vectors, straight-line code where a kernel calls them: `copy_vector(zero, (to, source))`.

The type of `zero` is the element type; every argument is a byte address, or `count`: the elements from this vector on, of a
user's array, which is not read or written beyond them.
"""

from llvmlite import ir

from .bundle import pointwise
from .vector import INT64, Vectors

ROWS_AT_ONCE = 8  # of `copy_and_add_rows`: a total is loaded and stored once for them


@pointwise
def copy_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """One vector from a user's array into a padded one, zeros past its units."""
    v.store(to, v.load_tail(source, count))


@pointwise
def store_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """One vector from a padded array into a user's, its NaN as `canonical` has them."""
    v.store_tail(to, v.canonical(v.load(source)), count)


@pointwise
def copy_element(v: Vectors, to: ir.Value, source: ir.Value) -> None:
    """One element."""
    kind = v.element.as_pointer()
    v.builder.store(v.builder.load(v.builder.inttoptr(source, kind)), v.builder.inttoptr(to, kind))


@pointwise
def copy_vector(v: Vectors, to: ir.Value, source: ir.Value) -> None:
    v.store(to, v.load(source))


@pointwise
def clear_vector(v: Vectors, to: ir.Value, _: ir.Value) -> None:
    v.store(to, v.zero())


@pointwise
def copy_and_add(v: Vectors, to: ir.Value, source: ir.Value, _: ir.Value, total: ir.Value) -> None:
    _copy_and_add(v, 1, to, source, INT64(0), total)


@pointwise
def copy_and_add_rows(v: Vectors, to: ir.Value, source: ir.Value, stride: ir.Value, total: ir.Value) -> None:
    _copy_and_add(v, ROWS_AT_ONCE, to, source, stride, total)


def _copy_and_add(v: Vectors, rows: int, to: ir.Value, source: ir.Value, stride: ir.Value, total: ir.Value) -> None:
    """Vectors `stride` bytes apart, side by side, and their sum."""
    found = v.load(total)
    for row in range(rows):
        value = v.load(v.builder.add(source, v.builder.mul(stride, INT64(row))))
        v.store(to, value, row)
        found = found + value
    v.store(total, found)


@pointwise
def add_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Adds one vector of a user's array into a padded one."""
    v.store(to, v.load(to) + v.load_tail(source, count))


@pointwise
def add_product(v: Vectors, to: ir.Value, a: ir.Value, b: ir.Value, count: ir.Value) -> None:
    """Adds a * b, where b is a user's."""
    v.store(to, v.load(to) + v.load(a) * v.load_tail(b, count))
