"""The arguments of a kernel as one record: the host fills it by name, and the kernel reads it by name.

A record is a NamedTuple class. The annotation of a field says what a launch hands over: an array as a pointer or as an
address, or an integer. `record_type` makes the class a type of the compiler, which passes field by field.
"""

from collections.abc import Sequence
from typing import Annotated, Any, get_type_hints

from .compiler import types

Number = Annotated[Any, "storage"]  # an array of the layer's dtype
Wide = Annotated[Any, "wide"]  # an array of the dtype that is computed in: float32 for float16, else the layer's
Lengths = Annotated[Any, types.CPointer(types.int64)]  # an array of int64
Address = Annotated[Any, types.uint64]  # an array, or 0; the kernel addresses its elements in bytes
Count = Annotated[Any, types.uint32]  # a size, or a stride in bytes
Step = Annotated[Any, types.int32]  # a time step, or the distance of two
Size = Annotated[Any, types.int64]  # a size or a stride where products of such are made

_FLOATS = {16: types.float16, 32: types.float32, 64: types.float64}


def float_type(bits: int) -> Any:
    """Returns the type of a float of 16, 32 or 64 bits."""
    return _FLOATS[bits]


def record_type(record: Any, storage: int = 32) -> Any:
    """Makes a record class a type; storage: bits of an element of the layer's dtype."""
    pointers = {"storage": types.CPointer(_FLOATS[storage]), "wide": types.CPointer(_FLOATS[max(storage, 32)])}
    hints = get_type_hints(record, include_extras=True)
    kinds = (hints[name].__metadata__[0] for name in record._fields)
    return types.NamedTuple([pointers.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds], record)


def scalars(signature: Sequence[Any]) -> list[str]:
    """Names the C type of each number that a launch hands over, records field by field."""
    found: list[str] = []
    for kind in signature:
        if isinstance(kind, types.BaseTuple):
            found += scalars(kind.types)
        else:
            found.append("uint64" if isinstance(kind, types.CPointer) else kind.name)
    return found
