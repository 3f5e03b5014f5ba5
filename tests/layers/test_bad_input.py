"""Wrong input is refused with the error that says so, before anything is done; unusual input is computed right."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Floats, Problem, assert_same_bits, leaves, named, new_layer
from reference import packed, parts
from reference_cells import CELLS

import gpurnn

every_cell = pytest.mark.parametrize("cell", CELLS)
T, B, I, H = 5, 3, 4, 7


def problem(cell: str, **options: Any) -> Problem:
    return Problem(cell, T, B, I, H, **options)


class Tensor:
    """Another library's."""

    dtype = "float32"
    shape = (T, B, I)

    def __dlpack__(self) -> None: ...


class Frame:
    """pandas', polars' or xarray's."""

    def to_numpy(self) -> None: ...


class Sparse:
    """SciPy's."""

    dtype = np.dtype("float32")

    def toarray(self) -> None: ...


BAD_X: dict[str, tuple[Callable[[Floats], Any], type[Exception], str]] = {
    "1-D": (lambda x: x[0, 0], ValueError, r"expected shape .*got \(4,\)"),
    "4-D": (lambda x: x[None], ValueError, r"expected shape .*got \(1, 5, 3, 4\)"),
    "0-D": (lambda x: x[0, 0, 0:1].reshape(()), ValueError, r"expected shape .*got \(\)"),
    "wrong I": (lambda x: x[..., 1:], ValueError, r"expected shape .*4.*got \(5, 3, 3\)"),
    "no I": (lambda x: x[..., :0], ValueError, r"expected shape .*got \(5, 3, 0\)"),
    "float64": (lambda x: x.astype(np.float64), TypeError, r"expected float32, got float64.*\.astype"),
    "float16": (lambda x: x.astype(np.float16), TypeError, r"\.astype"),
    "integers": (lambda x: x.astype(int), TypeError, r"\.astype"),
    "booleans": (lambda x: x > 0, TypeError, r"\.astype"),
    "complex": (lambda x: x.astype(complex), TypeError, r"\.astype"),
    "objects": (lambda x: x.astype(object), TypeError, r"expected float32, got object"),
    "strings": (lambda x: x.astype(str), TypeError, "expected float32"),
    "records": (lambda x: x.view([("a", "f4")]), TypeError, "expected float32"),
    "byte-swapped": (lambda x: x.astype(x.dtype.newbyteorder()), TypeError, r"\.astype"),
    "masked": (lambda x: np.ma.masked_array(x, x > 0), TypeError, "expected a NumPy array, got numpy.ma"),
    "list": (lambda x: x.tolist(), TypeError, "expected a NumPy array, got list"),
    "scalar": (lambda x: 0.5, TypeError, "expected a NumPy array, got float"),
    "nothing": (lambda x: None, TypeError, "expected a NumPy array, got NoneType"),
    "tensor": (lambda x: Tensor(), TypeError, "from_dlpack"),
    "frame": (lambda x: Frame(), TypeError, r"got test_bad_input\.Frame; \.to_numpy\(\) makes one"),
    "sparse": (lambda x: Sparse(), TypeError, r"got test_bad_input\.Sparse; \.toarray\(\) makes one"),
}


@every_cell
@pytest.mark.parametrize("bad", BAD_X)
def test_bad_x(cell: str, bad: str) -> None:
    p = problem(cell)
    make, error, match = BAD_X[bad]
    for call in (p.layer, p.layer.vjp, p.layer.plan):
        for _ in range(2):
            with pytest.raises(error, match=match):
                call(make(p.x))
            p.layer(p.x)


@every_cell
def test_torch_tensors_are_refused_and_their_arrays_taken(cell: str) -> None:
    torch = pytest.importorskip("torch")
    p = problem(cell)
    tensor = torch.tensor(p.x)
    with pytest.raises(TypeError, match=r"got torch\.Tensor.*from_dlpack"):
        p.layer(tensor)
    assert_same_bits(p.layer(np.from_dlpack(tensor)), p.layer(p.x))


BAD_LENGTHS: dict[str, tuple[Any, type[Exception], str]] = {
    "negative": ([2, -1, 3], ValueError, r"0\.\.5.*got -1"),
    "too large": ([2, 6, 3], ValueError, r"0\.\.5.*got .*6"),
    "huge": (np.array([2, 2**63, 3], np.uint64), ValueError, r"0\.\.5"),
    "too few": ([2, 3], ValueError, r"expected shape \(B,\) = \(3,\), got \(2,\)"),
    "too many": ([2, 3, 1, 1], ValueError, "expected shape"),
    "2-D": ([[2, 3, 1]], ValueError, "expected shape"),
    "scalar": (3, ValueError, "expected shape"),
    "empty": ([], ValueError, "expected shape"),
    "floats": ([2.0, 3.0, 1.0], TypeError, "expected integers"),
    "booleans": ([True, False, True], TypeError, "expected integers"),
    "objects": (np.array([2, 3, 1], object), TypeError, "expected integers"),
    "strings": (["2", "3", "1"], TypeError, "expected integers"),
}


