"""What LSTM and GRU share: parameters, stacking, directions, states, layouts. Written once; a backend runs one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from gpurnn_kernels.spec import Array, CellName, Spec

from . import checks, coupling, parameters
from .backend import Place
from .call import Arguments, PlainCall, for_plain_call
from .configuration import Configured
from .once import Once

if TYPE_CHECKING:
    from .stream import Stream
    from .training import VJP

DTYPES = ("float16", "float32", "float64")
_MADE = ("_prepared", "_known_shapes", "_directions", "_specs_and_names", "_shapes")  # attributes that no copy takes along


class Prepared:
    """One set of parameters, and its packed layers in each backend that has asked. Replaced, never changed."""

    def __init__(
        self,
        specs: list[list[Spec]],
        names: list[list[dict[str, str]]],
        arrays: Mapping[str, Array],
        coupled: bool,
        previous: Prepared | None,
    ) -> None:
        self.arrays = arrays
        self._previous: dict[Any, list[Any]] = dict(previous._layers or previous._previous) if previous else {}
        self._specs, self._names, self._coupled = specs, names, coupled
        self._layers: dict[Any, list[Any]] = {}
        self.plain: dict[tuple[int, ...], PlainCall] = {}

    def layers(self, kernels: Any) -> list[Any]:
        """The backend's prepared layers, made at first use."""
        found = self._layers.get(kernels)
        if found is None:
            before = self._previous.pop(kernels, None) or [None] * len(self._specs)
            made = [
                kernels.prepare(specs, [self._of(direction) for direction in names], layer)
                for specs, names, layer in zip(self._specs, self._names, before, strict=True)
            ]
            # of two threads that come first, one packs in vain: a lock might stay held for ever in a forked child
            found = self._layers.setdefault(kernels, made)
        return found

    def _of(self, names: dict[str, str]) -> dict[str, Array]:
        """One direction's arrays, by their names without the prefix."""
        found = {short: self.arrays[name] for short, name in names.items()}
        return coupling.tied(found) if self._coupled else found

    def gradients(self, found: Mapping[str, Array]) -> dict[str, Array]:
        """Of the parameters, from what the kernels give."""
        own = {name: found[name] for name in self.arrays}
        return coupling.untied(own) if self._coupled else own


