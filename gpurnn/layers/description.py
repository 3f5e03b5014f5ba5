"""A layer as its constructor's arguments describe it: sizes, specs for the kernels, names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from gpurnn_kernels.cached_property import cached_property
from gpurnn_kernels.spec import MOST_INT8, CellName, Spec

from .. import checks
from . import parameters

Kind = Literal["LSTM", "GRU"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_OTHERS: dict[Kind, tuple[str, ...]] = {  # arguments that a kind has not got
    "LSTM": ("reset_after",),
    "GRU": ("proj_size", "forget_bias", "peepholes", "input_forget"),
}
_MIRRORED = ("proj_size", "peepholes", "input_forget")  # an LSTM's arguments that are attributes of every layer
_FOLLOWING = ("cell", "directions", "output_size", "states")  # attributes that follow from the arguments


@dataclass(frozen=True)
class Description:
    """The constructor's arguments of one layer, checked by `described`, and what follows from them.

    The fields after `kind` are the arguments in the order of repr and files, with the constructors' defaults.
    """

    kind: Kind
    input_size: int  # I
    hidden_size: int  # H
    num_layers: int = 1  # L
    bias: bool = True
    batch_first: bool = False
    bidirectional: bool = False
    reverse: bool = False
    reset_after: bool = False
    proj_size: int = 0
    forget_bias: float = 0.0
    peepholes: bool = False
    clip: float | None = None
    input_forget: bool = False
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009 - it does not change
    precision: str | None = None
    fast_math: bool = False

    @property
    def cell(self) -> CellName:
        """The cell's name among the kernels."""
        if self.kind == "LSTM":
            return "lstm"
        return "gru_after" if self.reset_after else "gru_before"

    @property
    def states(self) -> tuple[str, ...]:
        """The letters of the state's arrays."""
        return ("h", "c") if self.kind == "LSTM" else ("h",)

    @property
    def directions(self) -> int:
        """D: 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: proj_size, or H without one."""
        return self.proj_size or self.hidden_size

    def state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """Gives the shapes of h (L * D, B, P) and, for an LSTM, of c (L * D, B, H)."""
        sizes = (self.output_size, self.hidden_size)[: len(self.states)]
        return [(self.num_layers * self.directions, batch, size) for size in sizes]

    @cached_property
    def _directions(self) -> list[list[tuple[Spec, str]]]:
        """Each direction's spec and its parameters' prefix, per layer."""
        found: list[list[tuple[Spec, str]]] = [[] for _ in range(self.num_layers)]
        for index, backward, prefix in parameters.prefixes(self.num_layers, self.bidirectional, self.reverse):
            inputs = self.input_size if index == 0 else self.directions * self.output_size
            options = (self.proj_size, self.peepholes, self.clip, self.precision, self.fast_math)
            found[index].append((Spec(self.cell, inputs, self.hidden_size, self.dtype, backward, *options), prefix))
        return found

    @cached_property
    def specs(self) -> list[list[Spec]]:
        """The kernels' specs, per layer, per direction."""
        return [[spec for spec, _ in directions] for directions in self._directions]

    @cached_property
    def prefixes(self) -> list[list[str]]:
        """The starts of the parameters' names, per layer, per direction."""
        return [[prefix for _, prefix in directions] for directions in self._directions]

    @cached_property
    def names(self) -> list[list[dict[str, str]]]:
        """The parameters' names in full by those without the prefix, per layer, per direction."""
        return [
            [{name: prefix + name for name in parameters.shapes(spec, self.bias)} for spec, prefix in directions]
            for directions in self._directions
        ]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' shapes by their names in full."""
        return {
            prefix + name: shape
            for directions in self._directions
            for spec, prefix in directions
            for name, shape in parameters.shapes(spec, self.bias).items()
        }

    def configuration(self) -> dict[str, Any]:
        """Gives the constructor's arguments in JSON's types."""
        return {name: _plain(getattr(self, name)) for name in ARGUMENTS[self.kind]}

    def attributes(self) -> dict[str, Any]:
        """Gives the attributes that a layer has of its description: its arguments, and what follows from them."""
        return {name: getattr(self, name) for name in (*ARGUMENTS[self.kind], *_MIRRORED, *_FOLLOWING)}

    def call_text(self, name: str) -> str:
        """Writes the call of a constructor `name` that makes such a layer; arguments that have their defaults are left out."""
        words = [
            f"{one}={value!r}" if one in _DEFAULTS else str(value)
            for one, value in self.configuration().items()
            if one not in _DEFAULTS or value != _DEFAULTS[one]
        ]
        return f"{name}({', '.join(words)})"


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, np.dtype) else value


