"""A picture of one utterance, the layer's hidden states and the speakers' probabilities."""

from pathlib import Path

import numpy as np

from .data import Utterances
from .model import Classifier


def draw(classifier: Classifier, test: Utterances, target: Path) -> None:
    """Draws the longest utterance, the hidden states of both directions, and the speakers' probabilities."""
    from matplotlib.figure import Figure

    which = int(test.lengths.argmax())
    one = test.rows(np.array([which]))
    hidden = classifier.hidden(one)[:, 0].T  # (2 * H, T)
    scores = classifier.scores(one)[0]
    odds = np.exp(scores - scores.max())
    half = len(hidden) // 2
    strongest = float(np.abs(hidden).max())

    figure = Figure(figsize=(8, 9), layout="constrained")
    top, ahead, back, bottom = figure.subplots(4, 1, height_ratios=(3, 3, 3, 2))
    top.plot(one.x[:, 0])
    top.set(ylabel="cepstrum coefficients", xlim=(-0.5, len(one.x) - 0.5))
    top.set_title(f"utterance {which + 1} of {len(test)}, speaker {one.speakers[0] + 1}")
    for axes, states, name in (ahead, hidden[:half], "forward"), (back, hidden[half:], "backward"):
        image = axes.imshow(states, aspect="auto", cmap="RdBu_r", vmin=-strongest, vmax=strongest, interpolation="none")
        axes.set(ylabel=f"hidden states, {name}")
    back.set(xlabel="step")
    figure.colorbar(image, ax=(ahead, back))
    names = np.arange(len(odds)) + 1
    bottom.bar(names, odds / odds.sum())
    bottom.set(xlabel="speaker", ylabel="probability", xticks=names, ylim=(0, 1))
    figure.savefig(target)
