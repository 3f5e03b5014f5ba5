"""The demo: its recordings, its classifier, its training, and what it prints."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpurnn
from gpurnn.cli import main
from gpurnn.demo import data, model, show
from gpurnn.demo.train import Recipe, loss_and_gradients, train

LAST_LINE = re.compile(r"accuracy (\d+\.\d) % \((\d+) of 370\)")


@pytest.fixture(scope="module")
def utterances() -> data.Utterances:
    return data.load("train")


@pytest.fixture(scope="module")
def subset(utterances: data.Utterances) -> data.Utterances:
    """Six utterances a speaker."""
    return utterances.rows(np.arange(0, 270, 5))


@pytest.fixture(scope="module")
def test_split() -> data.Utterances:
    return data.load("test")


# --- recordings ---


@pytest.mark.parametrize(
    ("split", "by_speaker", "longest"),
    [("train", [30] * 9, 26), ("test", [31, 35, 88, 44, 29, 24, 40, 50, 29], 29)],
)
def test_recordings(split: Any, by_speaker: list[int], longest: int) -> None:
    found = data.load(split)
    assert np.bincount(found.speakers).tolist() == by_speaker
    assert (found.lengths.min(), found.lengths.max()) == (7, longest)
    assert found.x.shape == (longest, sum(by_speaker), 12)
    assert found.x.dtype == np.float32
    assert np.all(np.any(found.x != 0, axis=2) == found.valid)
    assert found.steps == found.valid.sum()


def test_recordings_are_the_published_ones(utterances: data.Utterances) -> None:
    first = [1.860936, -0.207383, 0.261557]
    assert utterances.x[0, 0, :3].tolist() == np.float32(first).tolist()
    assert utterances.lengths[0] == 20


def test_pad() -> None:
    steps = np.arange(6, dtype=np.float32).reshape(3, 2)
    x = data.pad(steps, np.array([1, 0, 2]))
    assert x.tolist() == [[[0, 1], [0, 0], [2, 3]], [[0, 0], [0, 0], [4, 5]]]


def test_rows_are_as_long_as_the_longest(utterances: data.Utterances) -> None:
    shortest = utterances.rows(np.array([int(utterances.lengths.argmin())]))
    assert shortest.x.shape == (7, 1, 12)
    assert len(utterances.rows(np.array([], int))) == 0


# --- classifier ---


def test_shipped_weights_reach_the_aim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    last = LAST_LINE.fullmatch(out.splitlines()[-1])
    assert last, out
    accuracy, right = last.groups()
    assert accuracy == f"{100 * int(right) / 370:.1f}"
    assert int(right) >= 361  # 97.5 %
    assert err == ""
    by_speaker = [line.split("│")[1:5] for line in out.splitlines() if line.startswith("│")]
    assert [int(row[1]) for row in by_speaker] == [31, 35, 88, 44, 29, 24, 40, 50, 29, 370]
    assert sum(int(row[2]) for row in by_speaker[:-1]) == int(right)
    assert "utterances/s" in out
    assert "lstm_forward" in out


def test_an_utterance_alone_scores_as_in_the_batch(test_split: data.Utterances) -> None:
    classifier = model.load()
    together = classifier.scores(test_split)
    for b in 0, 7, 369:
        alone = classifier.scores(test_split.rows(np.array([b])))
        np.testing.assert_allclose(alone[0], together[b], rtol=0, atol=1e-4)


def test_save_and_load(tmp_path: Path, test_split: data.Utterances) -> None:
    first = model.load()
    first.save(tmp_path / "c.safetensors")
    again = model.load(tmp_path / "c.safetensors")
    assert np.array_equal(first.scores(test_split), again.scores(test_split))


def altered(kind: str) -> model.Classifier:
    """A classifier that no file should give."""
    good = model.load()
    if kind == "direction":
        return replace(good, layer=gpurnn.LSTM(12, 64))
    if kind == "dtype":
        return replace(good, layer=gpurnn.LSTM(12, 64, bidirectional=True, dtype="float64"))
    if kind == "inputs":
        return replace(good, layer=gpurnn.LSTM(13, 64, bidirectional=True))
    if kind == "readout":
        return replace(good, readout=replace(good.readout, W=good.readout.W[:, :-1]))
    return replace(good, readout=replace(good.readout, b=good.readout.b.astype(np.float64)))


@pytest.mark.parametrize("kind", ["direction", "dtype", "inputs", "readout", "readout-dtype"])
def test_files_that_fit_no_classifier(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    altered(kind).save(path)
    with pytest.raises(ValueError, match=r"c\.safetensors: .*expected"):
        model.load(path)


def test_a_layer_without_readout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "layer.safetensors"
    model.load().layer.save(path)
    assert main(["demo", "--weights", str(path)]) == 1
    assert "readout.W" in capsys.readouterr().err


# --- training ---


def test_gradients_are_the_loss_slopes(subset: data.Utterances) -> None:
    """Along the gradient of the layer's weights, and of the readout's, the loss changes as they say."""
    classifier = train(subset, Recipe(hidden_size=8, epochs=1))
    noise = np.zeros_like(subset.x)
    _, gradients = loss_and_gradients(classifier, subset, noise)
    for part in "layers", "readout":
        names = [name for name in gradients if name.startswith(part)]
        slope = float(np.sqrt(sum((gradients[name].astype(np.float64) ** 2).sum() for name in names)))
        losses = []
        for sign in 1, -1:
            moved = {name: np.float32(sign * 1e-2 / slope) * gradients[name] for name in names}
            layer = gpurnn.LSTM(12, 8, bidirectional=True)
            layer.load_params({name: w + moved.get(name, 0) for name, w in classifier.layer.params.items()})
            readout = replace(
                classifier.readout,
                W=classifier.readout.W + moved.get("readout.W", 0),
                b=classifier.readout.b + moved.get("readout.b", 0),
            )
            losses.append(loss_and_gradients(model.Classifier(layer, readout), subset, noise)[0])
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(slope, rel=1e-2)


def test_training_lowers_the_loss_and_is_deterministic(subset: data.Utterances) -> None:
    recipe = Recipe(hidden_size=16, epochs=8)
    losses: list[float] = []
    first = train(subset, recipe, lambda epoch, loss: losses.append(loss))
    assert len(losses) == recipe.epochs
    assert losses[-1] < 0.7 * losses[0]
    again, other = train(subset, recipe), train(subset, replace(recipe, seed=1))
    for name, value in first.layer.params.items():
        assert np.array_equal(value, again.layer.params[name]), name
    assert np.array_equal(first.readout.W, again.readout.W)
    assert not np.array_equal(first.readout.W, other.readout.W)


def test_train_save_and_show_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "c.safetensors")
    assert main(["demo", "--train", "--save", path]) == 0
    trained = capsys.readouterr().out.splitlines()
    assert trained[0].startswith(f"trained on 270 utterances, {Recipe().epochs} epochs, seed 0, in ")
    assert main(["demo", "--weights", path]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert LAST_LINE.fullmatch(trained[-1])
    assert trained[-1] == shown[-1]


def test_scratch_and_weights_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--train", "--weights", "w.safetensors"]) == 1
    assert capsys.readouterr().err.startswith("gpurnn: error: --train starts from scratch")


# --- picture ---


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "utterance.png"
    assert main(["demo", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert LAST_LINE.fullmatch(capsys.readouterr().out.splitlines()[-1])


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(show, "find_spec", lambda name: None)
    assert main(["demo", "--plot", "utterance.png"]) == 1
    assert capsys.readouterr().err == "gpurnn: error: --plot needs matplotlib: pip install 'gpurnn[plot]'\n"
