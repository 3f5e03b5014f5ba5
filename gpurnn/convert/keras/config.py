"""The configuration of a Keras layer: taken over, or refused by the option's name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...layers.description import Kind
from ..check import log

KINDS: dict[str, Kind] = {"LSTM": "LSTM", "GRU": "GRU", "CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}


class Description(NamedTuple):
    """The options of a Keras layer that its weights do not tell. None: not known."""

    kind: Kind | None = None
    reset_after: bool | None = None
    bidirectional: bool = False
    dropout: float = 0.0


def describe(class_name: str, config: Mapping[str, Any], label: str, backward: bool = False) -> Description:
    """Describes a layer by its class and `get_config()`, of any Keras version.

    backward: the layer is the second one of a Bidirectional. Raises ValueError for options that gpurnn has no layer for.
    """
    if class_name == "Bidirectional":
        return _both(config, label)
    if class_name not in KINDS:
        raise ValueError(f"{label}: expected an LSTM, a GRU or a Bidirectional of one, got {class_name}")
    wanted = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    for key, value in wanted.items():
        given = config.get(key, config.get("inner_activation", value) if key == "recurrent_activation" else value)
        if given != value:
            raise ValueError(f"{label}: {key} {_name(given)!r} cannot be represented, only {value!r} can")
    if backward and not config.get("go_backwards"):
        raise ValueError(f"{label}: it runs forward in time")
    if not backward and config.get("go_backwards"):
        raise ValueError(
            f"{label}: go_backwards gives the outputs in reversed order, which gpurnn's reverse=True does not: convert the "
            "layer with go_backwards=False and hand it x[:, ::-1]"
        )
    if config.get("time_major"):
        raise ValueError(f"{label}: time_major=True cannot be represented: the layers of from_keras are batch_first")
    if config.get("stateful"):
        log.warning(
            "%s: stateful: each of its calls goes on from the last, a gpurnn layer's start from zeros or a given state: "
            "hand the returned state to the next call, or use layer.stream(); the state that it holds now is not taken",
            label,
        )
    kind = KINDS[class_name]
    # Keras before 2.1.5 had no such option
    after = class_name == "CuDNNGRU" or bool(config.get("reset_after", False))
    reset_after = after if kind == "GRU" else None
    rates = [config.get(key) or 0 for key in ("dropout", "recurrent_dropout", "dropout_W", "dropout_U")]
    if not all(isinstance(rate, (int, float)) for rate in rates):
        raise ValueError(f"{label}: expected numbers for dropout")
    return Description(kind, reset_after, False, float(max(rates)))


def warn_of_mask(label: str, source: str) -> None:
    log.warning(
        "%s: it stands behind %s: hand `lengths` to the call, or steps that Keras leaves out count; "
        "gpurnn.interop.keras.lengths_of(mask) makes them of a mask",
        *(label, source),
    )


def refuse_state(label: str) -> ValueError:
    return ValueError(
        f"{label}: the model calls it with an initial state that is a constant of the model, which a layer does not keep; "
        "convert the layer itself and hand the state to each call"
    )


def _both(config: Mapping[str, Any], label: str) -> Description:
    merge = config.get("merge_mode", "concat")
    if merge not in ("concat", None):
        raise ValueError(f"{label}: merge_mode {merge!r} cannot be represented: gpurnn puts the directions side by side")
    layer = _layer_config(config.get("layer"), label)
    first = describe(*layer, f"{label}, forward")
    given = config.get("backward_layer")
    second = describe(*_layer_config(given, label), f"{label}, backward", backward=True) if given else first
    if (first.kind, first.reset_after) != (second.kind, second.reset_after):
        raise ValueError(f"{label}: the two directions are of different kinds: {first.kind} and {second.kind}")
    return first._replace(bidirectional=True, dropout=max(first.dropout, second.dropout))


def _layer_config(given: Any, label: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(given, Mapping) or not isinstance(given.get("config"), Mapping):
        raise ValueError(f"{label}: its configuration names no layer inside")
    return str(given.get("class_name")), given["config"]


def _name(given: Any) -> str:
    """Names an activation, which may be a serialised object."""
    if isinstance(given, Mapping):
        config = given.get("config")
        return config if isinstance(config, str) else str(given.get("registered_name") or given.get("class_name"))
    return str(given)
