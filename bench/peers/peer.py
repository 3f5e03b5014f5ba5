"""The functions that every implementation has; weights are in gpurnn's layout (bench/harness/data.py), in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays, Layers

Run = Callable[[F32], F32]  # x (T, B, I) -> y (T, B, D*H), from a zero state
Step = Callable[[F32], F32]  # x_t (B, I) -> h (B, H), from the state that the last call left; first from zeros
Train = Callable[[F32, F32], Arrays]  # x, dy (T, B, H) -> gradients of x and of the weights, named as in bench/harness/data.py


class Peer(Protocol):
    """An implementation's functions; a `build` that it cannot offer raises `Unsupported` with the reason."""

    def version(self) -> str:
        """The version that its package tells."""

    def set_threads(self, n: int) -> None:
        """Sets it by the package's own call; the environment was set before the process started."""

    def build(self, case: Case, weights: Layers, precision: str) -> Run:
        """The whole sequence in one call, of ragged rows `case.lengths` steps; x and y are float32 in every precision."""

    def build_step(self, case: Case, weights: Layers, precision: str) -> Step:
        """One step a call, the state kept between calls; of one direction."""

    def build_train(self, case: Case, weights: Arrays, reload: bool) -> Train:
        """Forward and backward of one layer in float32; `reload` hands over changed weights before each call, where that is a
        call of its own.

        The arrays may be in the implementation's own layout until `in_our_layout` of the same module maps them.
        """

    def in_our_layout(self, case: Case, gradients: Arrays) -> Arrays:
        """Gradients as `build_train` gives them, mapped to gpurnn's gate order (outside the timed call)."""
