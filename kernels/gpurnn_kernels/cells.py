"""The cell equations, once.

A *number* is whatever has +, - and *: a float in a CUDA kernel, a SIMD vector while a CPU kernel is being emitted, a NumPy
array in a check. The equations hold no literals, so that no number is promoted: `(1 - z) * h + z * n` is written
`h + z * (n - h)`, and `s * (1 - s)` is `s - s * s`.

Notation: a trailing underscore marks a pre-activation (`f_`), its bare name the activated gate (`f`), a leading `d` the
gradient of the loss with respect to it.

`Activations` hands in sigma and tanh. `sigmoid_tanh(a, b)` is sigma(a) * tanh(b): a backend may share one division there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Number = Any
Equation = Callable[..., Any]


class Activations(NamedTuple):
    sigmoid: Callable[[Number], Number]
    tanh: Callable[[Number], Number]
    sigmoid_tanh: Callable[[Number, Number], Number]


class Cells(NamedTuple):
    """What `make_cells` gives: see the functions of the same names there."""

    lstm_cell: Callable[..., Any]
    lstm_gates: Callable[..., Any]
    lstm_cell_grad: Callable[..., Any]
    gru_reset: Callable[..., Any]
    gru_candidate: Callable[..., Any]
    gru_update: Callable[..., Any]
    gru_update_grad: Callable[..., Any]
    gru_reset_grad: Callable[..., Any]
    gru_candidate_grad: Callable[..., Any]


def make_cells(activations: Activations, compiled: Callable[[Equation], Equation] = lambda function: function) -> Cells:
    """The equations over the given activations, each passed through `compiled` (a backend's jit decorator)."""
    sigmoid, tanh, sigmoid_tanh = activations

    def lstm_cell(f_, i_, o_, g_, c_prev):  # type: ignore[no-untyped-def]
        """-> h, c"""
        c = sigmoid(f_) * c_prev + sigmoid_tanh(i_, g_)
        return sigmoid_tanh(o_, c), c

    def lstm_gates(f_, i_, o_, g_):  # type: ignore[no-untyped-def]
        """-> f, i, o, g, saved for the backward pass"""
        return sigmoid(f_), sigmoid(i_), sigmoid(o_), tanh(g_)

    def lstm_cell_grad(f, i, o, g, c_prev, c, dh, dc):  # type: ignore[no-untyped-def]
        """-> df_, di_, do_, dg_, dc_prev"""
        tanh_c = tanh(c)
        dh_o = dh * o
        do_ = dh_o * tanh_c
        do_ = do_ - do_ * o
        dc = dc + (dh_o - dh_o * tanh_c * tanh_c)
        dc_prev = dc * f
        df_ = dc_prev * c_prev
        df_ = df_ - df_ * f
        dc_i = dc * i
        di_ = dc_i * g
        di_ = di_ - di_ * i
        dg_ = dc_i - dc_i * g * g
        return df_, di_, do_, dg_, dc_prev

    def gru_reset(r_, h_prev):  # type: ignore[no-untyped-def]
        """Reset before: -> r * h_prev, what W_hn multiplies"""
        return sigmoid(r_) * h_prev

    def gru_candidate(r_, q, n_x):  # type: ignore[no-untyped-def]
        """Reset after, q = W_hn h_prev + b_hn: -> n_"""
        return sigmoid(r_) * q + n_x

    def gru_update(z_, n_, h_prev):  # type: ignore[no-untyped-def]
        """-> h"""
        return h_prev + sigmoid(z_) * (tanh(n_) - h_prev)

    def gru_update_grad(z, n, h_prev, dh):  # type: ignore[no-untyped-def]
        """-> dz_, dn_, and dh_prev's part that does not pass a gate"""
        dh_z = dh * z
        dz_ = dh_z * (n - h_prev)
        dz_ = dz_ - dz_ * z
        dn_ = dh_z - dh_z * n * n
        return dz_, dn_, dh - dh_z

    def gru_reset_grad(r, h_prev, drh):  # type: ignore[no-untyped-def]
        """Reset before, drh = dL/d(r * h_prev): -> dr_, dh_prev's part"""
        dh_prev = drh * r
        dr_ = dh_prev * h_prev
        return dr_ - dr_ * r, dh_prev

    def gru_candidate_grad(r, q, dn_):  # type: ignore[no-untyped-def]
        """Reset after: -> dr_, dq"""
        dq = dn_ * r
        dr_ = dq * q
        return dr_ - dr_ * r, dq

    equations: tuple[Equation, ...] = (
        lstm_cell,
        lstm_gates,
        lstm_cell_grad,
        gru_reset,
        gru_candidate,
        gru_update,
        gru_update_grad,
        gru_reset_grad,
        gru_candidate_grad,
    )
    return Cells(*map(compiled, equations))
