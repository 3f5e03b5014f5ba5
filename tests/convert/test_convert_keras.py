"""from_keras of live layers, against Keras 3."""

import importlib.util
import logging
import os
from typing import Any

import keras_reference
import numpy as np
import pytest
from conversions import few, near, sizes
from hypothesis import given
from hypothesis import strategies as st

from gpurnn.convert import from_keras

if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("torch"):
    os.environ["KERAS_BACKEND"] = "torch"
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras's own and its backends'
try:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
except ImportError as missing:
    pytest.skip(f"Keras, or its backend, is missing: {missing}", allow_module_level=True)
layers = keras.layers


def built(layer: Any, inputs: int, seed: int = 0) -> Any:
    layer.build((None, None, inputs))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(-1, 1, one.shape).astype(one.dtype) for one in layer.get_weights()])
    return layer


def compare(converted: Any, layer: Any, steps: int, rows: int) -> None:
    """y and the final state of a layer that returns both."""
    x = np.random.default_rng(1).standard_normal((rows, steps, converted.input_size)).astype(converted.dtype)
    y, *final = (np.asarray(keras.ops.convert_to_numpy(one)) for one in layer(x))
    got, state = converted(x)
    dtype = "float32"  # Keras multiplies matrices of float64 in float32 on some paths; keras_reference does not
    near(got, y, dtype)
    states = state if isinstance(state, tuple) else (state,)
    for index, one in enumerate(states):
        near(one, np.stack(final[index :: len(states)]), dtype)


@st.composite
def recurrent(draw: Any, **fixed: Any) -> Any:
    options = {"use_bias": draw(st.booleans()), "dtype": draw(st.sampled_from(["float32", "float64"]))}
    whole = {"return_sequences": True, "return_state": True}
    if draw(st.booleans()):
        return layers.LSTM(draw(sizes), **options, **whole, **fixed)
    return layers.GRU(draw(sizes), reset_after=draw(st.booleans()), **options, **whole, **fixed)


@few
@given(recurrent(), sizes, st.integers(1, 6), st.integers(1, 4))
def test_layers(layer: Any, inputs: int, steps: int, rows: int) -> None:
    built(layer, inputs)
    converted = from_keras(layer)
    assert converted.batch_first
    compare(converted, layer, steps, rows)
    x = np.random.default_rng(1).standard_normal((rows, steps, inputs)).astype(converted.dtype)
    wanted = keras_reference.run(x, layer.get_weights(), getattr(layer.cell, "reset_after", None))
    near(converted(x)[0], wanted, converted.dtype.name)


@few
@given(recurrent(), sizes, st.integers(1, 6), st.booleans())
def test_bidirectional(layer: Any, inputs: int, steps: int, both_given: bool) -> None:
    options = {}
    if both_given:
        config = layer.get_config() | {"go_backwards": True, "name": "other"}
        options["backward_layer"] = type(layer).from_config(config)
    both = built(layers.Bidirectional(layer, dtype=layer.dtype_policy, **options), inputs)
    compare(from_keras(both), both, steps, 3)


def test_what_is_returned_does_not_matter(caplog: pytest.LogCaptureFixture) -> None:
    plain = layers.GRU(4, stateful=True, dropout=0.2, recurrent_dropout=0.1)
    plain.build((2, None, 3))
    with caplog.at_level(logging.INFO, "gpurnn"):
        converted = from_keras(plain)
    assert "dropout 0.2" in caplog.text
    assert "stateful" in caplog.text
    x = np.ones((2, 5, 3), np.float32)
    near(converted(x)[0][:, -1], keras.ops.convert_to_numpy(plain(x)), "float32")


def test_unmerged_directions() -> None:
    both = built(layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode=None), 3)
    x = np.ones((2, 5, 3), np.float32)
    parts = [keras.ops.convert_to_numpy(one) for one in both(x)]
    near(from_keras(both)(x)[0], np.concatenate(parts, axis=2), "float32")


