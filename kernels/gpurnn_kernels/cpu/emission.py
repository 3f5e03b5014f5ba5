"""Functions that emit vector code, as intrinsics of kernels: straight-line code for one vector, or for a bundle of them."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .vector import INT64, Bundles, Vectors

BUNDLE = 4  # vectors that a bundle holds


def pointwise(emit: Callable[..., None]) -> Any:
    """Makes `emit(v, *words)` an intrinsic `name(zero, (word, ...))`; `name(zero, ((word, ...), (step, ...)))` is for BUNDLE
    vectors at once, whose words are `step` apart."""

    def function(context: Any, zero: Any, words: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            given = cgutils.unpack_tuple(builder, values[1])
            if bundled:
                starts, steps = (cgutils.unpack_tuple(builder, one) for one in given)
                builder.call(_bundle_function(builder.module, emit, signature.args[0], len(starts)), starts + steps)
            else:
                emit(Vectors(builder, signature.args[0]), *given)
            return context.get_dummy_value()

        bundled = isinstance(words[0], types.BaseTuple)
        item = types.UniTuple(types.int64, len(words[0])) if bundled else types.int64
        return types.void(zero, types.UniTuple(item, len(words))), code

    function.__name__ = function.__qualname__ = emit.__name__
    function.__doc__ = emit.__doc__
    return intrinsic(function)


def _bundle_function(module: ir.Module, emit: Callable[..., None], element: types.Float, words: int) -> ir.Function:
    """The module's function of words and steps for a bundle, emitted at first use. A function of its own: in a loop, the
    compiler would compute every address and load every constant beforehand, and keep them on the stack."""
    name = f"gpurnn_{emit.__name__}_f{element.bitwidth}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * 2 * words), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    starts, steps = list(function.args[:words]), list(function.args[words:])
    parts = [_advanced(builder, starts, steps, INT64(part)) for part in range(BUNDLE)]
    bundle = Bundles(builder, element, BUNDLE)
    emit(bundle, *zip(*parts, strict=True))
    bundle.finish()
    builder.ret_void()
    return function


def _advanced(builder: ir.IRBuilder, words: list[ir.Value], steps: list[ir.Value], times: ir.Value) -> list[ir.Value]:
    return [builder.add(word, builder.mul(step, times)) for word, step in zip(words, steps, strict=True)]


@intrinsic
def advanced(context: Any, words: Any, steps: Any, times: Any) -> Any:
    """advanced(words, steps, times): (word + times * step, ...)"""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given, by = (cgutils.unpack_tuple(builder, one) for one in values[:2])
        return context.make_tuple(builder, signature.return_type, _advanced(builder, given, by, values[2]))

    kind = types.UniTuple(types.int64, len(words))
    return kind(kind, kind, types.int64), code