_DEFAULTS = {one.name: _plain(one.default) for one in fields(Description) if one.default is not MISSING}


# the names of the constructors' arguments but for `seed`, in the order of repr and files
ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(one.name for one in fields(Description) if one.name not in ("kind", *others))
    for kind, others in _OTHERS.items()
}

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("input_size", "hidden_size", "num_layers"), checks.size),
    **dict.fromkeys(("bias", "batch_first", "bidirectional", "reverse"), checks.flag),
    "dtype": checks.dtype,
    **dict.fromkeys(("fast_math", "reset_after", "peepholes", "input_forget"), checks.flag),
    "proj_size": partial(checks.size, least=0),
    "forget_bias": checks.number,
    "clip": checks.clip,
}


def described(kind: Kind, configuration: Mapping[str, Any]) -> Description:
    """Checks a constructor's arguments, which may come from a file or a pickle of another version: those that are missing have
    their defaults.

    Raises ValueError for names that this version does not know, missing ones without a default and values out of range,
    TypeError for wrong types, NotImplementedError for values that are not built yet.
    """
    names = ARGUMENTS[kind]
    unknown = [str(name) for name in configuration if name not in names]
    if unknown:
        raise ValueError(f"this version's {kind} has no argument {', '.join(unknown)}: a newer gpurnn wrote it")
    missing = [name for name in names if name not in configuration and name not in _DEFAULTS]
    if missing:
        raise ValueError(f"{kind}: missing {', '.join(missing)}")
    given = {name: configuration.get(name, _DEFAULTS.get(name)) for name in names}
    found = {name: check(name, given[name]) for name, check in _CHECKS.items() if name in given}
    found["precision"] = checks.precision(given["precision"], found["dtype"])
    description = Description(kind, **found)
    _check_together(description)
    return description


def _check_together(one: Description) -> None:
    """Raises ValueError for arguments that do not go together."""
    if one.bidirectional and one.reverse:
        raise ValueError("bidirectional and reverse: a layer of two directions has the reverse one already")
    if one.proj_size >= one.hidden_size:
        raise ValueError(f"proj_size: expected less than hidden_size, {one.hidden_size}, got {one.proj_size}")
    if one.precision == "int8":
        for name, size in (("input_size", one.input_size), ("hidden_size", one.directions * one.hidden_size)):
            if size > MOST_INT8:
                raise ValueError(f"precision 'int8': expected {name} of at most {MOST_INT8} in all directions, got {size}")
    if one.forget_bias and not one.bias:
        raise ValueError("forget_bias: there is no bias to add it to, with bias=False")
    if one.forget_bias and one.input_forget:
        raise ValueError("forget_bias: there is no forget gate of its own to add it to, with input_forget=True")


def refuse_change(kind: Kind, name: str) -> None:
    """Raises AttributeError for a layer's attribute that mirrors the constructor's arguments, or follows from them."""
    if name in ARGUMENTS[kind]:
        new = f"gpurnn.{kind}(**layer.configuration() | {{{name!r}: ...}})"
        way = f"make a new layer, {new}, and give it layer.params by load_params"
    elif name in _MIRRORED:
        way = f"a {kind} has none"
    elif name in _FOLLOWING:
        way = "it follows from the constructor's arguments"
    elif name == "params":
        way = "load_params(mapping) replaces all parameters"
    else:
        return
    raise AttributeError(f"{name} is read-only: {way}")
