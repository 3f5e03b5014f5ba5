"""The classifier: standardised steps, a bidirectional layer, the mean over the valid steps, a linear readout.

Notation: T steps, B utterances, I coefficients, H hidden size, C speakers.
"""

from dataclasses import dataclass, fields
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

import gpurnn

from ..layers.description import described
from ..layers.files import save
from ..layers.make import load_with_extra
from .data import COEFFICIENTS, SPEAKERS, Array, Utterances


@dataclass(frozen=True)
class Readout:
    """The parameters around the layer: the input's scale, and the linear readout."""

    mean: Array  # (I,) each coefficient's mean over the training steps
    scale: Array  # (I,) its standard deviation
    W: Array  # (C, 2 * H)
    b: Array  # (C,)

    def scores(self, features: Array) -> Array:
        """Gives scores (B, C) of features (B, 2 * H)."""
        found: Array = features @ self.W.T + self.b
        return found


@dataclass(frozen=True)
class Classifier:
    """A bidirectional layer, and the readout of its mean output."""

    layer: gpurnn.LSTM
    readout: Readout

    def standardised(self, batch: Utterances) -> Array:
        """Gives the steps (T, B, I) with mean 0 and deviation 1; values past an utterance's end have no effect."""
        return (batch.x - self.readout.mean) / self.readout.scale

    def hidden(self, batch: Utterances) -> Array:
        """Gives the layer's outputs, (T, B, 2 * H), 0 past each utterance's end."""
        y, _ = self.layer(self.standardised(batch), lengths=batch.lengths)
        return y

    def scores(self, batch: Utterances) -> Array:
        """Gives the logarithm of each speaker's probability, up to a constant, (B, C)."""
        return self.readout.scores(pooled(self.hidden(batch), batch.lengths))

    def speakers(self, batch: Utterances) -> Array:
        """Gives the speaker who is heard, (B,), 0 to 8."""
        found: Array = self.scores(batch).argmax(axis=1)
        return found

    def save(self, path: Path) -> None:
        """Writes the layer and, beside its parameters, the readout's arrays to one safetensors file."""
        readout = {f"readout.{name}": value for name, value in vars(self.readout).items()}
        save(path, described("LSTM", self.layer.configuration()), self.layer.params | readout)


def pooled(y: Array, lengths: Array) -> Array:
    """Gives the mean (B, 2 * H) of y (T, B, 2 * H) over the valid steps."""
    mean: Array = y.sum(axis=0) / np.maximum(lengths, 1).astype(y.dtype)[:, None]
    return mean


def load(path: Path | None = None) -> Classifier:
    """Reads the classifier that was saved in a file; the one that the package carries if None.

    Raises FileNotFoundError for a missing file, ValueError for one that holds no such classifier.
    """
    if path is None:
        with as_file(files(__package__).joinpath("weights.safetensors")) as carried:
            return load(carried)
    names = tuple(f"readout.{field.name}" for field in fields(Readout))
    layer, arrays = load_with_extra(path, names)
    if not isinstance(layer, gpurnn.LSTM) or not layer.bidirectional or layer.batch_first or layer.dtype != np.float32:
        raise ValueError(f"{path}: expected a bidirectional float32 LSTM, time first, got {layer!r}")
    expected = {
        "readout.mean": (COEFFICIENTS,),
        "readout.scale": (COEFFICIENTS,),
        "readout.W": (SPEAKERS, 2 * layer.hidden_size),
        "readout.b": (SPEAKERS,),
    }
    for name, shape in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{path}: {name}: expected float32 {shape}, got {found.dtype} {found.shape}")
    if layer.input_size != COEFFICIENTS:
        raise ValueError(f"{path}: expected a layer of {COEFFICIENTS} inputs, got {layer!r}")
    return Classifier(layer, Readout(*(arrays[name] for name in names)))
