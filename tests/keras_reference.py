"""Keras's recurrent layers in NumPy, in Keras's own order of gates and weights; and its old HDF5 files, layout by layout.

kernel (I, G*H), recurrent (H, G*H); gates i, f, c, o of an LSTM, z, r, h of a GRU, whose z is how much of the old value stays.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Floats = Any


def sigmoid(a: Floats) -> Floats:
    return 1 / (1 + np.exp(-a))


def run(x: Floats, weights: Sequence[Floats], reset_after: bool | None) -> Floats:
    """x (B, T, I) -> all outputs (B, T, H); an LSTM where reset_after is None."""
    kernel, recurrent, *biases = [np.asarray(one, np.float64) for one in weights]
    bias = biases[0] if biases else np.zeros(kernel.shape[1])
    bias, recurrent_bias = bias if bias.ndim == 2 else (bias, 0 * bias)
    units = recurrent.shape[0]
    h = c = np.zeros((x.shape[0], units))
    found = []
    for x_t in np.asarray(x, np.float64).swapaxes(0, 1):
        a, b = x_t @ kernel + bias, h @ recurrent + recurrent_bias
        if reset_after is None:
            i, f, g, o = np.split(a + b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            z, r = np.split(sigmoid((a + b)[:, : 2 * units]), 2, axis=1)
            inner = r * b[:, 2 * units :] if reset_after else (r * h) @ recurrent[:, 2 * units :]
            h = z * h + (1 - z) * np.tanh(a[:, 2 * units :] + inner)
        found.append(h)
    return np.stack(found, axis=1)


def draw(kind: str, inputs: int, units: int, form: str = "one", seed: int = 0) -> list[Floats]:
    """Random float32 weights; form of the bias: "none", "one", "two" of GRU(reset_after=True)."""
    rng = np.random.default_rng(seed)
    columns = (4 if kind == "LSTM" else 3) * units
    shapes: list[tuple[int, ...]] = [(inputs, columns), (units, columns)]
    shapes += {"none": [], "one": [(columns,)], "two": [(2, columns)]}[form]
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def cudnn(kind: str, weights: list[Floats], seed: int = 1) -> list[Floats]:
    """The same layer as CuDNNLSTM or CuDNNGRU: as `hdf5_format` of Keras 2 turns weights over."""
    count = 4 if kind == "LSTM" else 3
    kernel = np.hstack([gate.T.reshape(gate.shape, order="C") for gate in np.hsplit(weights[0], count)])
    recurrent = np.hstack([gate.T for gate in np.hsplit(weights[1], count)])
    if kind == "GRU":
        return [kernel, recurrent, weights[2].reshape(-1)]
    part = np.random.default_rng(seed).uniform(-1, 1, weights[2].shape).astype(np.float32)
    return [kernel, recurrent, np.concatenate([part, weights[2] - part])]


def single_gates(kind: str, weights: list[Floats]) -> list[Floats]:
    """The form of Keras 0 and 1: W, U, b of i, c, f, o, or of z, r, h."""
    count, order = (4, (0, 2, 1, 3)) if kind == "LSTM" else (3, (0, 1, 2))
    W, U, b = (np.split(one, count, axis=-1) for one in weights)
    return [one for gate in order for one in (W[gate], U[gate], b[gate])]


def write(path: Path, layers: dict[str, dict[str, Floats]], *, inside: str = "", chunks: int = 0, **attributes: Any) -> Path:
    """A file of Keras 1 to 3: layers by name, in each the weights by name. attributes: of the file, "keras_version" say."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group(inside) if inside else file
        for name, value in attributes.items():
            (file if name == "model_config" else group).attrs[name] = value
        names = [name.encode() for name in layers]
        if chunks:  # HDF5 bounds an attribute's size
            for index in range(0, len(names), chunks):
                group.attrs[f"layer_names{index // chunks}"] = names[index : index + chunks]
        else:
            group.attrs["layer_names"] = names
        for name, weights in layers.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, array in weights.items():
                layer[weight] = array
    return path


def write_keras_0(path: Path, layers: list[list[Floats]]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = len(layers)
        for index, weights in enumerate(layers):
            group = file.create_group(f"layer_{index}")
            group.attrs["nb_params"] = len(weights)
            for number, array in enumerate(weights):
                group[f"param_{number}"] = array
    return path


def named(start: str, weights: list[Floats], end: str = ":0") -> dict[str, Floats]:
    """By the names of Keras 2."""
    leaves = ("kernel", "recurrent_kernel", "bias")
    return {f"{start}/{leaf}{end}": array for leaf, array in zip(leaves, weights, strict=False)}
