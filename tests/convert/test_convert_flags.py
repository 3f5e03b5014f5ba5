"""A wrong flag is caught: with the gates' order, z's sense or the reset form broken on purpose, every self-check fails."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpurnn import gates
from gpurnn.convert import from_onnx, from_torch
from gpurnn.layers import make

SOURCES: dict[str, Callable[[], Any]] = {}


def source(needs: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        SOURCES[f"{make.__name__}-{needs}"] = make
        return make

    return add


@source("torch")
def torch_lstm() -> Any:
    import torch

    return from_torch(torch.nn.LSTM(3, 5, 2, bidirectional=True))


@source("torch")
def torch_gru() -> Any:
    import torch

    return from_torch(torch.nn.GRU(3, 5))


def of_onnx(kind: str, **attributes: Any) -> Any:
    import onnx_models as om

    return from_onnx(om.simple(kind, **attributes))


@source("onnx")
def onnx_lstm() -> Any:
    return of_onnx("LSTM")


@source("onnx")
def onnx_gru_before() -> Any:
    return of_onnx("GRU", linear_before_reset=0)


@source("onnx")
def onnx_gru_after() -> Any:
    return of_onnx("GRU", linear_before_reset=1)


def of_keras(kind: str, **options: Any) -> Any:
    from test_convert_keras import built, from_keras, layers

    return from_keras(built(getattr(layers, kind)(5, **options), 3))


@source("keras")
def keras_lstm() -> Any:
    return of_keras("LSTM")


@source("keras")
def keras_gru_before() -> Any:
    return of_keras("GRU", reset_after=False)


@source("keras")
def keras_gru_after() -> Any:
    return of_keras("GRU", reset_after=True)


def broken_order(patch: pytest.MonkeyPatch) -> None:
    """Two gates change places in every framework."""
    for name in ("TORCH", "KERAS", "ONNX"):
        order = getattr(gates, name)
        swapped = gates.Order(order.lstm[::-1], order.gru[1] + order.gru[0] + order.gru[2])
        patch.setattr(gates, name, swapped)


def broken_sense(patch: pytest.MonkeyPatch) -> None:
    """z is taken as it stands."""
    patch.setattr(gates, "_signed", lambda kind, rows: np.array(rows))


def broken_reset(patch: pytest.MonkeyPatch) -> None:
    """Each form is taken for the other."""
    direction, layer_of = gates.direction, make.layer_of

    def other_direction(kind: Any, order: Any, given: Any, reset_after: bool = False) -> Any:
        return direction(kind, order, given, not reset_after if kind == "GRU" else False)

    def other_layer(kind: Any, configuration: dict[str, Any], params: Any, place: Any) -> Any:
        return layer_of(kind, configuration | {"reset_after": not configuration["reset_after"]}, params, place)

    patch.setattr(gates, "direction", other_direction)
    patch.setattr(make, "layer_of", other_layer)


def broken_bias(patch: pytest.MonkeyPatch) -> None:
    """One of two biases is forgotten."""
    direction = gates.direction

    def without(kind: Any, order: Any, given: Any, reset_after: bool = False) -> Any:
        return direction(kind, order, given._replace(b_h=None), reset_after)

    patch.setattr(gates, "direction", without)


BROKEN = {"order": broken_order, "sense": broken_sense, "reset": broken_reset, "bias": broken_bias}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("flag", ["none", *BROKEN])
def test_broken_flags_are_caught(name: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = name.rpartition("-")[2]
    if not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is missing")
    if "lstm" in name and flag in ("sense", "reset"):
        return  # an LSTM has neither
    if "keras" in name and "after" not in name and flag == "bias":
        return  # one bias
    if flag == "none":
        SOURCES[name]()
        return
    BROKEN[flag](monkeypatch)
    with pytest.raises(ValueError, match=r"the converted layer differs from the source by"):
        SOURCES[name]()
