"""The plain NumPy loop: timed in float32 as the baseline; in float64 the reference that answers are held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from bench.harness.cases import FLOAT32, Case
from bench.harness.data import F32, Arrays, Layers
from bench.harness.errors import Unsupported
from bench.peers.peer import Run, Step, Train

Floats = npt.NDArray[np.floating[Any]]
Lengths = Sequence[int] | None  # of ragged rows


def version() -> str:
    return np.__version__


def set_threads(n: int) -> None:
    threadpool_limits(n)


def _sigmoid(a: Floats) -> Floats:
    return 1 / (1 + np.exp(-a))


class Loop:
    """One direction of a layer in the given dtype; keeps what its backward needs."""

    def __init__(self, case: Case, weights: Arrays, dtype: npt.DTypeLike) -> None:
        self.case = case
        self.w: dict[str, Floats] = {name: array.astype(dtype) for name, array in weights.items()}
        self.dtype = dtype

    def zero_state(self, batch: int) -> tuple[Floats, Floats]:
        """h and c (B, H); a GRU leaves c alone."""
        return np.zeros((batch, self.case.hidden), self.dtype), np.zeros((batch, self.case.hidden), self.dtype)

    def cell(self, a: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, tuple[Floats, ...]]:
        """a: W_x x_t + b (B, G*H). Gives h, c and the activated gates."""
        w, H = self.w, self.case.hidden
        if self.case.cell == "lstm":
            a = a + h @ w["W_h"].T
            f, i, o = (_sigmoid(a[:, k * H : (k + 1) * H]) for k in range(3))
            g = np.tanh(a[:, 3 * H :])
            c = f * c + i * g
            return o * np.tanh(c), c, (f, i, o, g)
        zr = _sigmoid(a[:, : 2 * H] + h @ w["W_h"][: 2 * H].T)
        z, r = zr[:, :H], zr[:, H:]
        if self.case.cell == "gru":
            q = h
            n = np.tanh(a[:, 2 * H :] + (r * h) @ w["W_h"][2 * H :].T)
        else:
            q = h @ w["W_h"][2 * H :].T + w["b_hn"]
            n = np.tanh(a[:, 2 * H :] + r * q)
        return (1 - z) * h + z * n, c, (z, r, n, q)

    def outputs(self, x: Floats) -> Floats:
        """y (T, B, H)."""
        a = x.astype(self.dtype, copy=False) @ self.w["W_x"].T + self.w["b"]
        h, c = self.zero_state(x.shape[1])
        y = np.empty((*x.shape[:2], self.case.hidden), self.dtype)
        for t, a_t in enumerate(a):
            h, c, _ = self.cell(a_t, h, c)
            y[t] = h
        return y

    def forward(self, x: F32) -> tuple[Floats, list[tuple[Floats, ...]]]:
        """y (T, B, H) and, for each step, (h_prev, c_prev, c, gates...)."""
        a = x.astype(self.dtype, copy=False) @ self.w["W_x"].T + self.w["b"]
        h, c = self.zero_state(x.shape[1])
        y = np.empty((*x.shape[:2], self.case.hidden), self.dtype)
        saved = []
        for t, a_t in enumerate(a):
            h_prev, c_prev = h, c
            h, c, gates = self.cell(a_t, h, c)
            y[t] = h
            saved.append((h_prev, c_prev, c, *gates))
        return y, saved

    def backward(self, x: F32, saved: list[tuple[Floats, ...]], dy: F32) -> Arrays:
        """Exact back-propagation through time from a zero gradient of the last state."""
        W_h, H = self.w["W_h"], self.case.hidden
        dh, dc = self.zero_state(x.shape[1])
        d = np.empty((*x.shape[:2], self.case.gates * H), self.dtype)  # of the pre-activations
        dW_h = np.zeros_like(W_h)
        db_hn = np.zeros(H, self.dtype)
        for t in reversed(range(len(saved))):
            h_prev, c_prev, c, *gates = saved[t]
            dh = dh + dy[t]
            if self.case.cell == "lstm":
                f, i, o, g = gates
                tanh_c = np.tanh(c)
                dc = dc + dh * o * (1 - tanh_c**2)
                blocks = (
                    dc * c_prev * f * (1 - f),
                    dc * g * i * (1 - i),
                    dh * tanh_c * o * (1 - o),
                    dc * i * (1 - g**2),
                )
                d[t] = np.concatenate(blocks, axis=1)
                dW_h += d[t].T @ h_prev
                dh, dc = d[t] @ W_h, dc * f
                continue
            z, r, n, q = gates
            dn = dh * z * (1 - n**2)
            dz = dh * (n - h_prev) * z * (1 - z)
            if self.case.cell == "gru":
                drh = dn @ W_h[2 * H :]
                dr = drh * h_prev * r * (1 - r)
                dW_h[2 * H :] += dn.T @ (r * h_prev)
                through_n = drh * r
            else:
                dr = dn * q * r * (1 - r)
                dW_h[2 * H :] += (dn * r).T @ h_prev
                db_hn += (dn * r).sum(axis=0)
                through_n = (dn * r) @ W_h[2 * H :]
            d[t] = np.concatenate((dz, dr, dn), axis=1)
            dW_h[: 2 * H] += d[t][:, : 2 * H].T @ h_prev
            dh = dh * (1 - z) + through_n + d[t][:, : 2 * H] @ W_h[: 2 * H]
        rows = d.reshape(-1, d.shape[2])
        gradients: dict[str, Floats] = {
            "x": d @ self.w["W_x"],
            "W_x": rows.T @ x.reshape(-1, x.shape[2]),
            "W_h": dW_h,
            "b": rows.sum(axis=0),
        }
        if self.case.cell == "gru-after":
            gradients["b_hn"] = db_hn
        return {name: array.astype(np.float32) for name, array in gradients.items()}


def _loops(case: Case, weights: Layers, dtype: npt.DTypeLike) -> list[list[Loop]]:
    return [[Loop(case, arrays, dtype) for arrays in directions] for directions in weights]


def _reversed(x: Floats, lengths: Lengths) -> Floats:
    """(T, B, ...), each row's steps backward in time; what lies past them stays."""
    if lengths is None:
        return x[::-1]
    found = x.copy()
    for row, length in enumerate(lengths):
        found[:length, row] = x[:length, row][::-1]
    return found


