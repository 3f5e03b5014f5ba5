"""The cell equations, once.

A *number* is whatever has +, - and *: a float in a CUDA kernel, a SIMD vector while a CPU kernel is being emitted, a NumPy
array in a check. The equations hold no literals, so that no number is promoted: 1 - z is `complement(z)`.

Notation: a trailing underscore marks a pre-activation (`f_`), its bare name the activated gate (`f`), a leading `d` the
gradient of the loss with respect to it.

`Activations` hands in sigma and tanh. `sigmoid_tanh(a, b)` is sigma(a) * tanh(b): a backend may share one division there.
`forget` is the forget gate's sigma. c holds products of thousands of them, each just below 1: an error that is not as often up
as down would add up, so that there it may have no more than a rounding's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Number = Any
Equation = Callable[..., Any]


class Activations(NamedTuple):
    sigmoid: Callable[[Number], Number]
    tanh: Callable[[Number], Number]
    sigmoid_tanh: Callable[[Number, Number], Number]
    forget: Callable[[Number], Number]
    complement: Callable[[Number], Number]  # 1 - a


class Clip(NamedTuple):
    """Clamping to [-limit, limit], and what it lets through of a gradient: all of it where |a| <= limit, else nothing."""

    clamp: Callable[[Number, Number], Number]  # a, limit
    inside: Callable[[Number, Number, Number], Number]  # gradient, a, limit


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
    sigmoid, tanh, sigmoid_tanh, forget, complement = activations

    def lstm_cell(f_, i_, o_, g_, c_prev):  # type: ignore[no-untyped-def]
        """-> h, c"""
        c = forget(f_) * c_prev + sigmoid_tanh(i_, g_)
        return sigmoid_tanh(o_, c), c

    def lstm_gates(f_, i_, o_, g_):  # type: ignore[no-untyped-def]
        """-> f, i, o, g, saved for the backward pass"""
        return forget(f_), sigmoid(i_), sigmoid(o_), tanh(g_)

    def lstm_cell_grad(f, i, o, g, c_prev, c, dh, dc):  # type: ignore[no-untyped-def]
        """-> df_, di_, do_, dg_, dc_prev"""
        tanh_c = tanh(c)
        dh_o = dh * o
        do_ = dh_o * tanh_c * complement(o)
        dc = dc + dh_o * complement(tanh_c * tanh_c)
        dc_prev = dc * f
        df_ = dc_prev * c_prev * complement(f)
        dc_i = dc * i
        di_ = dc_i * g * complement(i)
        dg_ = dc_i * complement(g * g)
        return df_, di_, do_, dg_, dc_prev

    def gru_reset(r_, h_prev):  # type: ignore[no-untyped-def]
        """Reset before: -> r * h_prev, what W_hn multiplies"""
        return sigmoid(r_) * h_prev

    def gru_candidate(r_, q, n_x):  # type: ignore[no-untyped-def]
        """Reset after, q = W_hn h_prev + b_hn: -> n_"""
        return sigmoid(r_) * q + n_x

    def gru_update(z_, n_, h_prev):  # type: ignore[no-untyped-def]
        """-> h"""
        z = sigmoid(z_)
        return complement(z) * h_prev + z * tanh(n_)

    def gru_update_grad(z, n, h_prev, dh):  # type: ignore[no-untyped-def]
        """-> dz_, dn_, and dh_prev's part that does not pass a gate"""
        kept, dh_z = complement(z), dh * z
        return dh_z * (n - h_prev) * kept, dh_z * complement(n * n), dh * kept

    def gru_reset_grad(r, h_prev, drh):  # type: ignore[no-untyped-def]
        """Reset before, drh = dL/d(r * h_prev): -> dr_, dh_prev's part"""
        dh_prev = drh * r
        return dh_prev * h_prev * complement(r), dh_prev

    def gru_candidate_grad(r, q, dn_):  # type: ignore[no-untyped-def]
        """Reset after: -> dr_, dq"""
        dq = dn_ * r
        return dq * q * complement(r), dq

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


class OptionCells(NamedTuple):
    """What `make_option_cells` gives: see the functions of the same names there."""

    lstm_options: Callable[..., Any]
    lstm_options_grad: Callable[..., Any]
    gru_clip_reset: Callable[..., Any]
    gru_clip_candidate: Callable[..., Any]
    gru_clip_update: Callable[..., Any]
    gru_clip_update_grad: Callable[..., Any]
    gru_clip_reset_grad: Callable[..., Any]
    gru_clip_candidate_grad: Callable[..., Any]


