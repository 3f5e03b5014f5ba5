"""gpurnn.interop.keras: masks as lengths, against Keras's equations step by step and, where it is installed, Keras."""

import logging
from typing import Any

import numpy as np
import pytest
from conversions import few, near
from hypothesis import given
from hypothesis import strategies as st

import gpurnn
from gpurnn.interop.keras import from_front, lengths_of, to_front

RIGHT = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


def test_padding_at_the_end() -> None:
    assert lengths_of(RIGHT).tolist() == [3, 1, 4, 0]
    assert lengths_of(RIGHT.tolist()).tolist() == [3, 1, 4, 0]
    assert lengths_of(np.zeros((2, 0), bool)).tolist() == [0, 0]
    layer = gpurnn.GRU(3, 4, batch_first=True, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 4, 3)).astype(np.float32)
    y, h = layer(x, lengths=lengths_of(RIGHT))
    assert not y[~RIGHT].any()
    near(h[0, :1], layer(x[:1, :3])[1][0], "float32")


@few
@given(st.integers(0, 5), st.integers(0, 6), st.randoms(use_true_random=False), st.booleans())
def test_padding_at_both_ends(rows: int, steps: int, random: Any, trailing: bool) -> None:
    mask = np.zeros((rows, steps), bool)
    for row in range(rows):
        start = random.randint(0, steps)
        mask[row, start : random.randint(start, steps)] = True
    x = np.random.default_rng(0).standard_normal((rows, steps, 2) if trailing else (rows, steps))
    front, lengths = to_front(x, mask)
    for row in range(rows):
        assert np.array_equal(front[row, : lengths[row]], x[row][mask[row]])
    assert np.array_equal(from_front(front, mask), x)
    assert not np.shares_memory(front, x)


def test_layers_on_rows_padded_at_the_start() -> None:
    layer = gpurnn.LSTM(3, 4, batch_first=True, bidirectional=True, seed=0)
    mask = RIGHT[:, ::-1]
    x = np.random.default_rng(0).standard_normal((4, 4, 3)).astype(np.float32)
    front, lengths = to_front(x, mask)
    y, (h, _) = layer(front, lengths=lengths)
    y = from_front(y, mask)
    assert not y[~mask].any()
    for row, length in enumerate([3, 1, 4]):
        alone, (last, _) = layer(x[row : row + 1, 4 - length :])
        near(y[row, 4 - length :], alone[0], "float32")
        near(h[:, row], last[:, 0], "float32")


def test_what_is_no_mask() -> None:
    holes = np.array([[1, 1, 0], [1, 0, 1]], bool)
    for call in (lambda: lengths_of(holes), lambda: to_front(holes, holes), lambda: from_front(holes, holes)):
        with pytest.raises(ValueError, match="mask: row 1 has holes"):
            call()
    with pytest.raises(ValueError, match="got row 1 with padding before its steps; to_front"):
        lengths_of(np.array([[1, 1, 0], [0, 1, 0]], bool))
    with pytest.raises(TypeError, match=r"mask: expected bool.*got int64; compare first"):
        lengths_of(np.array([[1, 0]]))
    with pytest.raises(ValueError, match=r"mask: expected shape \(B, T\), got \(3,\)"):
        lengths_of(np.ones(3, bool))
    with pytest.raises(ValueError, match=r"expected shape \(2, 3, '...'\) for this mask, got \(3, 2\)"):
        to_front(np.ones((3, 2)), holes)


def test_masks_take_no_keras() -> None:
    from helpers import python

    code = (
        "import sys; from gpurnn.interop import keras; print(sorted({'h5py', 'keras', 'numba', 'torch'} & set(sys.modules)))"
    )
    assert python(code) == "[]\n"


# the warning: where Keras leaves steps out


