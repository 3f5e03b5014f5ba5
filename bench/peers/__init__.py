"""One module per implementation, all with the names of `Peer`; a module is loaded only in the process that serves it.

Each builds from weights in gpurnn's layout (bench/data.py) and computes in float32 on the CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from bench.harness.cases import Case
from bench.harness.data import F32, Arrays
from bench.harness.errors import Missing

Run = Callable[[F32], F32]  # x (T, B, I) -> y (T, B, H), from a zero state
Step = Callable[[F32], F32]  # x_t (B, I) -> h (B, H), from the state that the last call left; first from zeros
Train = Callable[[F32, F32], Arrays]  # x, dy (T, B, H) -> gradients of x and of the weights, named as in bench/data.py


class Peer(Protocol):
    """What an implementation offers; a `build` that it cannot offer raises `Unsupported` with the reason."""

    def version(self) -> str:
        """As its package tells it."""

    def set_threads(self, n: int) -> None:
        """By the package's own call; the environment was set before the process started."""

    def build(self, case: Case, weights: Arrays) -> Run:
        """The whole sequence in one call."""

    def build_step(self, case: Case, weights: Arrays) -> Step:
        """One step a call, the state kept between calls."""

    def build_train(self, case: Case, weights: Arrays, reload: bool) -> Train:
        """Forward and backward; `reload` hands over changed weights before each call, where that is a call of its own.

        The arrays may be in the implementation's own layout until `in_our_layout` of the same module maps them.
        """

    def in_our_layout(self, case: Case, gradients: Arrays) -> Arrays:
        """Gradients as `build_train` gives them, mapped to gpurnn's gate order (outside the timed call)."""


def load(name: str) -> Peer:
    """Raises `Missing` when the implementation, or what it needs, is not installed; a broken one fails as it fails."""
    try:
        return cast(Peer, importlib.import_module(f"bench.peers.{name}"))
    except ModuleNotFoundError as error:
        if error.name is None or "." in error.name:
            raise
        raise Missing(f"{name} is not installed ({error})") from None


if TYPE_CHECKING:
    from bench.peers import gpurnn, numpy, onnxruntime, openvino, torch

    ALL: tuple[Peer, ...] = (gpurnn, torch, onnxruntime, openvino, numpy)