@every_cell
@pytest.mark.parametrize("bad", BAD_LENGTHS)
def test_bad_lengths(cell: str, bad: str) -> None:
    p = problem(cell)
    value, error, match = BAD_LENGTHS[bad]
    for call in (p.layer, p.layer.vjp):
        with pytest.raises(error, match=f"lengths: .*{match}"):
            call(p.x, p.state, value)


@every_cell
@pytest.mark.parametrize("bad", [6, -1])
def test_bad_lengths_without_a_batch(cell: str, bad: int) -> None:
    with pytest.raises(ValueError, match="lengths"):
        problem(cell).layer(np.zeros((T, I), np.float32), None, bad)


@every_cell
@pytest.mark.parametrize("lengths", [[2, [3], 1], "abc", {2, 3}])
def test_lengths_that_are_no_array(cell: str, lengths: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        problem(cell).layer(np.zeros((T, B, I), np.float32), None, lengths)


@every_cell
def test_bad_states(cell: str) -> None:
    p = problem(cell)
    h = leaves(p.state)[0]
    bad: list[tuple[Any, type[Exception], str]] = [
        (h[0], ValueError, "expected shape"),
        (h[:, 1:], ValueError, r"expected shape .*\(1, 3, 7\), got \(1, 2, 7\)"),
        (h[..., 1:], ValueError, "expected shape"),
        (np.concatenate([h, h]), ValueError, "expected shape"),
        (h.astype(np.float64), TypeError, r"\.astype"),
        (h.astype(object), TypeError, "object"),
        (h.tolist(), TypeError, "list"),
        (Tensor(), TypeError, "from_dlpack"),
    ]
    _, vjp = p.layer.vjp(p.x, p.state)
    for value, error, match in bad:
        for given in [(value, h), (h, value)] if cell == "lstm" else [value]:
            for call in (p.layer, p.layer.vjp):
                with pytest.raises(error, match=f"state.*{match}"):
                    call(p.x, given)
            with pytest.raises(error, match=f"dstate.*{match}"):
                vjp(p.dy, given)
    if cell == "lstm":
        for given in (h, (h,), (h, h, h), np.stack([h, h, h])):
            with pytest.raises(TypeError, match=r"expected a pair \(h, c\)"):
                p.layer(p.x, given)
    else:
        with pytest.raises(TypeError, match="got tuple"):
            p.layer(p.x, (h, h))


@every_cell
def test_bad_dy(cell: str) -> None:
    p = problem(cell)
    _, vjp = p.layer.vjp(p.x)
    for dy in (p.dy[1:], p.dy[..., 1:], p.dy[None], p.dy[0]):
        with pytest.raises(ValueError, match="dy: expected shape"):
            vjp(dy)
    for dy in (p.dy.astype(np.float64), p.dy.tolist(), p.dy.astype(object)):
        with pytest.raises(TypeError, match="dy: expected"):
            vjp(dy)


def stretched(a: Floats) -> Floats:
    wide = np.full(tuple(2 * n + 1 for n in a.shape), np.nan, a.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def misaligned(a: Floats) -> Floats:
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: Floats) -> Floats:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


UNUSUAL: dict[str, Callable[[Floats], Floats]] = {
    "stretched": stretched,
    "Fortran": np.asfortranarray,
    "reversed": lambda a: a[tuple(slice(None, None, -1) for _ in a.shape)].copy()[
        tuple(slice(None, None, -1) for _ in a.shape)
    ],
    "axes swapped": lambda a: np.ascontiguousarray(a.T).T,
    "time last": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(2, 0, 1),
    "misaligned": misaligned,
    "read-only": read_only,
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
    "memory map": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@every_cell
@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unusual_arrays_give_the_usual_results(cell: str, kind: str, options: dict[str, bool], dtype: str) -> None:
    p = Problem(cell, 6, 13, 19, 17, dtype=dtype, **options)
    usual, grads = p.layer(p.laid_out(p.x).copy(), p.state), p.gradients()
    change = UNUSUAL[kind]
    plain = tuple(leaves(p.layer(p.laid_out(p.x).copy())))
    for lengths in (None, [6] * 13):
        got = p.layer(change(p.laid_out(p.x)), packed([change(s) for s in parts(p.state)]), lengths)
        assert_same_bits(tuple(leaves(got)), tuple(leaves(usual)))
    for _ in range(3):
        assert_same_bits(tuple(leaves(p.layer(change(p.laid_out(p.x))))), plain)
    p.x, p.dy = (p.laid_out(change(p.laid_out(a))) for a in (p.x, p.dy))
    p.dstate = packed([change(d) for d in parts(p.dstate)])
    assert_same_bits(p.gradients(), grads)


@every_cell
def test_broadcast_and_overlapping_input(cell: str) -> None:
    p = problem(cell)
    row = np.arange(I + T, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(row, I)[:T, None]
    constant = np.broadcast_to(row[:I], (T, B, I))
    for x in (windows, constant):
        assert_same_bits(p.layer(x), p.layer(x.copy()))
        _, vjp = p.layer.vjp(x)
        _, expected = p.layer.vjp(x.copy())
        ones = np.broadcast_to(np.float32(1), (*x.shape[:2], H))
        assert_same_bits(named(vjp(ones)), named(expected(ones.copy())))


@every_cell
@pytest.mark.parametrize("sizes", [(0, B), (T, 0), (0, 0)])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}])
def test_empty_input(cell: str, sizes: tuple[int, int], options: dict[str, Any]) -> None:
    steps, rows = sizes
    p = Problem(cell, steps, rows, I, H, **options)
    for lengths in (None, [0] * rows):
        p.lengths = lengths
        p.past = np.zeros((steps, rows), bool)
        y, state = p.run()
        assert y.shape == (steps, rows, H * (2 if options.get("bidirectional") else 1))
        assert_same_bits(state, p.state)
        grads = p.gradients()
        assert grads["x"].shape == p.x.shape
        assert_same_bits(grads["h_0"], leaves(p.dstate)[0])
        assert all(np.all(grads[name] == 0) for name in p.params)
        plain = leaves(p.layer(p.laid_out(p.x), None, lengths))
        assert all(np.all(s == 0) for s in plain[1:])


