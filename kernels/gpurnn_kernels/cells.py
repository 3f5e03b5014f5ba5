"""The cell equations, written once for all backends.

A *number* is anything that has +, - and *: a float in a CUDA kernel, a SIMD vector while a CPU kernel is being emitted, a
NumPy array in a check. The equations hold no literals, so that no number is promoted: 1 - z is `complement(z)`.

A trailing underscore marks a pre-activation (`f_`), its bare name the activated gate (`f`), and a leading `d` the gradient of
the loss with respect to it.

`Activations` hands in sigma and tanh. `sigmoid_tanh(a, b)` is sigma(a) * tanh(b): a backend may share one division there.
`forget` is the forget gate's sigma. c holds products of thousands of its values, each just below 1. An error that is not as
often up as down would add up there, so `forget` may have no more than a rounding's error.

Derivatives are functions of an activation's value, which a forward pass saves. A sigma gate s multiplies something, q:
`sigmoid_grad` is given both, so that it may begin with the gradient of q, a product that the equations need anyway.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Number = Any


class Activations(NamedTuple):
    """The functions of a backend's numbers."""

    sigmoid: Callable[[Number], Number]
    tanh: Callable[[Number], Number]
    sigmoid_tanh: Callable[[Number, Number], Number]
    forget: Callable[[Number], Number]
    complement: Callable[[Number], Number]  # 1 - a
    sigmoid_grad: Callable[[Number, Number, Number], Number]  # s = sigma(a), q, gradient of s * q -> gradient of a
    tanh_grad: Callable[[Number, Number], Number]  # t = tanh(a), gradient of t -> gradient of a


class Clip(NamedTuple):
    """Clamps to [-limit, limit]. Its gradient passes where |a| <= limit and is zero elsewhere."""

    clamp: Callable[[Number, Number], Number]  # a, limit
    inside: Callable[[Number, Number, Number], Number]  # gradient, a, limit


