"""Trained models decide in reduced precision as they do in float32, but for a few decisions."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import TESTS

from gpurnn.demo import data, model

EXAMPLES = TESTS.parent / "examples"
every_precision = pytest.mark.parametrize("precision", ["bf16", "int8"])


def example(name: str, *packages: str) -> ModuleType:
    """A script of examples/, as a module."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: pip install 'gpurnn[examples]'")
    sys.path.insert(0, str(EXAMPLES))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def agreement(found: Any, wanted: Any) -> float:
    """The share of equal decisions."""
    return float(np.mean(np.asarray(found) == np.asarray(wanted)))


@pytest.mark.parametrize(("precision", "others"), [("bf16", 1), ("int8", 2)])
def test_speakers(precision: str, others: int) -> None:
    """370 recordings of Japanese vowels, by the model that the package carries."""
    classifier, recordings = model.load(), data.load("test")
    rounded = model.Classifier(classifier.layer.with_precision(precision), classifier.readout)
    wanted = classifier.speakers(recordings)
    assert len(wanted) == 370
    assert np.count_nonzero(rounded.speakers(recordings) != wanted) <= others


@every_precision
def test_spelling_to_phonemes(precision: str) -> None:
    """The encoder and the decoder of g2p-en over 2,000 words. A decision is a phoneme, or the end of a word."""
    g2p = example("spelling_to_phonemes", "g2p_en", "xkcdpass")
    with np.load(g2p.file_of("g2p_en", "checkpoint20.npz"), allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files}
    words = g2p.word_list()
    layers = [g2p.gru(weights, part) for part in ("enc", "dec")]
    wanted = g2p.batched(weights, *layers, words)
    found = g2p.batched(weights, *(layer.with_precision(precision) for layer in layers), words)
    longest = max(map(len, [*wanted, *found])) + 1
    ended = [[one + [g2p.END] * (longest - len(one)) for one in each] for each in (found, wanted)]
    decisions = sum(len(one) + 1 for one in wanted)
    assert np.count_nonzero(np.array(ended[0]) != np.array(ended[1])) <= 0.005 * decisions


@every_precision
def test_voice_activity(precision: str) -> None:
    """Silero VAD in chunks of 32 ms, with the state handed on."""
    vad = example("voice_activity", "silero_vad", "espeakng_loader", "onnx", "onnxruntime")
    import onnx
    from onnx.reference import ReferenceEvaluator

    from gpurnn.interop.onnx import operators

    spec = find_spec("silero_vad")
    assert spec is not None
    folder = Path((spec.submodule_search_locations or [""])[0])
    network = onnx.load(folder / "data" / "silero_vad_16k_sequence.onnx")
    sound = vad.recording()[0][: 30 * vad.RATE]
    found = {}
    for one in (None, precision):
        found[one] = vad.stream(ReferenceEvaluator(network, new_ops=operators(one)).run, sound)
    assert 0 < np.abs(found[precision] - found[None]).max() < 0.05
    assert agreement(found[precision] > 0.5, found[None] > 0.5) >= 0.995