def make_option_cells(
    cells: Cells, activations: Activations, clip: Clip, compiled: Callable[[Equation], Equation] = lambda function: function
) -> OptionCells:
    """The equations of the cells that clamp every pre-activation and, in the LSTM, let the gates see c.

    `limit` may be infinite. Their gradients start from the pre-activations as they were before the clamp.
    """
    sigmoid, tanh, sigmoid_tanh, forget, complement = activations
    clamp, inside = clip

    def lstm_options(f_, i_, o_, g_, c_prev, limit, peephole):  # type: ignore[no-untyped-def]
        """peephole: p_f, p_i, p_o or None -> o * tanh(c), c, and f_, i_, o_ with what c adds to them"""
        if peephole is not None:
            p_f, p_i, p_o = peephole
            f_ = f_ + p_f * c_prev
            i_ = i_ + p_i * c_prev
        c = forget(clamp(f_, limit)) * c_prev + sigmoid_tanh(clamp(i_, limit), clamp(g_, limit))
        if peephole is not None:
            o_ = o_ + p_o * c
        return sigmoid_tanh(clamp(o_, limit), c), c, f_, i_, o_

    def lstm_options_grad(f_, i_, o_, g_, c_prev, c, dh, dc, limit, peephole):  # type: ignore[no-untyped-def]
        """f_, i_, o_ as `lstm_options` gives them, dh of o * tanh(c) -> df_, di_, do_, dg_, dc_prev"""
        f, i, o = forget(clamp(f_, limit)), sigmoid(clamp(i_, limit)), sigmoid(clamp(o_, limit))
        g, tanh_c = tanh(clamp(g_, limit)), tanh(c)
        dh_o = dh * o
        do_ = inside(dh_o * tanh_c * complement(o), o_, limit)
        dc = dc + dh_o * complement(tanh_c * tanh_c)
        if peephole is not None:
            p_f, p_i, p_o = peephole
            dc = dc + p_o * do_
        dc_prev = dc * f
        df_ = inside(dc_prev * c_prev * complement(f), f_, limit)
        dc_i = dc * i
        di_ = inside(dc_i * g * complement(i), i_, limit)
        dg_ = inside(dc_i * complement(g * g), g_, limit)
        if peephole is not None:
            dc_prev = dc_prev + p_f * df_ + p_i * di_
        return df_, di_, do_, dg_, dc_prev

    def gru_clip_reset(r_, h_prev, limit):  # type: ignore[no-untyped-def]
        """Reset before: -> r * h_prev"""
        return cells.gru_reset(clamp(r_, limit), h_prev)

    def gru_clip_candidate(r_, q, n_x, limit):  # type: ignore[no-untyped-def]
        """Reset after: -> n_"""
        return cells.gru_candidate(clamp(r_, limit), q, n_x)

    def gru_clip_update(z_, n_, h_prev, limit):  # type: ignore[no-untyped-def]
        """-> h"""
        return cells.gru_update(clamp(z_, limit), clamp(n_, limit), h_prev)

    def gru_clip_update_grad(z_, n_, h_prev, dh, limit):  # type: ignore[no-untyped-def]
        """-> dz_, dn_, and dh_prev's part that does not pass a gate"""
        z, n = sigmoid(clamp(z_, limit)), tanh(clamp(n_, limit))
        dz_, dn_, dh_prev = cells.gru_update_grad(z, n, h_prev, dh)
        return inside(dz_, z_, limit), inside(dn_, n_, limit), dh_prev

    def gru_clip_reset_grad(r_, h_prev, drh, limit):  # type: ignore[no-untyped-def]
        """Reset before: -> dr_, dh_prev's part, r * h_prev"""
        r = sigmoid(clamp(r_, limit))
        dr_, dh_prev = cells.gru_reset_grad(r, h_prev, drh)
        return inside(dr_, r_, limit), dh_prev, r * h_prev

    def gru_clip_candidate_grad(r_, q, dn_, limit):  # type: ignore[no-untyped-def]
        """Reset after: -> dr_, dq"""
        dr_, dq = cells.gru_candidate_grad(sigmoid(clamp(r_, limit)), q, dn_)
        return inside(dr_, r_, limit), dq

    equations: tuple[Equation, ...] = (
        lstm_options,
        lstm_options_grad,
        gru_clip_reset,
        gru_clip_candidate,
        gru_clip_update,
        gru_clip_update_grad,
        gru_clip_reset_grad,
        gru_clip_candidate_grad,
    )
    return OptionCells(*map(compiled, equations))
