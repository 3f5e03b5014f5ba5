"""The reference against central finite differences, against cases solved by hand, and against PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reference
from reference import State, packed, parts
from reference_cells import CELLS, Array

T, B, I, H = 5, 4, 3, 2
LENGTHS = {"full": None, "ragged": [2, 5, 0, 4]}
LAYERS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"reverse": True},
    "both": {"bidirectional": True},
    "stacked": {"num_layers": 2},
    "stacked-both": {"num_layers": 2, "bidirectional": True},
    "stacked-reverse": {"num_layers": 2, "reverse": True},
}
cells = pytest.mark.parametrize("cell", CELLS)
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
ragged = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())


class Problem:
    """Random params, input and state, and the weights dy, dstate of a scalar loss, for a cell and a layer's options."""

    def __init__(self, cell: str, layer: dict[str, Any], seed: int = 0, bias: bool = True) -> None:
        rng = np.random.default_rng(seed)
        D = 2 if layer.get("bidirectional") else 1
        rows = (layer.get("num_layers", 1) * D, B, H)

        def state() -> State:
            return packed([rng.standard_normal(rows) for _ in range(CELLS[cell].states)])

        self.params = reference.random_params(cell, I, H, bias=bias, seed=seed, **layer)
        self.x = rng.standard_normal((T, B, I))
        self.state = state()
        self.dy = rng.standard_normal((T, B, D * H))
        self.dstate = state()


def past(lengths: list[int]) -> npt.NDArray[np.bool_]:
    """(T, B), true at the steps past each row's length."""
    return np.arange(T)[:, None] >= np.array(lengths)


