"""from_keras of HDF5 files, in the layouts that Keras has had: made here, named and ordered as those versions did."""

import json
import logging
from pathlib import Path
from typing import Any

import keras_reference as ref
import numpy as np
import pytest
from conversions import few, near, sizes
from hypothesis import given
from hypothesis import strategies as st

from gpurnn.convert import from_keras
from gpurnn.convert.keras.files import list_keras

h5py = pytest.importorskip("h5py")

KINDS = {"lstm": ("LSTM", "one"), "gru": ("GRU", "one"), "gru-after": ("GRU", "two")}
DENSE = {"dense_1/kernel:0": np.ones((5, 20), np.float32), "dense_1/bias:0": np.ones(20, np.float32)}


def same(layer: Any, weights: list[Any], kind: str, form: str, backward: list[Any] | None = None) -> None:
    """The converted layer computes what Keras's equations give."""
    x = np.random.default_rng(7).standard_normal((3, 5, weights[0].shape[0])).astype(weights[0].dtype)
    reset_after = None if kind == "LSTM" else form == "two"
    y = ref.run(x, weights, reset_after)
    if backward is not None:
        y = np.concatenate([y, ref.run(x[:, ::-1], backward, reset_after)[:, ::-1]], axis=2)
    near(layer(x)[0], y, layer.dtype.name)


