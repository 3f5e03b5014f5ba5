"""Functions that emit vector code become intrinsics of kernels: straight-line code for one vector, or for a bundle of them.

Such a function takes *words*: byte addresses and counts, all int64. `words_maker` gives the intrinsic that makes them.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .inline import intrinsic
from .vector import INT64, Bundles, Vectors

BUNDLE = 4  # vectors that a bundle holds


def pointwise(emit: Callable[..., None]) -> Any:
    """Makes `emit(v, *words)` an intrinsic: see `emitted`."""
    return emitted(emit.__name__, len(inspect.signature(emit).parameters) - 1, emit, emit.__doc__)


def emitted(name: str, count: int, emit: Callable[..., None], doc: str | None = None) -> Any:
    """Makes `emit(v, *words)` an intrinsic `name(zero, (word, ...))` for one vector, with `count` words.

    `name(zero, at)` runs BUNDLE vectors at once. 16 * count bytes at the address `at` hold the words, then their steps from
    vector to vector; the call leaves the words of the next bundle there. They stand in memory because the compiler would else
    compute the addresses of all vectors before a loop, and keep them on the stack. The code loads all of a bundle's vectors in
    the order of `emit`, so no vector may write what another vector of its bundle reads.
    """

    def function(context: Any, zero: Any, words: Any) -> Any:
        def one(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            emit(Vectors(builder, signature.args[0]), *cgutils.unpack_tuple(builder, values[1]))
            return context.get_dummy_value()

        def bundle(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            starts, steps = ([builder.load(place) for place in row] for row in _places(builder, values[1], count))
            parts = [_advanced(builder, starts, steps, INT64(part)) for part in range(BUNDLE)]
            for place, word in zip(
                _places(builder, values[1], count)[0], _advanced(builder, starts, steps, INT64(BUNDLE)), strict=True
            ):
                builder.store(word, place)
            v = Bundles(builder, signature.args[0], BUNDLE)
            emit(v, *zip(*parts, strict=True))
            v.finish()
            return context.get_dummy_value()

        if isinstance(words, types.Integer):
            return types.void(zero, types.int64), bundle
        return types.void(zero, types.UniTuple(types.int64, count)), one

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return intrinsic(function)


def words_maker(makers: Sequence[Any], where: Sequence[str], constants: Mapping[str, int]) -> Any:
    """Gives the intrinsic words(*where), which makes a tuple of one int64 a maker.

    A maker is a function that is inlined. Its parameters name values of `where`, or constants.
    """
    wants = [tuple(inspect.signature(maker.py_func).parameters) for maker in makers]

    def words(context: Any, *given: Any) -> Any:
        kinds = dict(zip(where, given, strict=True)) | dict.fromkeys(constants, types.int64)
        calls = []
        for maker, names in zip(makers, wants, strict=True):
            kind = context.resolve_value_type(maker)
            calls.append((kind, kind.get_call_type(context, [kinds[name] for name in names], {})))

        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            found = dict(zip(where, values, strict=True))
            found |= {name: context.get_constant(types.int64, value) for name, value in constants.items()}
            made = [
                context.get_function(kind, call)(builder, [found[name] for name in names])
                for (kind, call), names in zip(calls, wants, strict=True)
            ]
            return context.make_tuple(builder, signature.return_type, made)

        return types.UniTuple(types.int64, len(makers))(*given), code

    # Numba binds an intrinsic's arguments by its signature
    names = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("context", *where)]
    words.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return intrinsic(words)


def _places(builder: ir.IRBuilder, at: ir.Value, count: int) -> list[list[ir.Value]]:
    """Gives pointers to the words at an address, and to their steps."""
    return [
        [builder.inttoptr(builder.add(at, INT64(8 * (row * count + i))), INT64.as_pointer()) for i in range(count)]
        for row in range(2)
    ]


def _advanced(builder: ir.IRBuilder, words: list[ir.Value], steps: list[ir.Value], times: ir.Value) -> list[ir.Value]:
    return [builder.add(word, builder.mul(step, times)) for word, step in zip(words, steps, strict=True)]


@intrinsic
def advanced(context: Any, words: Any, steps: Any, times: Any) -> Any:
    """advanced(words, steps, times) gives the tuple (word + times * step, ...)."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given, by = (cgutils.unpack_tuple(builder, one) for one in values[:2])
        return context.make_tuple(builder, signature.return_type, _advanced(builder, given, by, values[2]))

    kind = types.UniTuple(types.int64, len(words))
    return kind(kind, kind, types.int64), code


@intrinsic
def put(context: Any, at: Any, words: Any, steps: Any) -> Any:
    """put(at, words, steps) stores words and steps where `name(zero, at)` reads them."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        rows = [cgutils.unpack_tuple(builder, one) for one in values[1:]]
        for places, given in zip(_places(builder, values[0], len(words)), rows, strict=True):
            for place, word in zip(places, given, strict=True):
                builder.store(word, place)
        return context.get_dummy_value()

    kind = types.UniTuple(types.int64, len(words))
    return types.void(types.int64, kind, kind), code


@intrinsic
def taken(context: Any, at: Any, words: Any) -> Any:
    """taken(at, words) gives the words, as many as `words` are, from where `put` has stored them."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        found = [builder.load(place) for place in _places(builder, values[0], len(words))[0]]
        return context.make_tuple(builder, signature.return_type, found)

    kind = types.UniTuple(types.int64, len(words))
    return kind(types.int64, kind), code
