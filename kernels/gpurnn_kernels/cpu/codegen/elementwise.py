"""Elementwise operations on single vectors, straight-line code where a kernel calls them: `copy_vector(zero, (to, source))`.

The type of `zero` is the element type. `to`, `source` and `total` are byte addresses, aligned to an element at least; `stride`
is in bytes. `count` is the number of elements of a user's array from this vector on; elements past it are neither read nor
written. `to` and `source` may be the same address but must not overlap otherwise.
"""

from llvmlite import ir

from .bundle import pointwise
from .vector import INT64, Vectors

ROWS_AT_ONCE = 8  # of `copy_and_add_rows`: a total is loaded and stored once for them


@pointwise
def copy_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Copies one vector of a user's array into a padded one, with zeros past its units."""
    v.store(to, v.load_tail(source, count))


@pointwise
def store_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Stores one vector of a padded array into a user's array, with the one NaN of `canonical`."""
    v.store_tail(to, v.canonical(v.load(source)), count)


@pointwise
def copy_element(v: Vectors, to: ir.Value, source: ir.Value) -> None:
    """Copies one element."""
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
    """Copies `rows` vectors, `stride` bytes apart, side by side to `to`, and adds their sum to the vector at `total`."""
    found = v.load(total)
    for row in range(rows):
        value = v.load(v.builder.add(source, v.builder.mul(stride, INT64(row))))
        v.store(to, value, row)
        found = found + value
    v.store(total, found)


@pointwise
def add_units(v: Vectors, to: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Adds one vector of a user's array to a vector of a padded one."""
    v.store(to, v.load(to) + v.load_tail(source, count))


@pointwise
def add_product(v: Vectors, to: ir.Value, a: ir.Value, b: ir.Value, count: ir.Value) -> None:
    """Adds a * b to the vector at `to`. `b` is in a user's array, `a` and `to` are in padded ones."""
    v.store(to, v.load(to) + v.load(a) * v.load_tail(b, count))
