"""`replace`: which modules of a model run on gpurnn, which do not, and why."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize

from ...convert.check import log
from .modules import GRU, LSTM, Recurrent, check

_KINDS: dict[type, type] = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU}
_RECURRENT = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")


def replace(module: torch.nn.Module, *, precision: str | None = None) -> torch.nn.Module:
    """Makes every `torch.nn.LSTM` and `GRU` inside a module, itself included, run on gpurnn; in place.

    Parameters, hooks, optimizers and references to the modules stay as they are; so do weight_norm, spectral_norm, pruning
    and other parametrisations, whose weights are read at every call. Gives the module back.

    precision: of products in eval mode, "bf16" or "int8" (without gradients, on CPUs) or "tf32".

    The logger "gpurnn" is told each module that was replaced (info) and each recurrent module that was left as it is, with
    the reason (warning): subclasses, whose code may compute something else; RNN and the cells, which gpurnn has no module
    for; TorchScript and quantised modules; projections on CUDA. Raises NotImplementedError, and changes nothing, if a module
    has a dtype (float16, bfloat16) or an option that is not built, ValueError for a precision that a module cannot have.
    """
    found: list[tuple[str, torch.nn.Module]] = []
    for name, one in module.named_modules():
        if isinstance(one, Recurrent):
            continue
        reason = _reason(one)
        if reason is None:
            check(one, precision)
            found.append((name, one))
        elif reason:
            log.warning("replace: %r is left alone: %s", name, reason)
    for name, one in found:
        one.__class__ = _class(type(one))
        one.precision = precision  # type: ignore[assignment]
        log.info("replace: %r runs on gpurnn", name)
    if not any(isinstance(one, Recurrent) for one in module.modules()):
        log.warning("replace: nothing in %s runs on gpurnn", type(module).__name__)
    return module


def _reason(module: Any) -> str | None:
    """Says why a module is left alone: nothing for a module of another kind, None if it is replaced."""
    if isinstance(module, torch.jit.ScriptModule):
        kind = module.original_name
        return f"it is TorchScript, of {kind}: replace first, then torch.jit.trace" if kind in _RECURRENT else ""
    own = _unparametrized(type(module))
    if own in _KINDS:
        if getattr(module, "proj_size", 0) and module.weight_ih_l0.is_cuda:
            return "projections are not built on CUDA"
        return None
    for base in _KINDS:
        if isinstance(module, base):
            return f"{own.__name__} is a subclass of torch.nn.{base.__name__} that may compute something else"
    if own.__name__ not in _RECURRENT:
        return ""
    if own.__module__.startswith("torch.nn.modules"):
        return f"gpurnn has no module for torch.nn.{own.__name__}"
    return f"{own.__module__}.{own.__name__} is no plain torch.nn layer (quantised modules are not)"


def _unparametrized(cls: type) -> type:
    """The class that torch.nn.utils.parametrize made a class of, if it did."""
    return cls.__bases__[0] if cls.__module__ == parametrize.__name__ else cls


def _class(cls: type) -> type:
    """The class of ours that takes a class's place."""
    if cls in _KINDS:
        return _KINDS[cls]
    # a parametrised module has a class of its own, with a property for each weight that is computed
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (_KINDS[cls.__bases__[0]],), body)