def _stacked(case: Case, loops: list[list[Loop]], x: Floats, lengths: Lengths) -> Floats:
    """y (T, B, D*H) of all layers, zeros past a row's length."""
    for layer, directions in enumerate(loops):
        found = []
        for direction, loop in enumerate(directions):
            backward = case.is_backward(layer, direction)
            y = loop.outputs(_reversed(x, lengths) if backward else x)
            found.append(_reversed(y, lengths) if backward else y)
        x = np.concatenate(found, axis=2)
    for row, length in enumerate(lengths or ()):
        x[length:, row] = 0
    return x


def _only_floats(precision: str) -> None:
    if precision != FLOAT32:
        raise Unsupported(f"NumPy has no {precision}")


def build(case: Case, weights: Layers, precision: str) -> Run:
    _only_floats(precision)
    loops = _loops(case, weights, np.float32)
    lengths = case.lengths if case.ragged else None

    def run(x: F32) -> F32:
        y: F32 = _stacked(case, loops, x, lengths).astype(np.float32, copy=False)
        return y

    return run


def build_step(case: Case, weights: Layers, precision: str) -> Step:
    _only_floats(precision)
    loops = [directions[0] for directions in _loops(case, weights, np.float32)]
    states = [loop.zero_state(case.batch) for loop in loops]

    def step(x_t: F32) -> F32:
        h: Floats = x_t
        for layer, loop in enumerate(loops):
            h, c, _ = loop.cell(h @ loop.w["W_x"].T + loop.w["b"], *states[layer])
            states[layer] = h, c
        y: F32 = h.astype(np.float32, copy=False)
        return y

    return step


def build_train(case: Case, weights: Arrays, reload: bool) -> Train:
    loop = Loop(case, weights, np.float32)

    def train(x: F32, dy: F32) -> Arrays:
        return loop.backward(x, loop.forward(x)[1], dy)

    return train


def in_our_layout(case: Case, gradients: Arrays) -> Arrays:
    return gradients


def reference(case: Case, weights: Layers, x: F32, rows: Sequence[int]) -> F32:
    """y (T, len(rows), D*H) of some rows of the batch in float64, rounded once at the end."""
    lengths = [case.lengths[row] for row in rows] if case.ragged else None
    y: F32 = _stacked(case, _loops(case, weights, np.float64), x[:, rows], lengths).astype(np.float32)
    return y


def reference_gradients(case: Case, weights: Arrays, x: F32, dy: F32) -> Arrays:
    """Gradients in float64, rounded once at the end."""
    loop = Loop(case, weights, np.float64)
    return loop.backward(x, loop.forward(x)[1], dy)
