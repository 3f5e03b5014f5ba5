"""The roof of LSTM and GRU: what both have beside their constructors and calls, each in the file of its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from gpurnn_kernels.spec import Array, CellName

from ..backend import HOST, Place
from .call import Plan, plan
from .description import Description, Kind, described, refuse_change
from .parameters import Params
from .prepared import Prepared

if TYPE_CHECKING:
    from .gradients import VJP
    from .stream import Stream

State = TypeVar("State")  # a pair of arrays (h, c) for an LSTM, an array for a GRU


class RecurrentLayer(Generic[State]):
    """The base of `LSTM` and `GRU`, for `isinstance` and annotations; it has no constructor of its own.

    A layer has its constructor's arguments as attributes, which cannot be changed. A subclass may have a constructor that
    takes anything: in files and in `repr` it is an LSTM or a GRU.
    """

    _kind: ClassVar[Kind]
    _prepared: Prepared

    input_size: int  # I
    hidden_size: int  # H
    num_layers: int  # L
    bias: bool
    batch_first: bool
    bidirectional: bool
    reverse: bool
    clip: float | None
    dtype: np.dtype[Any]
    precision: str | None
    fast_math: bool
    # an LSTM's; a GRU has them, off
    proj_size: int
    peepholes: bool
    input_forget: bool
    # these follow from the arguments
    cell: CellName
    directions: int  # D
    output_size: int  # P: proj_size, or H without one
    states: tuple[str, ...]  # the letters of the state's arrays

    def _begin(self, description: Description, params: Mapping[str, Array], place: Place = HOST) -> None:
        """Takes the constructor's arguments and the first parameters."""
        self.__dict__.update(description.attributes(), _prepared=Prepared(description, params, place=place))

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_change(self._kind, name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        refuse_change(self._kind, name)
        super().__delattr__(name)

    def configuration(self) -> dict[str, Any]:
        """Gives the constructor's arguments but for `seed`, in JSON's types.

        gpurnn.GRU(**gru.configuration() | {"batch_first": True})
        """
        return self._prepared.description.configuration()

    @property
    def params(self) -> Params:
        """The parameters: a read-only mapping of names to read-only arrays, of shapes

        "layers.0.W_x" (G*H, I), "layers.0.W_h" (G*H, H or P), "layers.0.b" (G*H,), and so on for each layer; the other
        direction's are "layers.0.reverse.W_x" and so on; a GRU with reset_after=True has "layers.0.b_hn" (H,) besides, an
        LSTM "layers.0.W_p" (P, H) with proj_size and "layers.0.peephole" (3*H,), order f, i, o, with peepholes.
        """
        return self._prepared.arrays

    def load_params(self, mapping: Mapping[str, Array]) -> None:
        """Replaces all parameters by copies of the given arrays, named as in `params`.

            layer.load_params(layer.params | {"layers.0.b": b})

        Weights that came as integers, from a quantised model or an int8 file, are rounded anew from the given arrays.
        All or nothing: ValueError for missing or extra names and wrong shapes, TypeError for wrong types and dtypes. Calls
        under way in other threads finish with the parameters that they started with.
        """
        self._prepared = self._prepared.renewed(mapping)

    def with_precision(self, precision: str | None) -> Self:
        """Gives a copy of the layer whose products have another precision; its parameters stay float32. A layer of
        given integers keeps them for "int8" alone.

            small = layer.with_precision("int8")

        Args:
            precision: as the constructor takes it: "bf16", "int8", "tf32", or None for that of the dtype.

        Raises ValueError and TypeError as the constructor does.
        """
        return self.with_params(self.configuration() | {"precision": precision}, self._prepared.given)

    def vjp(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[tuple[Array, State], VJP[State]]:
        """Runs the layer and gives its gradients' function (the vector-Jacobian product).

            (y, state), vjp = layer.vjp(x)
            grads = vjp(dy)  # grads.x, grads.state, grads.params

        Args:
            x, state, lengths: what a call takes, in its shapes and dtypes.

        Returns what the call `layer(x, state, lengths)` gives, bit for bit, and `vjp(dy, dstate=None)`, which gives
        `Gradients` and may be called more than once. The same arrays give the same bits on any number of threads. Raises
        as the call does, and NotImplementedError with precision "bf16" or "int8".
        """
        from .gradients import vjp

        return vjp(self._prepared, x, state, lengths)

    def stream(self, batch_size: int = 1, state: State | None = None, *, threads: int | None = None) -> Stream[State]:
        """Gives a `Stream`, which is fed one step at a time and keeps the state.

            stream = layer.stream(batch_size=2)
            h = stream.step(x_t)  # (2, I) -> (2, H)

        Args:
            batch_size: B, the number of sequences.
            state: as a call takes it, with B rows; None for zeros.
            threads: the number that its steps may use on the CPU, >= 1; None: as many as calls.

        Raises ValueError for two directions or reverse and for wrong shapes, TypeError for wrong types and dtypes.
        """
        from .stream import Stream

        return Stream(self._prepared, batch_size, state, threads)

    def plan(self, x: Array, lengths: Any = None) -> Plan:
        """Tells which kernels a call would run, on what, and why.

            print(layer.plan(x))

        Args:
            x, lengths: what the call would take, in its shapes and dtypes.

        Raises as the call does.
        """
        return plan(self._prepared, repr(self), x, lengths)

    def to_torch(self) -> Any:
        """Makes the torch.nn.LSTM or torch.nn.GRU that computes the same, with this layer's parameters.

            module = gpurnn.LSTM(40, 128).to_torch()

        Its products are those of its dtype, whatever the layer's precision. Raises ValueError for what PyTorch has not: a GRU
        with the reset before, reverse, peepholes, clip, input_forget.
        """
        from ..export.torch import to_torch

        return to_torch(self._prepared.description, self.params)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes parameters and constructor arguments to a safetensors file, atomically. The weights of a layer with
        precision "bf16" are bfloat16 there, those of "int8" 8-bit integers with a scale for each row.

            layer.save("layer.safetensors")
            layer = gpurnn.load("layer.safetensors")

        Raises OSError where nothing can be written, ValueError for weights that are not finite, or above 1e38, with
        precision "int8".
        """
        from .files import save

        save(path, self._prepared.description, self._prepared.given)

    @classmethod
    def with_params(cls, configuration: Mapping[str, Any], arrays: Mapping[str, Array], place: Place = HOST) -> Self:
        """Makes a layer of a configuration, arguments that are missing by default, with these parameters, none drawn. Weights
        may be quantised.

        place: a device whose arrays the parameters are. They stay there, uncopied, and the layer is for calls there alone.

        Raises ValueError, TypeError and NotImplementedError as the constructor and `load_params` do.
        """
        layer = cls.__new__(cls)
        layer._begin(described(cls._kind, configuration), arrays, place)
        return layer

    def __getstate__(self) -> dict[str, Any]:
        """Gives what copies and pickles are made of: arguments, parameters, and the attributes that users have set."""
        state: dict[str, Any] = {"configuration": self.configuration(), "params": self._prepared.given}
        given = self._prepared.description.attributes()
        own = {name: value for name, value in vars(self).items() if name not in given and name != "_prepared"}
        return state | {"attributes": own} if own else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state.get("attributes", {}))
        self._begin(described(self._kind, state["configuration"]), state["params"])

    def __repr__(self) -> str:
        return self._prepared.description.call_text(type(self).__name__)