@pytest.mark.parametrize(("kind", "form"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize(
    ("version", "place"),
    [
        ("2.3.1", "rnn_1/rnn_1"),
        ("2.4.0", "rnn_1/rnn_1/rnn_cell"),
        ("2.11.0", "rnn_1/lstm_cell_7"),
        ("3.5.0", "sequential/rnn_1/gru_cell"),
    ],
)
def test_weights_since_2_3(tmp_path: Path, kind: str, form: str, version: str, place: str) -> None:
    weights = ref.draw(kind, 4, 6, form)
    layers = {"input_1": {}, "rnn_1": ref.named(place, weights, "" if version[0] == "3" else ":0"), "dense_1": DENSE}
    path = ref.write(tmp_path / "w.h5", layers, keras_version=version, backend="tensorflow")
    same(from_keras(path), weights, kind, form)
    same(from_keras(str(path), name="rnn_1"), weights, kind, form)
    with pytest.raises(ValueError, match=r"named 'dense_1'; there are: 'rnn_1'"):
        from_keras(path, "dense_1")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("version", ["2.0.8", "2.2.4", "2.2.4-tf", "2.3.0"])
def test_cudnn_layers_of_any_version(tmp_path: Path, kind: str, version: str) -> None:
    form = "one" if kind == "LSTM" else "two"
    weights = ref.draw(kind, 5, 3, form)
    layers = {"rnn_1": ref.named("rnn_1/rnn_1", ref.cudnn(kind, weights))}
    path = ref.write(tmp_path / "w.hdf5", layers, keras_version=version.encode())
    same(from_keras(path), weights, kind, form)
    (found,) = list_keras(path)
    assert (found.kind, found.input_size, found.hidden_size) == (f"CuDNN{kind}", 5, 3)


@few
@given(st.sampled_from(["LSTM", "GRU"]), sizes, sizes, st.booleans())
def test_cudnn_bidirectional(tmp_path_factory: Any, kind: str, inputs: int, units: int, both: bool) -> None:
    form = "one" if kind == "LSTM" else "two"
    ahead, back = (ref.draw(kind, inputs, units, form, seed) for seed in (0, 1))
    named = ref.named("bidirectional_1/forward_rnn_1", ref.cudnn(kind, ahead))
    if both:
        named |= ref.named("bidirectional_1/backward_rnn_1", ref.cudnn(kind, back))
    path = ref.write(tmp_path_factory.mktemp("w") / "w.h5", {"bidirectional_1": named}, keras_version=b"2.2.4")
    same(from_keras(path), ahead, kind, form, back if both else None)


@pytest.mark.parametrize(("kind", "form"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize(
    "places",
    [
        ("bi/forward_rnn", "bi/backward_rnn"),
        ("bi/forward_rnn/cell_1", "bi/backward_rnn/cell_2"),
        ("m/bi/forward_rnn/rnn_cell", "m/bi/backward_rnn/rnn_cell"),
    ],
)
def test_bidirectional(tmp_path: Path, kind: str, form: str, places: tuple[str, str]) -> None:
    ahead, back = (ref.draw(kind, 3, 4, form, seed) for seed in (0, 1))
    named = ref.named(places[0], ahead) | ref.named(places[1], back)
    path = ref.write(tmp_path / "w.h5", {"bi": named}, keras_version="2.6.0")
    layer = from_keras(path, "bi")
    assert layer.bidirectional
    same(layer, ahead, kind, form, back)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("version", ["0", "1", "1-gpu", "1-bidirectional", "2.2.4", "2.1.0-tf", "2.2.4-tf"])
def test_hard_sigmoid_by_default_before_2_3(tmp_path: Path, kind: str, version: str) -> None:
    weights, other = ref.draw(kind, 4, 6), ref.draw(kind, 4, 6, seed=1)
    old = ref.single_gates(kind, weights)
    letters = ("i", "c", "f", "o") if kind == "LSTM" else ("z", "r", "h")
    leaves = [f"{one}_{letter}" for letter in letters for one in "WUb"]
    path, backward = tmp_path / "w.h5", None
    if version == "0":
        ref.write_keras_0(path, [[np.ones((3, 4), np.float32)], old])
    elif version == "1":
        ref.write(path, {"rnn_1": dict(zip([f"rnn_1_{leaf}" for leaf in leaves], old, strict=True))})
    elif version == "1-gpu":
        ref.write(path, {"rnn_1": dict(zip([f"rnn_1_{leaf}" for leaf in "WUb"], weights, strict=True))})
    elif version == "1-bidirectional":
        named = dict(zip([f"forward_rnn_1_{leaf}" for leaf in leaves], old, strict=True))
        named |= dict(zip([f"backward_rnn_1_{leaf}" for leaf in leaves], ref.single_gates(kind, other), strict=True))
        ref.write(path, {"bidirectional_1": named})
        backward = other
    else:
        ref.write(path, {"rnn_1": ref.named("rnn_1/rnn_1", weights)}, keras_version=version.encode())
    with pytest.raises(ValueError, match="hard_sigmoid") as raised:
        from_keras(path)
    assert f"Keras {version if version[0] == '2' else '1'}" in str(raised.value)
    same(from_keras(path, recurrent_activation="sigmoid"), weights, kind, "one", backward)


def config(class_name: str, **options: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "rnn_1", "activation": "tanh", **options}}


def model_of(layers: list[Any], sequential_list: bool) -> str:
    inner = layers if sequential_list else {"name": "sequential_1", "layers": layers}
    return json.dumps({"class_name": "Sequential", "config": inner})


@pytest.mark.parametrize("version", ["1", "2.2.4"])
def test_a_model_in_the_file_is_believed(tmp_path: Path, version: str) -> None:
    weights = ref.draw("LSTM", 4, 6)
    old = version == "1"
    key = "inner_activation" if old else "recurrent_activation"
    size = {"output_dim": 6} if old else {"units": 6}
    layers = {"rnn_1": ref.named("rnn_1/rnn_1", weights)}
    attributes = {} if old else {"keras_version": version}

    def saved(**options: Any) -> Path:
        model = model_of([config("Dense", units=3, name="dense_1"), config("LSTM", **size, **options)], old)
        return ref.write(tmp_path / "m.h5", layers, inside="model_weights", model_config=model, **attributes)

    same(from_keras(saved(**{key: "sigmoid"})), weights, "LSTM", "one")
    with pytest.raises(ValueError, match="recurrent_activation 'hard_sigmoid'"):
        from_keras(saved(**{key: "hard_sigmoid"}))
    with pytest.raises(ValueError, match="recurrent_activation 'hard_sigmoid'"):  # the file knows better
        from_keras(saved(**{key: "hard_sigmoid"}), recurrent_activation="sigmoid")
    with pytest.raises(ValueError, match="activation 'relu'"):
        from_keras(saved(**{key: "sigmoid", "activation": "relu"}))
    with pytest.raises(ValueError, match="go_backwards"):
        from_keras(saved(**{key: "sigmoid", "go_backwards": True}))


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_gru_without_a_bias_needs_its_model(tmp_path: Path, reset_after: bool) -> None:
    weights = ref.draw("GRU", 4, 6, "none")
    layers = {"rnn_1": ref.named("rnn_1/gru_cell", weights)}
    plain = ref.write(tmp_path / "w.h5", layers, keras_version="2.6.0")
    with pytest.raises(ValueError, match="do not tell reset_after"):
        from_keras(plain)
    options = {"units": 6, "recurrent_activation": "sigmoid", "use_bias": False, "reset_after": reset_after}
    model = model_of([config("GRU", **options)], False)
    whole = ref.write(tmp_path / "m.h5", layers, inside="model_weights", model_config=model, keras_version="2.6.0")
    same(from_keras(whole), weights, "GRU", "two" if reset_after else "one")


def test_models_that_say_what_cannot_be(tmp_path: Path) -> None:
    layers = {"rnn_1": ref.named("rnn_1/gru_cell", ref.draw("GRU", 4, 6, "one"))}

    def saved(*layer: Any) -> Path:
        return ref.write(tmp_path / "m.h5", layers, inside="model_weights", model_config=model_of(list(layer), False))

    right = {"units": 6, "recurrent_activation": "sigmoid"}
    with pytest.raises(ValueError, match="reset_after=True, the shapes of the weights otherwise"):
        from_keras(saved(config("GRU", **right, reset_after=True)))
    with pytest.raises(ValueError, match="the model says LSTM"):
        from_keras(saved(config("LSTM", **right)))
    both = {"merge_mode": "ave", "layer": config("GRU", **right)}
    with pytest.raises(ValueError, match="merge_mode 'ave'"):
        from_keras(saved(config("Bidirectional", **both)))
    with pytest.raises(ValueError, match="several layers of that name"):
        from_keras(saved(config("GRU", **right, dropout=0.5), config("GRU", **right, reset_after=True)))


def test_several_layers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two, three = ref.draw("LSTM", 4, 6), ref.draw("GRU", 6, 3, "two"), ref.draw("LSTM", 3, 2)
    layers = {
        "first": ref.named("first/lstm_cell", one),
        "inner": ref.named("inner/gru/gru_cell", two) | ref.named("inner/lstm/lstm_cell", three),
    }
    path = ref.write(tmp_path / "w.h5", layers, chunks=1, keras_version="2.6.0")
    listed = r"3 recurrent layers.*'first' \(LSTM 4 -> 6\); 'gru' \(GRU 6 -> 3, reset_after=True\); 'lstm' \(LSTM 3 -> 2\)"
    with pytest.raises(ValueError, match=listed):
        from_keras(path)
    with caplog.at_level(logging.INFO, "gpurnn"):
        same(from_keras(path, "first"), one, "LSTM", "one")
    assert "weights without a model" in caplog.text
    same(from_keras(path, "inner/gru"), two, "GRU", "two")
    same(from_keras(path, "lstm"), three, "LSTM", "one")


@pytest.mark.parametrize("root", ["layers", "_layer_checkpoint_dependencies"])
def test_the_first_keras_archives(tmp_path: Path, root: str) -> None:
    """Before they had names."""
    weights, ahead, back = ref.draw("LSTM", 4, 6), ref.draw("GRU", 6, 3, "two"), ref.draw("GRU", 6, 3, "two", 1)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for place, arrays in {
            "lstm/cell": weights,
            "bidirectional/forward_layer/cell": ahead,
            "bidirectional/backward_layer/cell": back,
            "dense": [np.ones((3, 12), np.float32), np.ones((3, 12), np.float32)],
        }.items():
            for index, array in enumerate(arrays):
                file[f"{root}/{place}/vars/{index}"] = array
    same(from_keras(tmp_path / "m.weights.h5", "lstm"), weights, "LSTM", "one")
    same(from_keras(tmp_path / "m.weights.h5", "bidirectional"), ahead, "GRU", "two", back)


def test_float64(tmp_path: Path) -> None:
    weights = [one.astype(np.float64) for one in ref.draw("GRU", 4, 6, "two")]
    path = ref.write(tmp_path / "w.h5", {"g": ref.named("g/gru_cell", weights)}, keras_version="2.6.0")
    layer = from_keras(path)
    assert layer.dtype == np.float64
    same(layer, weights, "GRU", "two")


def test_reading_takes_no_keras(tmp_path: Path) -> None:
    from helpers import python

    path = ref.write(tmp_path / "w.h5", {"g": ref.named("g/gru_cell", ref.draw("GRU", 4, 6, "two"))}, keras_version="2.6.0")
    code = "import sys; from gpurnn.convert import from_keras; print(from_keras(sys.argv[1]), 'keras' in sys.modules)"
    assert python(code, str(path)) == "GRU(4, 6, batch_first=True, reset_after=True) False\n"