def assert_near(actual: State, expected: State, name: str = "") -> None:
    for a, b in zip(parts(actual), parts(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)


# Finite differences


def finite_difference(loss: Callable[[], float], a: Array, eps: float = 1e-5) -> Array:
    """The gradient of loss() with respect to each element of a, which loss reads."""
    grad = np.zeros_like(a)
    for k in np.ndindex(a.shape):
        old = a[k]
        a[k] = old + eps
        up = loss()
        a[k] = old - eps
        down = loss()
        a[k] = old
        grad[k] = (up - down) / (2 * eps)
    return grad


@cells
@layers
@ragged
def test_gradients_against_finite_differences(cell: str, layer: dict[str, Any], lengths: list[int] | None) -> None:
    p = Problem(cell, layer)

    def loss() -> float:
        y, state_n = reference.forward(cell, p.params, p.x, p.state, lengths, **layer)
        ends = zip(parts(p.dstate), parts(state_n), strict=True)
        return float(np.sum(p.dy * y) + sum(np.sum(d * s) for d, s in ends))

    grads = reference.gradients(cell, p.params, p.x, p.dy, p.dstate, p.state, lengths, **layer)
    assert list(grads.params) == list(p.params)
    names = ["x", "h_0", "c_0"][: 1 + CELLS[cell].states] + list(p.params)
    inputs = [p.x, *parts(p.state), *p.params.values()]
    analytic = [grads.x, *parts(grads.state), *grads.params.values()]
    for name, a, grad in zip(names, inputs, analytic, strict=True):
        expected = finite_difference(loss, a)
        assert np.linalg.norm(grad - expected) <= 1e-7 * np.linalg.norm(expected), name


@cells
def test_absent_gradients_and_state_are_zeros(cell: str) -> None:
    p = Problem(cell, {}, bias=False)
    zeros = packed([np.zeros_like(s) for s in parts(p.state)])
    a = reference.gradients(cell, p.params, p.x, None, p.dstate)
    b = reference.gradients(cell, p.params, p.x, np.zeros_like(p.dy), p.dstate, zeros, [T] * B)
    np.testing.assert_equal(a, b)
    a = reference.gradients(cell, p.params, p.x, p.dy)
    b = reference.gradients(cell, p.params, p.x, p.dy, zeros)
    np.testing.assert_equal(a, b)


# Cases solved by hand: saturated gates


def biased(cell: str, *gates: list[float]) -> dict[str, Array]:
    """Random params with the given values added to the gates' biases."""
    params = reference.random_params(cell, I, H)
    params["layers.0.b"] += np.concatenate([np.array(g) for g in gates])
    return params


ON, OFF, FREE = [99.0] * H, [-99.0] * H, [0.0] * H


def test_lstm_gates_are_f_i_o_g() -> None:
    p = Problem("lstm", {})
    h_0, c_0 = parts(p.state)
    params = biased("lstm", ON, OFF, ON, FREE)
    y, (h_n, c_n) = reference.forward("lstm", params, p.x, p.state)
    assert_near(c_n, c_0)
    assert_near(h_n, np.tanh(c_0))
    assert_near(y, np.tanh(c_0) * np.ones((T, 1, 1)))

    params = biased("lstm", OFF, ON, ON, FREE)
    _, (h_n, c_n) = reference.forward("lstm", params, p.x[:1], p.state)
    a = p.x[:1] @ params["layers.0.W_x"].T + h_0 @ params["layers.0.W_h"].T + params["layers.0.b"]
    assert_near(c_n, np.tanh(a[..., 3 * H :]))

    _, (h_n, _) = reference.forward("lstm", biased("lstm", FREE, FREE, OFF, FREE), p.x, p.state)
    assert_near(h_n, np.zeros_like(h_n))


@pytest.mark.parametrize("cell", ["gru", "gru_after"])
def test_gru_gates_are_z_r_n_and_z_lets_the_new_value_in(cell: str) -> None:
    p = Problem(cell, {})
    (h_0,) = parts(p.state)
    _, h_n = reference.forward(cell, biased(cell, OFF, FREE, FREE), p.x, p.state)
    assert_near(h_n, h_0)

    # z = 1, r = 0 for the first unit and 1 for the second
    params = biased(cell, ON, [-99.0, 99.0], FREE)
    _, h_n = reference.forward(cell, params, p.x[:1], p.state)
    W_hn = params["layers.0.W_h"][2 * H :]
    a = p.x[:1] @ params["layers.0.W_x"][2 * H :].T + params["layers.0.b"][2 * H :]
    if cell == "gru":
        assert_near(h_n, np.tanh(a + h_0[..., 1:] * W_hn[:, 1]))
    else:
        s = h_0 @ W_hn[1] + params["layers.0.b_hn"][1]
        assert_near(h_n, np.tanh(a + np.stack([0 * s, s], axis=-1)))


# Lengths and directions


@cells
@layers
def test_rows_stop_at_their_lengths(cell: str, layer: dict[str, Any]) -> None:
    p = Problem(cell, layer)
    lengths = LENGTHS["ragged"]
    assert lengths is not None
    x, dy = p.x.copy(), p.dy.copy()
    x[past(lengths)] = np.nan
    dy[past(lengths)] = np.nan
    y, state_n = reference.forward(cell, p.params, x, p.state, lengths, **layer)
    grads = reference.gradients(cell, p.params, x, dy, p.dstate, p.state, lengths, **layer)
    assert np.all(y[past(lengths)] == 0)
    assert np.all(grads.x[past(lengths)] == 0)
    assert all(np.isfinite(g).all() for g in grads.params.values())

    def row(state: State, b: int) -> State:
        return packed([s[:, b : b + 1] for s in parts(state)])

    for b, n in enumerate(lengths):
        x_b, dy_b = x[:n, b : b + 1], dy[:n, b : b + 1]
        first, d_last = row(p.state, b), row(p.dstate, b)
        y_b, state_b = reference.forward(cell, p.params, x_b, first, **layer)
        assert_near(y[:n, b : b + 1], y_b)
        assert_near(row(state_n, b), state_b)
        grads_b = reference.gradients(cell, p.params, x_b, dy_b, d_last, first, **layer)
        assert_near(grads.x[:n, b : b + 1], grads_b.x)
        assert_near(row(grads.state, b), grads_b.state)
        if n == 0:
            np.testing.assert_equal(row(state_n, b), first)
            np.testing.assert_equal(row(grads.state, b), d_last)


@cells
def test_reverse_is_forward_on_flipped_time(cell: str) -> None:
    p = Problem(cell, {"reverse": True})
    forward = {name.replace("reverse.", ""): value for name, value in p.params.items()}
    y, state_n = reference.forward(cell, p.params, p.x, p.state, reverse=True)
    y_f, state_f = reference.forward(cell, forward, p.x[::-1], p.state)
    np.testing.assert_equal(y, y_f[::-1])
    np.testing.assert_equal(state_n, state_f)


@cells
def test_layers_and_directions_are_stacked(cell: str) -> None:
    p = Problem(cell, LAYERS["stacked-both"])
    y, state_n = reference.forward(cell, p.params, p.x, p.state, **LAYERS["stacked-both"])
    x, ends = p.x, []
    for l in range(2):
        params = {name.replace(f"layers.{l}", "layers.0"): value for name, value in p.params.items()}
        first = [packed([s[[2 * l + d]] for s in parts(p.state)]) for d in range(2)]
        y_f, end_f = reference.forward(cell, params, x, first[0])
        y_r, end_r = reference.forward(cell, params, x, first[1], reverse=True)
        x = np.concatenate([y_f, y_r], axis=2)
        ends += [parts(end_f), parts(end_r)]
    np.testing.assert_equal(y, x)
    np.testing.assert_equal(state_n, packed([np.concatenate(rows) for rows in zip(*ends, strict=True)]))


@cells
@pytest.mark.parametrize(("steps", "rows"), [(0, B), (T, 0), (0, 0)])
def test_empty(cell: str, steps: int, rows: int) -> None:
    p = Problem(cell, {})
    first = packed([s[:, :rows] for s in parts(p.state)])
    d_last = packed([s[:, :rows] for s in parts(p.dstate)])
    x, dy = p.x[:steps, :rows], p.dy[:steps, :rows]
    y, state_n = reference.forward(cell, p.params, x, first)
    grads = reference.gradients(cell, p.params, x, dy, d_last, first)
    assert y.shape == (steps, rows, H)
    assert grads.x.shape == x.shape
    np.testing.assert_equal(state_n, first)
    np.testing.assert_equal(grads.state, d_last)
    assert all(np.all(g == 0) for g in grads.params.values())


# PyTorch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def to_torch(cell: str, a: Array) -> Array:
    """Rows of gates in our order to PyTorch's, where z is how much of the OLD value stays."""
    if cell == "lstm":
        f, i, o, g = np.split(a, 4)
        return np.concatenate([i, f, g, o])
    z, r, n = np.split(a, 3)
    return np.concatenate([r, -z, n])


def from_torch(cell: str, a: Array) -> Array:
    if cell == "lstm":
        i, f, g, o = np.split(a, 4)
        return np.concatenate([f, i, o, g])
    r, z, n = np.split(a, 3)
    return np.concatenate([-z, r, n])


def torch_names(name: str) -> list[str]:
    """From "layers.1.reverse.W_x" to ["weight_ih_l1_reverse"]; a bias has two."""
    _, l, *reverse, kind = name.split(".")
    heads = {"W_x": ["weight_ih"], "W_h": ["weight_hh"], "W_p": ["weight_hr"]}
    heads |= {"b": ["bias_ih", "bias_hh"], "b_hn": ["bias_hh"]}
    return [f"{head}_l{l}{'_reverse' if reverse else ''}" for head in heads[kind]]


@pytest.mark.parametrize("cell", ["lstm", "gru_after"])
@pytest.mark.parametrize("options", ["forward", "both", "stacked", "stacked-both"])
@pytest.mark.parametrize("lengths", [None, [2, 5, 1, 4]], ids=["full", "ragged"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_against_torch(torch: Any, cell: str, options: str, lengths: list[int] | None, bias: bool) -> None:
    layer = LAYERS[options]
    p = Problem(cell, layer, bias=bias)
    kind = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
    module = kind(I, H, bias=bias, dtype=torch.float64, **layer)
    theirs = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in p.params.items():
            targets = [theirs[target] for target in torch_names(name)]
            if name.endswith("b_hn"):
                targets[0][2 * H :] = torch.tensor(value)
                continue
            for target in targets:
                target.copy_(torch.tensor(to_torch(cell, value) / len(targets)))
            if cell == "gru_after" and name.endswith(".b"):  # b_n is all of bias_ih's; b_hn follows
                targets[0][2 * H :] *= 2

    x = torch.tensor(p.x, requires_grad=True)
    first = [torch.tensor(s, requires_grad=True) for s in parts(p.state)]
    given = packed(first)
    if lengths is None:
        y, last = module(x, given)
    else:
        ragged_y, last = module(torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False), given)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(ragged_y, total_length=T)
    loss = (y * torch.from_numpy(p.dy)).sum()
    last = last if cell == "lstm" else [last]
    for s, d in zip(last, parts(p.dstate), strict=True):
        loss = loss + (s * torch.from_numpy(d)).sum()
    loss.backward()

    our_y, our_last = reference.forward(cell, p.params, p.x, p.state, lengths, **layer)
    grads = reference.gradients(cell, p.params, p.x, p.dy, p.dstate, p.state, lengths, **layer)
    assert_near(our_y, y.detach().numpy())
    assert_near(our_last, packed([s.detach().numpy() for s in last]))
    assert_near(grads.x, x.grad.numpy())
    assert_near(grads.state, packed([s.grad.numpy() for s in first]))
    for name, grad in grads.params.items():
        expected = theirs[torch_names(name)[0]].grad.numpy()
        expected = expected[2 * H :] if name.endswith("b_hn") else from_torch(cell, expected)
        assert_near(grad, expected, name)


@pytest.mark.parametrize("reverse", [False, True])
@ragged
def test_gru_reset_before_against_torch_autograd(torch: Any, reverse: bool, lengths: list[int] | None) -> None:
    """PyTorch has no such layer: an explicit loop over rows, steps and gates, differentiated by autograd."""
    p = Problem("gru", {"reverse": reverse})
    params = {name: torch.tensor(value, requires_grad=True) for name, value in p.params.items()}
    W_x, W_h, b = (params[f"layers.0.{'reverse.' if reverse else ''}{name}"].split(H) for name in ("W_x", "W_h", "b"))
    x = torch.tensor(p.x, requires_grad=True)
    h_0 = torch.tensor(p.state, requires_grad=True)
    y = torch.zeros(T, B, H, dtype=torch.float64)
    h_n = torch.zeros(1, B, H, dtype=torch.float64)
    for row, steps in enumerate(lengths or [T] * B):
        h = h_0[0, row]
        for t in reversed(range(steps)) if reverse else range(steps):
            z = torch.sigmoid(W_x[0] @ x[t, row] + W_h[0] @ h + b[0])
            r = torch.sigmoid(W_x[1] @ x[t, row] + W_h[1] @ h + b[1])
            n = torch.tanh(W_x[2] @ x[t, row] + W_h[2] @ (r * h) + b[2])
            h = (1 - z) * h + z * n
            y[t, row] = h
        h_n[0, row] = h
    ((y * torch.tensor(p.dy)).sum() + (h_n * torch.tensor(p.dstate)).sum()).backward()

    our_y, our_h_n = reference.forward("gru", p.params, p.x, p.state, lengths, reverse=reverse)
    grads = reference.gradients("gru", p.params, p.x, p.dy, p.dstate, p.state, lengths, reverse=reverse)
    assert_near(our_y, y.detach().numpy())
    assert_near(our_h_n, h_n.detach().numpy())
    assert_near(grads.x, x.grad.numpy())
    assert_near(grads.state, h_0.grad.numpy())
    for name, grad in grads.params.items():
        assert_near(grad, params[name].grad.numpy(), name)
