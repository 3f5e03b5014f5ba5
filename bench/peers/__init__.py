"""One module per implementation, all with the names of `Peer`; a module is loaded only in the process that serves it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from bench.harness.errors import Missing
from bench.peers.peer import Peer, Run, Step, Train

__all__ = ["Peer", "Run", "Step", "Train", "load"]


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