def warnings_of(model: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gpurnn"):
        model()
    return [record.getMessage() for record in caplog.records if "stands behind" in record.getMessage()]


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    live = pytest.importorskip("test_convert_keras")
    return live.keras


def models(keras: Any) -> dict[str, tuple[Any, str | None]]:
    """Models with one LSTM "rnn"; the layer that masks, by what the warning calls it."""
    L = keras.layers

    def rnn() -> Any:
        return L.LSTM(4, name="rnn")

    def functional(*layers: Any) -> Any:
        start = x = keras.Input((None,), dtype="int32")
        for layer in layers:
            x = layer(x)
        return keras.Model(start, x)

    embedding = L.Embedding(9, 3, mask_zero=True, name="e")
    around = keras.Sequential([keras.Input((5, 3)), L.Masking(name="m"), keras.Sequential([keras.Input((5, 3)), rnn()])])
    return {
        "sequential": (keras.Sequential([keras.Input((5, 3)), L.Masking(name="m"), L.Dense(2), rnn()]), "Masking 'm'"),
        "functional": (functional(embedding, L.Dropout(0.1), rnn()), "Embedding 'e'"),
        "behind-another": (
            functional(L.Embedding(9, 3, mask_zero=True, name="e"), L.Bidirectional(L.GRU(3, return_sequences=True)), rnn()),
            "Embedding 'e'",
        ),
        "nested": (around, "Masking 'm'"),
        "none": (functional(L.Embedding(9, 3), rnn()), None),
        "stopped": (functional(L.Embedding(9, 3, mask_zero=True), L.LSTM(3), L.RepeatVector(2), rnn()), None),
        "convolved": (keras.Sequential([keras.Input((5, 3)), L.Masking(), L.Conv1D(2, 2), rnn()]), None),
    }


NAMES = ["sequential", "functional", "behind-another", "nested", "none", "stopped", "convolved"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_masked_layers_are_warned_of(keras: Any, name: str, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    model, source = models(keras)[name]
    paths = [tmp_path / "m.keras", tmp_path / "m.h5"]
    for path in paths:
        model.save(path)
        found = warnings_of(lambda path=path: gpurnn.from_keras(path, "rnn"), caplog)
        assert len(found) == (source is not None), path
        assert source is None or f"it stands behind {source}: hand `lengths` to the call" in found[0]
    if name != "nested":  # a layer does not know the models around its own
        found = warnings_of(lambda: gpurnn.from_keras(model.get_layer("rnn")), caplog)
        assert len(found) == (source is not None)
        assert source is None or source in found[0]


@pytest.mark.parametrize("form", ["functional", "sequential"])
def test_models_of_keras_2(form: str, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Their configurations name where a layer's input comes from, and not the mask."""
    pytest.importorskip("h5py")
    import json

    import keras_reference as ref

    def layer(class_name: str, name: str, *before: str, **config: Any) -> dict[str, Any]:
        calls = [[[one, 0, 0, {}] for one in before]] if before else []
        return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": calls}

    def saved(masks: bool, **call: Any) -> Any:
        layers = [layer("InputLayer", "i"), layer("Embedding", "e", "i", mask_zero=masks), layer("Dropout", "d", "e")]
        layers.append(layer("LSTM", "rnn", "d", recurrent_activation="sigmoid"))
        layers[-1]["inbound_nodes"][0][0][3].update(call)
        class_name = "Functional"
        if form == "sequential":
            layers = [{key: value for key, value in one.items() if key != "inbound_nodes"} for one in layers]
            class_name = "Sequential"
        model = json.dumps({"class_name": class_name, "config": {"name": "m", "layers": layers}})
        weights = {"rnn": ref.named("rnn/lstm_cell", ref.draw("LSTM", 4, 6))}
        return ref.write(tmp_path / "m.h5", weights, inside="model_weights", model_config=model, keras_version="2.6.0")

    (found,) = warnings_of(lambda: gpurnn.from_keras(saved(True)), caplog)
    assert "m.h5: rnn: it stands behind Embedding 'e'" in found
    assert not warnings_of(lambda: gpurnn.from_keras(saved(False)), caplog)
    if form == "functional":
        assert warnings_of(lambda: gpurnn.from_keras(saved(False, mask=["not_equal", 0, 0])), caplog)
        with pytest.raises(ValueError, match="an initial state that is a constant of the model"):
            gpurnn.from_keras(saved(False, initial_state=[[[0.5] * 6], [[0.0] * 6]]))
        gpurnn.from_keras(saved(False, initial_state=[[[0.0] * 6], [[0.0] * 6]]))
        gpurnn.from_keras(saved(False, initial_state=[["h", 0, 0], ["c", 0, 0]]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [0.5, 0.0, None])
def test_initial_states_that_a_model_holds(keras: Any, value: float | None, tmp_path: Any) -> None:
    """Constants are refused, but for zeros; inputs of the model are a call's."""
    start, state = keras.Input((5, 3)), keras.Input((4,))
    given = state if value is None else keras.ops.full((1, 4), value)
    layer = keras.layers.GRU(4, name="rnn")
    model = keras.Model([start, state], layer(start, initial_state=given))
    model.save(tmp_path / "m.keras")
    for source in (layer, tmp_path / "m.keras"):
        if value:
            with pytest.raises(ValueError, match=r"rnn.*an initial state that is a constant of the model"):
                gpurnn.from_keras(source)
        else:
            assert gpurnn.from_keras(source).hidden_size == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("side", ["end", "start"])
def test_the_help_gives_what_keras_computes(keras: Any, both: bool, side: str) -> None:
    """Outputs where steps count, and the last state."""
    L = keras.layers
    inner = L.GRU(4, return_sequences=True)
    layer = L.Bidirectional(inner) if both else inner
    tokens = np.array([[3, 1, 2, 0], [5, 0, 0, 0], [1, 2, 3, 4]])
    tokens = tokens if side == "end" else tokens[:, ::-1].copy()
    embedding = L.Embedding(9, 3, mask_zero=True)
    wanted = keras.ops.convert_to_numpy(keras.Sequential([keras.Input((4,), dtype="int32"), embedding, layer])(tokens))
    mask = tokens != 0
    x = keras.ops.convert_to_numpy(embedding(tokens))
    front, lengths = to_front(x, mask)
    assert side == "start" or lengths.tolist() == lengths_of(mask).tolist()
    y = from_front(gpurnn.from_keras(layer)(front, lengths=lengths)[0], mask)
    near(y[mask], wanted[mask], "float32")
