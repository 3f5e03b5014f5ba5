"""Layers as PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpurnn_kernels.spec import Array

from .. import gates
from ..gates import Source
from ..layers.description import Description, Kind


def to_torch(layer: Description, params: Mapping[str, Array]) -> Any:
    """Makes the `torch.nn.LSTM` or `GRU` that computes what a layer computes; `from_torch` gives it back, bit for bit.

    The whole bias becomes bias_ih; bias_hh is 0, but for a GRU's b_hn. Raises ValueError for a layer that PyTorch has no
    module for: a reset-before GRU, reverse, peepholes, clip, input_forget.
    """
    import torch

    refused = {"reverse": layer.reverse, "reset_after=False": layer.kind == "GRU" and not layer.reset_after}
    refused |= {"peepholes": layer.peepholes, "input_forget": layer.input_forget, "clip": layer.clip is not None}
    for name, asked in refused.items():
        if asked:
            raise ValueError(f"to_torch: torch.nn.{layer.kind} has no {name}: the layer cannot be represented")
    shape = Shape.of(layer)
    module = shape.module(torch, batch_first=layer.batch_first)
    weights = {name: torch.from_numpy(array) for name, array in shape.weights(params).items()}
    module.load_state_dict(weights, assign=True)
    return module


class Shape(NamedTuple):
    """The sizes and options from which the names and shapes of a PyTorch layer's weights follow."""

    kind: Kind
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    proj_size: int = 0

    @classmethod
    def of(cls, layer: Description) -> Shape:
        """Takes the sizes and options of a layer."""
        sizes = layer.input_size, layer.hidden_size, layer.num_layers
        return cls(layer.kind, *sizes, layer.bias, layer.bidirectional, layer.proj_size)

    @property
    def suffixes(self) -> list[list[str]]:
        """The ends of the weights' names, per layer, per direction."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [[f"_l{layer}{end}" for end in ends] for layer in range(self.num_layers)]

    @property
    def stems(self) -> list[str]:
        """The weights' names without suffixes, in PyTorch's order."""
        return [
            *("weight_ih", "weight_hh"),
            *(("bias_ih", "bias_hh") if self.bias else ()),
            *(("weight_hr",) if self.proj_size else ()),
        ]

    @property
    def names(self) -> list[str]:
        """The weights' names, in the order of PyTorch's flat weights."""
        return [stem + suffix for suffixes in self.suffixes for suffix in suffixes for stem in self.stems]

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Gives the shape of each weight, by its name."""
        rows, out = (4 if self.kind == "LSTM" else 3) * self.hidden_size, self.proj_size or self.hidden_size
        found: dict[str, tuple[int, ...]] = {}
        for index, suffixes in enumerate(self.suffixes):
            inputs = self.input_size if index == 0 else len(suffixes) * out
            one = {"weight_ih": (rows, inputs), "weight_hh": (rows, out), "bias_ih": (rows,), "bias_hh": (rows,)}
            one["weight_hr"] = (self.proj_size, self.hidden_size)
            found |= {stem + suffix: one[stem] for suffix in suffixes for stem in self.stems}
        return found

    def params(self, weights: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """Gives gpurnn's parameters, per layer, per direction. Matrices may be quantised."""
        return [[self._direction(weights, suffix) for suffix in suffixes] for suffixes in self.suffixes]

    def _direction(self, weights: Mapping[str, Any], suffix: str) -> dict[str, Any]:
        stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        source = Source(*(weights[stem + suffix] if stem in self.stems else None for stem in stems))
        return gates.direction(self.kind, gates.TORCH, source, reset_after=self.kind == "GRU")

    def weights(self, params: Mapping[str, Array], gradients: bool = False) -> dict[str, Array]:
        """Gives PyTorch's weights, or their gradients, from gpurnn's parameters, in PyTorch's order."""
        found: dict[str, Array] = {}
        for index, suffixes in enumerate(self.suffixes):
            for suffix in suffixes:
                start = f"layers.{index}." + ("reverse." if suffix.endswith("_reverse") else "")
                names = ("W_x", "W_h", "b", "b_hn", "W_p")
                one = {name: params[start + name] for name in names if start + name in params}
                W_x, W_h, b_x, b_h, W_p, _ = gates.undo(self.kind, gates.TORCH, one, gradients)
                values = {"weight_ih": W_x, "weight_hh": W_h, "bias_ih": b_x, "bias_hh": b_h, "weight_hr": W_p}
                found |= {stem + suffix: value for stem in self.stems if (value := values[stem]) is not None}
        return found

    def configuration(self, dtype: np.dtype[Any], batch_first: bool = False) -> dict[str, Any]:
        """Gives the arguments of gpurnn's constructor, those of the other kind among them, off."""
        found = self._asdict() | {"dtype": dtype, "batch_first": batch_first, "reset_after": self.kind == "GRU"}
        return {name: value for name, value in found.items() if name != "kind"}

    def module(self, torch: Any, batch_first: bool = False) -> Any:
        """Makes PyTorch's layer without numbers yet: the global random generator stays as it is."""
        options = {"bias": self.bias, "batch_first": batch_first, "bidirectional": self.bidirectional, "device": "meta"}
        if self.kind == "LSTM":
            options["proj_size"] = self.proj_size
        return getattr(torch.nn, self.kind)(self.input_size, self.hidden_size, self.num_layers, **options)