class RecurrentLayer(Configured):
    """Base of `LSTM` and `GRU`; not for direct use."""

    def _configure(
        self,
        *,
        bias: bool,
        batch_first: bool,
        bidirectional: bool,
        reverse: bool,
        dtype: Any,
        precision: str | None,
        fast_math: bool,
        **sizes: Any,
    ) -> None:
        self._set(**{name: checks.size(name, value) for name, value in sizes.items()})
        self._known_shapes: dict[tuple[int, ...], dict[str, Any]] = {}  # of plain calls: what `Arguments` found
        self._set(
            bias=checks.flag("bias", bias),
            batch_first=checks.flag("batch_first", batch_first),
            bidirectional=checks.flag("bidirectional", bidirectional),
            reverse=checks.flag("reverse", reverse),
        )
        if bidirectional and reverse:
            raise ValueError("bidirectional and reverse: a layer of two directions has the reverse one already")
        if dtype is None:
            raise TypeError(f"dtype: expected one of {', '.join(DTYPES)}, got None")
        given = np.dtype(dtype)
        if given.name not in DTYPES or not given.isnative:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {given}")
        # NumPy's own object: one that was unpickled is equal to it, and another
        self._set(dtype=np.dtype(given.type))
        self._set(precision=checks.precision(precision, self.dtype), fast_math=checks.flag("fast_math", fast_math))

    def _start(self, arrays: Mapping[str, Array]) -> None:
        """Takes the first parameters, from `_draw` or a file."""
        self._prepared = self._prepare(arrays)

    def _draw(self, seed: Any) -> dict[str, Array]:
        return parameters.draw(self._shapes, self.hidden_size, self.dtype, seed)

    @property
    def cell(self) -> CellName:
        raise NotImplementedError

    @property
    def directions(self) -> int:
        """D: 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: proj_size, or H without one."""
        return self.proj_size or self.hidden_size

    def state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """Of h (L * D, B, P) and c (L * D, B, H), or h."""
        sizes = (self.output_size, self.hidden_size)[: len(self.states)]
        return [(self.num_layers * self.directions, batch, size) for size in sizes]

    @Once
    def _directions(self) -> list[list[tuple[Spec, str]]]:
        """Per layer, per direction: its spec and its parameters' prefix."""
        found: list[list[tuple[Spec, str]]] = [[] for _ in range(self.num_layers)]
        for index, backward, prefix in parameters.prefixes(self.num_layers, self.bidirectional, self.reverse):
            inputs = self.input_size if index == 0 else self.directions * self.output_size
            options = (self.proj_size, self.peepholes, self.clip, self.precision, self.fast_math)
            found[index].append((Spec(self.cell, inputs, self.hidden_size, self.dtype, backward, *options), prefix))
        return found

    @Once
    def _specs_and_names(self) -> tuple[list[list[Spec]], list[list[dict[str, str]]]]:
        """Per layer, per direction: its spec, and its parameters' names in full by those without the prefix."""
        layers = self._directions
        names = [
            [{name: prefix + name for name in parameters.shapes(spec, self.bias)} for spec, prefix in directions]
            for directions in layers
        ]
        return [[spec for spec, _ in directions] for directions in layers], names

    @Once
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            prefix + name: shape
            for directions in self._directions
            for spec, prefix in directions
            for name, shape in parameters.shapes(spec, self.bias).items()
        }

    def _prepare(self, given: Mapping[str, Any]) -> Prepared:
        arrays = parameters.checked(given, self._shapes, self.dtype)
        previous = getattr(self, "_prepared", None)
        return Prepared(*self._specs_and_names, arrays, self.input_forget, previous)

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters: a read-only mapping of names to read-only arrays, of shapes

        "layers.0.W_x" (G*H, I), "layers.0.W_h" (G*H, H or P), "layers.0.b" (G*H,), and so on for each layer; the other
        direction's are "layers.0.reverse.W_x" and so on; a GRU with reset_after=True has "layers.0.b_hn" (H,) besides, an
        LSTM "layers.0.W_p" (P, H) with proj_size and "layers.0.peephole" (3*H,), order f, i, o, with peepholes.
        """
        return self._prepared.arrays

    def load_params(self, mapping: Mapping[str, Array]) -> None:
        """Replaces all parameters by copies of the given arrays, named as in `params`.

        All or nothing: ValueError for missing or extra names and wrong shapes, TypeError for wrong types and dtypes. Calls
        under way in other threads finish with the parameters that they started with.
        """
        self._prepared = self._prepare(mapping)

    def checked_state(self, name: str, state: Any, batch: int, place: Place, unbatched: bool = False) -> list[Array | None]:
        """The state's arrays as (L * D, B, P) and (L * D, B, H), contiguous; None each when there is none."""
        if state is None:
            return [None] * len(self.states)
        arrays = [state]
        if len(self.states) == 2:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
            arrays = list(state)
        found: list[Array | None] = []
        for letter, value, (count, _, size) in zip(self.states, arrays, self.state_shapes(batch), strict=True):
            letters = "P" if letter == "h" and self.proj_size else "H"
            label = f"{name}'s {letter}" if len(self.states) == 2 else name
            checked = checks.array(label, value, self.dtype, place)
            if unbatched:
                checks.shape(label, checked, [count, size], f"L*D, {letters}")
                checked = checked[:, None]
            else:
                checks.shape(label, checked, [count, batch, size], f"L*D, B, {letters}")
            found.append(place.contiguous(checked))
        return found

    def state_as_given(self, arrays: list[Array], unbatched: bool) -> Any:
        """A pair for the LSTM, an array for the GRU."""
        shaped = [array[:, 0] if unbatched else array for array in arrays]
        return tuple(shaped) if len(shaped) == 2 else shaped[0]

    def empty_state(self, batch: int, place: Place) -> list[Array]:
        return [place.empty(shape, self.dtype) for shape in self.state_shapes(batch)]

    def rows_of(self, arrays: list[Array] | list[Array | None], index: int) -> list[Any]:
        """Layer `index`'s part of (L * D, B, ..) arrays: (D, B, ..)."""
        if self.num_layers == 1:
            return arrays
        part = slice(index * self.directions, (index + 1) * self.directions)
        return [None if array is None else array[part] for array in arrays]

    def _run(self, x: Any, state: Any, lengths: Any) -> tuple[Array, Any]:
        if state is None and lengths is None:
            usual = type(x) is ndarray and x.dtype is self.dtype and x.flags.carray
            given = x if usual else for_plain_call(x, self.dtype)
            if given is not None:
                plain = self._prepared.plain.get(given.shape)
                if plain is not None:
                    return plain(given)
        arguments = Arguments(self, x, state, lengths)
        prepared, place = self._prepared, arguments.place
        kernels = place.kernels
        layers = prepared.layers(kernels)
        with place.current():
            y = arguments.output()
            final = self.empty_state(arguments.batch, place)
            # stacked layers write y and one scratch array in turn, so that the last one writes y
            targets = [y, arguments.output(lent=True) if len(layers) > 1 else y]
            source = arguments.x
            for index, layer in enumerate(layers):
                out = targets[(len(layers) - 1 - index) % 2]
                initial = self.rows_of(arguments.state, index)
                kernels.forward(layer, source, initial, arguments.lengths, out, self.rows_of(final, index))
                source = out
        if arguments.plain:
            PlainCall(self, arguments, prepared, layers).stay()
        return arguments.as_given(y), self.state_as_given(final, arguments.unbatched)

    def vjp(self, x: Array, state: Any = None, lengths: Any = None) -> tuple[Any, VJP]:
        """Runs the layer and gives its gradients' function.

        -> out, vjp: `out` is what the call `layer(x, state, lengths)` gives, bit for bit; `vjp(dy, dstate=None)` gives
        `Gradients(x, state, params)` and may be called more than once. dy has y's shape (None: zeros), dstate the
        returned state's. Gradients of x past `lengths` are 0. The same arrays give the same bits on any number of threads.
        """
        from .training import vjp

        return vjp(self, x, state, lengths)

    def stream(self, batch_size: int = 1, state: Any = None, *, threads: int | None = None) -> Stream:
        """A `Stream` that is fed one step at a time and keeps the state.

        threads: the number that its steps may use on the CPU, >= 1; None: as many as calls. Raises ValueError for two
        directions or reverse.
        """
        from .stream import Stream

        return Stream(self, batch_size, state, threads)

    def plan(self, x: Array, lengths: Any = None) -> Plan:
        """What a call with this x would run: `str()` tells which kernels, on what, and why."""
        arguments = Arguments(self, x, None, lengths)
        kernels = arguments.place.kernels
        layers = self._prepared.layers(kernels)
        with arguments.place.current():
            lines = [kernels.describe(layer, arguments.x, arguments.lengths) for layer in layers]
        return Plan(repr(self), x.shape, lines)

    def to_torch(self) -> Any:
        """The torch.nn.LSTM or torch.nn.GRU that computes the same, with this layer's parameters.

        Raises ValueError for what PyTorch has not: a GRU with the reset before, reverse, peepholes, clip, input_forget.
        """
        from .convert import to_torch

        return to_torch(self)

    def save(self, path: Any) -> None:
        """Writes parameters and constructor arguments to a safetensors file, atomically."""
        from .files import save

        save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"configuration": self.configuration(), "params": dict(self.params)}
        own = {name: value for name, value in vars(self).items() if name not in self._arguments and name not in _MADE}
        return state | {"attributes": own} if own else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = type(self).with_params(self.completed(state["configuration"]), state["params"])
        self.__dict__.update(state.get("attributes", {}))
        self.__dict__.update(made.__dict__)

    @classmethod
    def with_params(cls, configuration: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
        """A layer of a configuration, with these parameters instead of drawn ones."""
        layer = cls.__new__(cls)
        layer._set_up(**configuration)
        layer._start(arrays)
        return layer

    def _set_up(self, **arguments: Any) -> None:
        """Checks and sets the constructor's arguments."""
        raise NotImplementedError


class Plan:
    """What a call would run; `str()` tells."""

    def __init__(self, layer: str, shape: tuple[int, ...], layers: list[str]) -> None:
        self.layers = layers
        self._head = f"{layer} on x {shape}"

    def __str__(self) -> str:
        return "\n".join([self._head, *(f"  layer {index}: {line}" for index, line in enumerate(self.layers))])

    __repr__ = __str__