def test_go_backwards_by_the_advice_it_is_refused_with() -> None:
    layer = built(layers.LSTM(4, go_backwards=True, return_sequences=True), 3)
    with pytest.raises(ValueError, match=r"go_backwards.*x\[:, ::-1\]"):
        from_keras(layer)
    forward = layers.LSTM.from_config(layer.get_config() | {"go_backwards": False})
    forward.build((None, None, 3))
    forward.set_weights(layer.get_weights())
    x = np.random.default_rng(2).standard_normal((2, 5, 3)).astype("float32")
    near(from_keras(forward)(x[:, ::-1])[0], keras.ops.convert_to_numpy(layer(x)), "float32")


def hard(x: Any) -> Any:
    return keras.ops.hard_sigmoid(x)


REFUSED = {
    "simple": (lambda: layers.SimpleRNN(3), "got SimpleRNN"),
    "relu": (lambda: layers.LSTM(3, activation="relu"), "activation 'relu'"),
    "none": (lambda: layers.LSTM(3, activation=None), "activation 'linear'"),
    "hard": (lambda: layers.GRU(3, recurrent_activation="hard_sigmoid"), "recurrent_activation 'hard_sigmoid'"),
    "own": (lambda: layers.GRU(3, recurrent_activation=hard), "recurrent_activation '.*hard"),
    "sum": (lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="sum"), "merge_mode 'sum'"),
    "half": (lambda: layers.LSTM(3, dtype="mixed_float16"), "computes in float16"),
    "backward": (lambda: both(layers.LSTM(3), layers.LSTM(3, activation="relu", go_backwards=True)), "backward: activation"),
    "sizes": (lambda: both(layers.LSTM(3), layers.LSTM(4, go_backwards=True)), "differ in kind or size"),
    "kinds": (lambda: both(layers.LSTM(3), layers.GRU(3, go_backwards=True)), "different kinds"),
    "forms": (lambda: both(layers.GRU(3), layers.GRU(3, go_backwards=True, reset_after=False)), "different kinds"),
    "dense": (lambda: layers.Dense(3), "got Dense"),
}


def both(forward: Any, backward: Any) -> Any:
    return layers.Bidirectional(forward, backward_layer=backward)


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_keras(built(make(), 4))


def test_what_is_no_built_layer() -> None:
    with pytest.raises(ValueError, match=r"no weights yet.*layer\.build"):
        from_keras(layers.LSTM(3))
    with pytest.raises(TypeError, match="got int"):
        from_keras(3)
    with pytest.raises(ValueError, match="name: it chooses"):
        from_keras(built(layers.LSTM(3), 2), name="lstm")
    with pytest.raises(ValueError, match="only 'sigmoid'"):
        from_keras(built(layers.LSTM(3), 2), recurrent_activation="hard_sigmoid")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_files_of_this_keras(tmp_path: Any, suffix: str) -> None:
    pytest.importorskip("h5py")
    inner = keras.Sequential([keras.Input((None, 6)), layers.LSTM(2, return_sequences=True, name="deep")], name="inner")
    start = keras.Input((None, 4))
    x = layers.LSTM(5, return_sequences=True, name="first")(start)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="second")(x)
    x = layers.GRU(6, return_sequences=True, use_bias=False, reset_after=False, name="third")(x)
    model = keras.Model(start, inner(x))
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    for layer in (*model.layers[1:4], inner.layers[0]):
        if layer.name == "third" and suffix == ".weights.h5":
            with pytest.raises(ValueError, match="reset_after"):
                from_keras(path, "third")
            continue
        converted = from_keras(path, layer.name)
        x = np.random.default_rng(3).standard_normal((2, 4, converted.input_size)).astype("float32")
        near(converted(x)[0], keras.ops.convert_to_numpy(layer(x)), "float32")
    with pytest.raises(ValueError, match=r"4 recurrent layers.*'first' \(LSTM 4 -> 5\)"):
        from_keras(path)
