"""Training the classifier with the layer's own back-propagation through time.

The test recordings were made on other days than the training ones.  Noise on the steps, and a random offset of each
coefficient for a whole utterance, stand for what a day may change; which noise, how much, and every other number of the
recipe were chosen by cross-validation within the training split, in blocks of consecutive recordings.

Notation: T steps, B utterances, I coefficients, H hidden size, C speakers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import numpy as np

import gpurnn

from .data import COEFFICIENTS, SPEAKERS, Array, Utterances
from .model import Classifier, Readout, pooled


@dataclass(frozen=True)
class Recipe:
    """The numbers of the training."""

    hidden_size: int = 64  # of each direction
    epochs: int = 120
    batch: int = 30
    rate: float = 0.02  # falls to 0 along half a cosine
    decay: float = 0.3  # of the weights, times the rate, a step
    noise: float = 0.3  # standard deviation, on every value of the standardised input
    offset: float = 0.5  # the same, one for all the steps of an utterance
    seed: int = 0


Report = Callable[[int, float], None]


def train(data: Utterances, recipe: Recipe = Recipe(), report: Report = lambda epoch, loss: None) -> Classifier:
    """Trains a classifier from scratch; `report(epoch, mean loss)` is called after each epoch."""
    rng = np.random.default_rng(recipe.seed)
    steps = data.x[data.valid]
    width = 2 * recipe.hidden_size
    layer = gpurnn.LSTM(COEFFICIENTS, recipe.hidden_size, bidirectional=True, seed=recipe.seed)
    bound = width**-0.5
    readout = Readout(
        mean=steps.mean(axis=0),
        scale=steps.std(axis=0),
        W=rng.uniform(-bound, bound, (SPEAKERS, width)).astype(np.float32),
        b=np.zeros(SPEAKERS, np.float32),
    )
    weights = dict(layer.params) | {"readout.W": readout.W, "readout.b": readout.b}
    classifier, adam = Classifier(layer, readout), Adam(weights, recipe.decay)
    batches = -(-len(data) // recipe.batch)
    for epoch in range(recipe.epochs):
        order = rng.permutation(len(data))
        total = 0.0
        for i in range(batches):
            rows = data.rows(order[i * recipe.batch : (i + 1) * recipe.batch])
            loss, gradients = loss_and_gradients(classifier, rows, _noise(rng, rows.x.shape, recipe))
            done = (epoch * batches + i + 1) / (recipe.epochs * batches)
            weights = adam.step(weights, gradients, recipe.rate * (1 + cos(pi * done)) / 2)
            classifier = _with_weights(classifier, weights)
            total += loss * len(rows)
        report(epoch, total / len(data))
    return classifier


def loss_and_gradients(classifier: Classifier, batch: Utterances, noise: Array) -> tuple[float, dict[str, Array]]:
    """Gives the mean cross-entropy of a batch with noise (T, B, I) added to its input, and its gradient by every weight."""
    layer, readout = classifier.layer, classifier.readout
    count = len(batch)
    (y, _), vjp = layer.vjp(classifier.standardised(batch) + noise, lengths=batch.lengths)  # (T, B, 2 * H)
    features = pooled(y, batch.lengths)  # (B, 2 * H)
    scores = readout.scores(features)  # (B, C)
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -float(log_p[np.arange(count), batch.speakers].mean())

    d_scores = np.exp(log_p)
    d_scores[np.arange(count), batch.speakers] -= 1
    d_scores /= np.float32(count)
    d_features = d_scores @ readout.W / batch.lengths.astype(np.float32)[:, None]
    dy = np.where(batch.valid[..., None], d_features, np.float32(0))  # every valid step has its share
    gradients = dict(vjp(dy).params)
    return loss, gradients | {"readout.W": d_scores.T @ features, "readout.b": d_scores.sum(axis=0)}


class Adam:
    """Kingma and Ba's Adam, with decoupled weight decay (Loshchilov and Hutter's AdamW)."""

    def __init__(self, weights: dict[str, Array], decay: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self._decay, self._beta1, self._beta2, self._count = decay, beta1, beta2, 0
        self._m = {name: np.zeros_like(w) for name, w in weights.items()}
        self._v = {name: np.zeros_like(w) for name, w in weights.items()}

    def step(self, weights: dict[str, Array], gradients: dict[str, Array], rate: float) -> dict[str, Array]:
        """Gives new weights; the old ones stay as they are."""
        self._count += 1
        scale1, scale2 = 1 - self._beta1**self._count, 1 - self._beta2**self._count
        new = {}
        for name, w in weights.items():
            m, v, g = self._m[name], self._v[name], gradients[name]
            m += (1 - self._beta1) * (g - m)
            v += (1 - self._beta2) * (g * g - v)
            new[name] = w - rate * (m / scale1 / (np.sqrt(v / scale2) + 1e-8) + self._decay * w)
        return new


def _noise(rng: np.random.Generator, shape: tuple[int, ...], recipe: Recipe) -> Array:
    """Draws the noise (T, B, I) of a batch."""
    steps, rows, coefficients = shape
    each = rng.standard_normal((steps, rows, coefficients), np.float32)
    whole = rng.standard_normal((rows, coefficients), np.float32)
    return np.float32(recipe.noise) * each + np.float32(recipe.offset) * whole


def _with_weights(classifier: Classifier, weights: dict[str, Array]) -> Classifier:
    """Gives the same layer object, holding the new weights, and a new readout."""
    classifier.layer.load_params({name: weights[name] for name in classifier.layer.params})
    old = classifier.readout
    return Classifier(classifier.layer, Readout(old.mean, old.scale, weights["readout.W"], weights["readout.b"]))
