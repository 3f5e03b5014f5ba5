"""The recurrent layers in an HDF5 file, in the three layouts that Keras has had.

Keras 0:      groups "layer_0", ... with datasets "param_0", ...
Keras 1 to 3: groups by layer, with the attribute "weight_names": "lstm_1_W_i" and so on in Keras 1, later
              "lstm_1/kernel:0", "lstm/lstm_cell/kernel:0", "bidirectional/forward_lstm/lstm_cell/kernel:0"
Keras 2.12 on, `.weights.h5` and `.keras`: "layers/lstm/cell/vars/0", "layers/bidirectional/forward_layer/cell/vars/0";
              the attribute "name" of "layers/lstm/vars" is the layer's name where it is there
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gpurnn_kernels.spec import Array

from .hdf5 import VISITS, Reader
from .weights import Layout, layout_of

_OLD_NAME = re.compile(r"(.*)_[WUb](_[zrhifco])?")
_DIRECTION = re.compile(r"(forward|backward)_(.*)")


class Stored(NamedTuple):
    """A recurrent layer in a file, not read yet: one cell, or two for both directions, forward first."""

    names: list[str]  # the first is its own, the others serve as well
    cells: list[list[Any]]  # the datasets of each cell
    layouts: list[Layout]

    def read(self, reader: Reader) -> list[list[Array]]:
        """Reads the weights, per cell."""
        return [[reader.array(dataset) for dataset in cell] for cell in self.cells]


class _Cell(NamedTuple):
    place: tuple[str, ...]  # the layer's path in components
    backward: bool | None  # whether it is the backward half of a Bidirectional; None: it is no half
    datasets: list[Any]
    layout: Layout
    names: list[str]


def stored_layers(reader: Reader, group: Any, archive: bool) -> list[Stored]:
    """Gives the layers of an open file or group, in its order."""
    cells = _archive_cells(reader, group) if archive else _legacy_cells(reader, group)
    found: dict[tuple[str, ...], list[_Cell]] = {}
    for cell in cells:
        found.setdefault(cell.place, []).append(cell)
    layers = []
    for place, parts in found.items():
        if len(parts) == 2 and {part.backward for part in parts} == {False, True}:
            parts.sort(key=lambda part: bool(part.backward))
        elif len(parts) != 1:
            raise ValueError(f"{'/'.join(place)}: the weights of {len(parts)} cells at one place")
        names = list(dict.fromkeys([*parts[0].names, "/".join(place), place[-1]]))
        layers.append(Stored(names, [part.datasets for part in parts], [part.layout for part in parts]))
    return _own_names(layers)


def _own_names(layers: list[Stored]) -> list[Stored]:
    """Makes the first name of each layer one that no other has first."""
    count: dict[str, int] = {}
    for layer in layers:
        count[layer.names[0]] = count.get(layer.names[0], 0) + 1
    return [
        layer if count[layer.names[0]] == 1 else layer._replace(names=[*layer.names[1:2], layer.names[0], *layer.names[2:]])
        for layer in layers
    ]


def _legacy_cells(reader: Reader, group: Any) -> Iterator[_Cell]:
    for name in _layer_names(reader, group):
        layer = reader.child(group, name)
        weights = _attribute_list(reader, layer, "weight_names")
        if not weights and (count := reader.number(layer, "nb_params")) is not None:
            weights = [f"param_{index}" for index in range(min(count, len(layer)))]
        by_cell: dict[tuple[str, ...], list[str]] = {}
        for weight in weights:
            by_cell.setdefault(_cell_place(weight), []).append(weight)
        cells = []
        for place, own in by_cell.items():
            datasets = [reader.child(layer, weight) for weight in own]
            layout = layout_of([tuple(getattr(dataset, "shape", ())) for dataset in datasets])
            if layout is not None:
                cells.append((*_layer_place(place), datasets, layout))
        alone = len({place for place, *_ in cells}) == 1
        for place, backward, datasets, layout in cells:
            last = place[-1:] if place else ()
            yield _Cell((name,) if alone else place, backward, datasets, layout, [name, *last] if alone else list(last))


def _cell_place(weight: str) -> tuple[str, ...]:
    """Gives the components "bidirectional", "forward_lstm", "lstm_cell" of "bidirectional/forward_lstm/lstm_cell/kernel:0"."""
    place, slash, leaf = weight.partition(":")[0].rpartition("/")
    if slash:
        return tuple(part for part in place.split("/") if part)
    old = _OLD_NAME.fullmatch(leaf)
    return (old[1],) if old else ()


def _layer_place(place: tuple[str, ...]) -> tuple[tuple[str, ...], bool | None]:
    """Gives the place of the layer that a cell belongs to, and whether it is the backward half of a Bidirectional."""
    for index, part in enumerate(place):
        match = _DIRECTION.fullmatch(part)
        if match:
            return (*place[:index], *(() if index else (match[2],))), match[1] == "backward"
    if len(place) > 1 and re.fullmatch(r".*_cell(_\d+)?", place[-1]):
        return place[:-1], None
    return place, None


def _archive_cells(reader: Reader, group: Any) -> Iterator[_Cell]:
    places: list[str] = []

    def visit(path: str) -> bool | None:
        places.append(path)
        return True if len(places) > VISITS else None

    if group.visit(visit):
        raise ValueError(f"more than {VISITS} objects")
    for path in places:
        parts = tuple(path.replace("\\", "/").split("/"))
        if len(parts) < 3 or parts[-2:] != ("cell", "vars"):
            continue
        variables = reader.child(group, path)
        if not hasattr(variables, "keys"):
            continue
        datasets = [reader.child(variables, key) for key in sorted(variables.keys(), key=lambda key: (len(key), key))[:20]]
        layout = layout_of([tuple(getattr(dataset, "shape", ())) for dataset in datasets])
        if layout is None:
            continue
        place, backward = parts[:-2], None
        if place[-1] in ("forward_layer", "backward_layer"):
            place, backward = place[:-1], place[-1] == "backward_layer"
        holder = reader.child(group, "/".join(place))
        own = reader.text(reader.child(holder, "vars"), "name") if reader.has(holder, "vars") else None
        plain = "/".join(part for part in place if part not in ("layers", "_layer_checkpoint_dependencies"))
        yield _Cell(place, backward, datasets, layout, [*([] if own is None else [own]), plain])


def _layer_names(reader: Reader, group: Any) -> list[str]:
    names = _attribute_list(reader, group, "layer_names")
    if names:
        return names
    if "nb_layers" in group.attrs:
        return [name for name in sorted(group, key=lambda name: (len(name), name)) if name.startswith("layer_")]
    raise ValueError("an HDF5 file, but none that Keras wrote: no layer_names, no layers")


def _attribute_list(reader: Reader, group: Any, name: str) -> list[str]:
    """Gives a list of texts, which Keras cuts into "name0", "name1", ... where it is long."""
    if name in group.attrs:
        return reader.texts(group, name)
    found: list[str] = []
    for index in range(len(group.attrs)):
        if f"{name}{index}" not in group.attrs:
            break
        found += reader.texts(group, f"{name}{index}")
    return found
