"""The configuration of a Keras model: its layers' own, and the arguments that the model calls each with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

TEXT = 8 << 20  # bytes of a configuration; as Python's objects it is up to 30 times as large
RECURRENT = ("LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU", "SimpleRNN", "RNN", "Bidirectional")
# layers that do not hand on a mask, in any Keras
STOPS = ("Flatten", "Reshape", "Permute", "RepeatVector", "Conv", "Pool", "UpSampling", "ZeroPadding", "Cropping")


class Layer(NamedTuple):
    """A layer in a model, with the model's other layers by their names."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    calls: list[Any]  # as the model keeps them; none in a Sequential
    beside: dict[str, int]
    before: str | None  # the layer before it in a Sequential
    outer: int | None  # the model that it stands in, if that is a layer itself
    inside: dict[str, int] | None = None  # a model's layers by their names


class Model:
    """The layers of a model, those of models inside it included."""

    def __init__(self, text: str) -> None:
        """Reads JSON. Raises ValueError for what is no configuration, or a longer one than any model has."""
        if len(text) > TEXT:
            raise ValueError(f"its model's configuration has {len(text)} characters, expected at most {TEXT}")
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its model's configuration is damaged: {error}") from None
        self.layers: list[Layer] = []
        waiting: list[tuple[Any, dict[str, int], str | None, int | None]] = [(whole, {}, None, None)]
        while waiting:
            waiting += reversed(list(self._add(*waiting.pop())))

    def _add(self, one: Any, beside: dict[str, int], before: str | None, outer: int | None) -> Iterator[Any]:
        """Keeps a layer; gives the layers inside it."""
        if not isinstance(one, Mapping):
            return
        config = one.get("config")
        layers = config.get("layers") if isinstance(config, Mapping) else config
        index = len(self.layers)
        inside: dict[str, int] | None = {} if isinstance(layers, list) else None
        name, class_name, calls = _name(one), str(one.get("class_name")), one.get("inbound_nodes")
        settings = config if isinstance(config, Mapping) else {}
        calls = calls if isinstance(calls, list) else []
        self.layers.append(Layer(name, class_name, settings, calls, beside, before, outer, inside))
        beside[name] = index
        if inside is not None and isinstance(layers, list):
            names = [None, *map(_name, layers)] if class_name == "Sequential" else [None] * len(layers)
            yield from ((layer, inside, previous, index) for layer, previous in zip(layers, names, strict=False))
        elif class_name != "Bidirectional" and isinstance(settings.get("layer"), Mapping):
            yield settings["layer"], {}, None, index  # of a wrapper: TimeDistributed

    def named(self, name: str) -> list[int]:
        """Gives the indices of the layers of a name."""
        return [index for index, layer in enumerate(self.layers) if layer.name == name]

    def mask_of(self, index: int) -> str | None:
        """Names the layer that masks steps of this one, as far as the model tells; None if none does."""
        layer = self.layers[index]
        source = self._masking(index)
        if any(_references(call.get("mask")) for call in self._calls(index)):
            return source or "a mask that its call is given"
        # Keras 3 writes masks into every call; but one that a model around this one is given it does not
        written = any(isinstance(call, Mapping) for call in layer.calls)
        nested = layer.outer is not None and self.layers[layer.outer].outer is not None
        return source if nested or not written else None

    def _masking(self, index: int) -> str | None:
        """Names the layer before this one that masks, if masks get from there to here."""
        seen, waiting = {index}, [index]
        while waiting:
            for before in self._before(waiting.pop()):
                layer = self.layers[before]
                if layer.class_name == "Masking" or (layer.class_name == "Embedding" and layer.config.get("mask_zero")):
                    return f"{layer.class_name} {layer.name!r}"
                if before not in seen and not _stops(layer):
                    seen.add(before)
                    waiting.append(before)
        return None

    def keeps_state(self, index: int) -> bool:
        """Tells whether the model calls the layer with initial states that are the model's own numbers, not all of them 0."""
        given = [call.get("initial_state") for call in self._calls(index)]
        states = [one for state in given for one in (state if isinstance(state, list) and not _refers(state) else [state])]
        return any(not _references(state) and not _zeros(state) for state in states if state is not None)

    def _before(self, index: int) -> list[int]:
        """Gives the layers whose outputs this one's outputs come from."""
        layer = self.layers[index]
        if not layer.inside:
            return self._given(index)
        outputs = _references(layer.config.get("output_layers")) or list(layer.inside)[-1:]
        return [layer.inside[name] for name in outputs if name in layer.inside]

    def _given(self, index: int) -> list[int]:
        """Gives the layers whose outputs this one is called with; at a model's start, those that the model is called with."""
        layer = self.layers[index]
        names = _references(layer.calls) if layer.before is None else [layer.before]
        if not names:
            return [] if layer.outer is None else self._given(layer.outer)
        if layer.class_name in RECURRENT:
            names = names[:1]  # the others are initial states
        return [layer.beside[name] for name in names if name in layer.beside]

    def _calls(self, index: int) -> Iterator[Mapping[str, Any]]:
        """Gives the arguments of each call that the model makes of a layer, by name."""
        for call in self.layers[index].calls:
            if isinstance(call, Mapping):  # Keras 3
                args, options = call.get("args"), call.get("kwargs")
                positions = dict(
                    zip(("sequences", "initial_state", "mask"), args if isinstance(args, list) else (), strict=False)
                )
                yield positions | (dict(options) if isinstance(options, Mapping) else {})
            elif isinstance(call, list):
                yield from (
                    part[3] for part in call if isinstance(part, list) and len(part) > 3 and isinstance(part[3], Mapping)
                )


def _name(one: Any) -> str:
    config = one.get("config") if isinstance(one, Mapping) else None
    own = config.get("name") if isinstance(config, Mapping) else None
    return str(own if own is not None else one.get("name") if isinstance(one, Mapping) else None)


def _stops(layer: Layer) -> bool:
    """Tells whether a layer hands on no mask."""
    if layer.class_name in RECURRENT:
        inner = layer.config.get("layer")
        config = inner.get("config") if isinstance(inner, Mapping) else layer.config
        return not (isinstance(config, Mapping) and config.get("return_sequences"))
    return any(word in layer.class_name for word in STOPS)


def _references(given: Any) -> list[str]:
    """Gives the names of the layers whose outputs stand in a call's arguments, in their order."""
    found, waiting = [], [given]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            history = one.get("keras_history")
            if isinstance(history, list) and history:
                found.append(str(history[0]))
            else:
                waiting += reversed(list(one.values()))
        elif isinstance(one, list):
            if _refers(one):
                found.append(one[0])
                waiting += one[3:]
            else:
                waiting += reversed(one)
    return found


def _refers(one: Any) -> bool:
    """Tells whether this is ["name", 0, 0] or ["name", 0, 0, {...}], a layer's output as Keras 1 and 2 write it."""
    if not isinstance(one, list) or len(one) not in (3, 4) or one[0] == "_CONSTANT_VALUE":
        return False
    return isinstance(one[0], str) and all(isinstance(number, int) for number in one[1:3])


def _zeros(given: Any) -> bool:
    """Tells whether the numbers in a value are all 0."""
    numbers, waiting = [], [given]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, Mapping)):
            waiting += one.values() if isinstance(one, Mapping) else one
        elif isinstance(one, (int, float)):
            numbers.append(one)
    return bool(numbers) and not any(numbers)
