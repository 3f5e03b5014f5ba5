"""The constructor's arguments of a layer: attributes that nobody changes, and what repr, files and pickles say of a layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

_LSTMS = ("proj_size", "peepholes", "input_forget")  # an LSTM's arguments that are attributes of every layer
_FOLLOWING = ("cell", "directions", "output_size", "states")  # attributes that follow from the arguments


class Configured:
    """A layer has its constructor's arguments as attributes, which cannot be changed."""

    states: ClassVar[tuple[str, ...]]  # the arrays of the state, as their names go
    _arguments: ClassVar[tuple[str, ...]]  # of the constructor: attributes, repr, files and pickles follow them

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    reverse: bool
    clip: float | None
    dtype: np.dtype[Any]
    precision: str | None
    fast_math: bool
    # what a GRU does not have
    proj_size: int = 0
    peepholes: bool = False
    input_forget: bool = False

    def _set(self, **attributes: Any) -> None:
        """Sets attributes that users cannot."""
        self.__dict__.update(attributes)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_change(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_change(name)
        super().__delattr__(name)

    def _refuse_change(self, name: str) -> None:
        """Raises AttributeError for an attribute that mirrors the constructor's arguments, or follows from them."""
        if name in self._arguments:
            new = f"gpurnn.{self._kind().__name__}(**layer.configuration() | {{{name!r}: ...}})"
            way = f"make a new layer, {new}, and give it layer.params by load_params"
        elif name in _LSTMS:
            way = f"a {self._kind().__name__} has none"
        elif name in _FOLLOWING:
            way = "it follows from the constructor's arguments"
        elif name == "params":
            way = "load_params(mapping) replaces all parameters"
        else:
            return
        raise AttributeError(f"{name} is read-only: {way}")

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, JSON's types only."""
        found = {name: getattr(self, name) for name in self._arguments}
        return {name: value.name if isinstance(value, np.dtype) else value for name, value in found.items()}

    @classmethod
    def _kind(cls) -> type[Configured]:
        """LSTM or GRU: a subclass, whose constructor may take anything, is one of them in files and in its arguments."""
        return next(one for one in cls.__mro__ if "_arguments" in vars(one))

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The arguments that may be left out, with the values that they have then."""
        given = inspect.signature(cls._kind().__init__).parameters
        return {name: given[name].default for name in cls._arguments if given[name].default is not inspect.Parameter.empty}

    @classmethod
    def completed(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration that another version may have written: arguments that it did not know have their defaults.

        Raises ValueError for arguments that this version does not know, and for missing ones that have no default.
        """
        kind, defaults = cls._kind().__name__, cls._defaults()
        unknown = [str(name) for name in configuration if name not in cls._arguments]
        if unknown:
            raise ValueError(f"this version's {kind} has no argument {', '.join(unknown)}: a newer gpurnn wrote it")
        missing = [name for name in cls._arguments if name not in configuration and name not in defaults]
        if missing:
            raise ValueError(f"{kind}: missing {', '.join(missing)}")
        return defaults | dict(configuration)

    def __repr__(self) -> str:
        defaults = self._defaults()
        words = [
            f"{name}={value!r}" if name in defaults else str(value)
            for name, value in self.configuration().items()
            if name not in defaults or value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(words)})"