class Equations:
    """The equations over a backend's activations.

    With a `limit`, which may be infinite, every pre-activation is clamped, and the backward pass reads pre-activations as they
    were before the clamp. Without a limit it reads activated gates.
    """

    def __init__(self, activations: Activations, clip: Any = None) -> None:
        """clip: a `Clip`, where a limit may be given."""
        self.activations, self.clip = activations, clip

    def _clamped(self, limit: Number | None, *pre: Number) -> Sequence[Number]:
        """Clamps pre-activations to the limit."""
        return pre if limit is None else [self.clip.clamp(a, limit) for a in pre]

    def _inside(self, gradient: Number, a: Number, limit: Number | None) -> Number:
        """Gives the part of a gradient that the clamp of `a` lets through."""
        return gradient if limit is None else self.clip.inside(gradient, a, limit)

    def sigmoid_gate(self, a_: Number, limit: Number | None = None) -> Number:
        """Gives a sigma gate in the form in which the backward pass reads it."""
        return a_ if limit is not None else self.activations.sigmoid(a_)

    def tanh_gate(self, a_: Number, limit: Number | None = None) -> Number:
        """Gives a tanh gate in the form in which the backward pass reads it."""
        return a_ if limit is not None else self.activations.tanh(a_)

    def lstm_cell(
        self, f_: Number, i_: Number, o_: Number, g_: Number, c_prev: Number, limit: Any = None, peephole: Any = None
    ) -> tuple[Number, Number]:
        """Gives h and c of an LSTM step. peephole: p_f, p_i, p_o, or None."""
        sigmoid_tanh, forget = self.activations.sigmoid_tanh, self.activations.forget
        if peephole is not None:
            p_f, p_i, p_o = peephole
            f_, i_ = f_ + p_f * c_prev, i_ + p_i * c_prev
        in_f, in_i, in_g = self._clamped(limit, f_, i_, g_)
        c = forget(in_f) * c_prev + sigmoid_tanh(in_i, in_g)
        if peephole is not None:
            o_ = o_ + p_o * c
        (in_o,) = self._clamped(limit, o_)
        return sigmoid_tanh(in_o, c), c

    def lstm_gates(
        self,
        f_: Number,
        i_: Number,
        o_: Number,
        g_: Number,
        c_prev: Number = None,
        c: Number = None,
        limit: Any = None,
        peephole: Any = None,
    ) -> tuple[Number, Number, Number, Number]:
        """Gives what the backward pass reads: f, i, o, g or, with a limit, the pre-activations with what the peepholes add
        to them."""
        of = self.activations
        if limit is None:
            return of.forget(f_), of.sigmoid(i_), of.sigmoid(o_), of.tanh(g_)
        if peephole is not None:
            p_f, p_i, p_o = peephole
            f_, i_, o_ = f_ + p_f * c_prev, i_ + p_i * c_prev, o_ + p_o * c
        return f_, i_, o_, g_

    def lstm_cell_grad(
        self,
        f: Number,
        i: Number,
        o: Number,
        g: Number,
        c_prev: Number,
        c: Number,
        dh: Number,
        dc: Number,
        limit: Any = None,
        peephole: Any = None,
    ) -> tuple[Number, Number, Number, Number, Number]:
        """Gives df_, di_, do_, dg_ and dc_prev. f, i, o, g are what `lstm_gates` gives; dh is the gradient of o * tanh(c)."""
        of, f_, i_, o_, g_ = self.activations, f, i, o, g
        if limit is not None:
            in_f, in_i, in_o, in_g = self._clamped(limit, f_, i_, o_, g_)
            f, i, o, g = of.forget(in_f), of.sigmoid(in_i), of.sigmoid(in_o), of.tanh(in_g)
        tanh_c = of.tanh(c)
        do_ = self._inside(of.sigmoid_grad(o, tanh_c, dh), o_, limit)
        dc = dc + of.tanh_grad(tanh_c, dh * o)
        if peephole is not None:
            p_f, p_i, p_o = peephole
            dc = dc + p_o * do_
        dc_prev = dc * f
        df_ = self._inside(of.sigmoid_grad(f, c_prev, dc), f_, limit)
        di_ = self._inside(of.sigmoid_grad(i, g, dc), i_, limit)
        dg_ = self._inside(of.tanh_grad(g, dc * i), g_, limit)
        if peephole is not None:
            dc_prev = dc_prev + p_f * df_ + p_i * di_
        return df_, di_, do_, dg_, dc_prev

    def gru_reset(self, r_: Number, h_prev: Number, limit: Number | None = None) -> Number:
        """Gives r * h_prev, which W_hn multiplies in the GRU with the reset before."""
        (r_,) = self._clamped(limit, r_)
        return self.activations.sigmoid(r_) * h_prev

    def gru_candidate(self, r_: Number, q: Number, n_x: Number, limit: Number | None = None) -> Number:
        """Gives n_ of the GRU with the reset after. q is W_hn h_prev + b_hn."""
        (r_,) = self._clamped(limit, r_)
        return self.activations.sigmoid(r_) * q + n_x

    def gru_update(self, z_: Number, n_: Number, h_prev: Number, limit: Number | None = None) -> Number:
        """Gives h of a GRU step."""
        z_, n_ = self._clamped(limit, z_, n_)
        z = self.activations.sigmoid(z_)
        return self.activations.complement(z) * h_prev + z * self.activations.tanh(n_)

    def gru_update_grad(
        self, z: Number, n: Number, h_prev: Number, dh: Number, limit: Number | None = None
    ) -> tuple[Number, Number, Number]:
        """Gives dz_, dn_ and the part of dh_prev that does not pass a gate."""
        of, z_, n_ = self.activations, z, n
        if limit is not None:
            in_z, in_n = self._clamped(limit, z_, n_)
            z, n = of.sigmoid(in_z), of.tanh(in_n)
        rest, dh_z = of.complement(z), dh * z
        dz_, dn_ = of.sigmoid_grad(z, n - h_prev, dh), of.tanh_grad(n, dh_z)
        return self._inside(dz_, z_, limit), self._inside(dn_, n_, limit), dh * rest

    def gru_reset_grad(
        self, r: Number, h_prev: Number, drh: Number, limit: Number | None = None
    ) -> tuple[Number, Number, Number]:
        """Gives dr_, the part of dh_prev that passes r, and r * h_prev, for the reset before. drh is the gradient of r *
        h_prev."""
        r_ = r
        if limit is not None:
            (in_r,) = self._clamped(limit, r_)
            r = self.activations.sigmoid(in_r)
        dh_prev = drh * r
        return self._inside(self.activations.sigmoid_grad(r, h_prev, drh), r_, limit), dh_prev, r * h_prev

    def gru_candidate_grad(self, r: Number, q: Number, dn_: Number, limit: Number | None = None) -> tuple[Number, Number]:
        """Gives dr_ and dq for the reset after."""
        r_ = r
        if limit is not None:
            (in_r,) = self._clamped(limit, r_)
            r = self.activations.sigmoid(in_r)
        dq = dn_ * r
        return self._inside(self.activations.sigmoid_grad(r, q, dn_), r_, limit), dq


class Cells(NamedTuple):
    """The equations of `Equations` without a limit, by name."""

    lstm_cell: Callable[..., Any]
    lstm_gates: Callable[..., Any]
    lstm_cell_grad: Callable[..., Any]
    gru_reset: Callable[..., Any]
    gru_candidate: Callable[..., Any]
    gru_update: Callable[..., Any]
    gru_update_grad: Callable[..., Any]
    gru_reset_grad: Callable[..., Any]
    gru_candidate_grad: Callable[..., Any]


def make_cells(activations: Activations) -> Cells:
    """Makes the equations, for kernels that name them one by one."""
    found = Equations(activations)

    def gru_reset_grad(r: Number, h_prev: Number, drh: Number) -> tuple[Number, Number]:
        """-> dr_, dh_prev's part."""
        dr_, dh_prev, _ = found.gru_reset_grad(r, h_prev, drh)
        return dr_, dh_prev

    names: dict[str, Any] = {name: getattr(found, name) for name in Cells._fields}
    return Cells(**names | {"gru_reset_grad": gru_reset_grad})