@every_cell
def test_no_partial_effect(cell: str) -> None:
    """A refused call leaves the layer as it was."""
    p = problem(cell)
    expected = p.layer(p.x, p.state)
    for args in ((p.x[..., 1:],), (p.x, 0), (p.x, p.state, [9, 9, 9])):
        with pytest.raises((TypeError, ValueError)):
            p.layer(*args)
        assert_same_bits(tuple(leaves(p.layer(p.x, p.state))), tuple(leaves(expected)))


def test_numbers_of_threads() -> None:
    for value in (0, -1, -(2**70)):
        with pytest.raises(ValueError, match=f"got {value}"):
            gpurnn.set_num_threads(value)
    for wrong in (1.0, "2", None, True, np.float32(2)):
        with pytest.raises(TypeError, match="expected an integer"):
            gpurnn.set_num_threads(wrong)  # type: ignore[arg-type]
    gpurnn.set_num_threads(np.int64(3))  # type: ignore[arg-type]
    assert gpurnn.get_num_threads() == 3
    assert type(gpurnn.get_num_threads()) is int


BAD_ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception]]] = {
    "no input": ((0, 4), {}, ValueError),
    "negative hidden size": ((3, -4), {}, ValueError),
    "no layers": ((3, 4, 0), {}, ValueError),
    "float size": ((3.0, 4), {}, TypeError),
    "string size": ((3, "4"), {}, TypeError),
    "true as a size": ((3, True), {}, TypeError),
    "both directions and reverse": ((3, 4), {"bidirectional": True, "reverse": True}, ValueError),
    "a number as a flag": ((3, 4), {"bias": 1}, TypeError),
    "nothing as a flag": ((3, 4), {"reverse": None}, TypeError),
    "a string as a flag": ((3, 4), {"batch_first": "yes"}, TypeError),
    "unknown dtype": ((3, 4), {"dtype": "float31"}, TypeError),
    "integers": ((3, 4), {"dtype": "int32"}, ValueError),
    "byte-swapped dtype": ((3, 4), {"dtype": np.dtype("float32").newbyteorder()}, ValueError),
    "complex": ((3, 4), {"dtype": np.complex64}, ValueError),
    "no dtype": ((3, 4), {"dtype": None}, TypeError),
    "unknown argument": ((3, 4), {"hidden": 4}, TypeError),
    "negative seed": ((3, 4), {"seed": -1}, ValueError),
}


@every_cell
@pytest.mark.parametrize("bad", BAD_ARGUMENTS)
def test_bad_constructor_arguments(cell: str, bad: str) -> None:
    args, kwargs, error = BAD_ARGUMENTS[bad]
    with pytest.raises(error):
        new_layer(cell, *args, **kwargs)


def test_forget_bias() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="forget_bias"):
            gpurnn.LSTM(3, 4, forget_bias=value)
    for wrong in ("1", None, True):
        with pytest.raises(TypeError, match="forget_bias"):
            gpurnn.LSTM(3, 4, forget_bias=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="forget_bias"):
        gpurnn.LSTM(3, 4, forget_bias=1.0, bias=False)


NOT_BUILT = {"precision": "float16"}


@every_cell
@pytest.mark.parametrize("name", NOT_BUILT)
def test_options_that_are_not_built_yet(name: str, cell: str) -> None:
    with pytest.raises(NotImplementedError, match=name):
        new_layer(cell, 3, 4, **{name: NOT_BUILT[name]})


@pytest.mark.parametrize(("name", "value"), [("proj_size", 2), ("peepholes", True), ("input_forget", True)])
def test_options_that_a_gru_does_not_have(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        gpurnn.GRU(3, 4, **{name: value})
