"""A cell of one's own, outside the package: the minimal gated unit (Zhou et al. 2016), a GRU with one gate f.

    f = sigma(W_f [h, x] + b_f)      n = tanh(W_n [f * h, x] + b_n)      h_new = (1 - f) * h + f * n

How a cell is written:

1. The row of sizes, `SHAPE`: how many gates W_x (G*H, I), W_h (G*H, H) and b (G*H,) have, which states there are, and how
   many products with recurrent weights a step has. A second product waits for all units of the first one.
2. The products, `PRODUCTS`: which gates each makes. They say where pre-activated gates lie (a *slot*) and how weights are
   packed; nobody else addresses weights.
3. The kernels: plain functions of operands, whose names `operands.py` lists. They run once, while machine code is emitted,
   on SIMD vectors: `slot_f.load()` is a vector, `+ - *` are instructions. An operand with a default may be absent, and is
   None then: `saved` in a forward pass that no backward pass follows, `limit` without a clip.
   Forward, `saved` is what the backward pass reads as `gates`. Backward, a kernel reads dh, and leaves the gates' gradients
   twice: in `d_step` for the recurrent product, in `d_gates` for the weights.
4. The `Cell`: what the programs ask about all this, each attribute explained in `cell.py`.

`registered` hands the cell in. Kernels of a cell outside the package are not kept on disk: the package cannot tell when they
change. `minimal_gated_unit_cuda.py` is the same cell on CUDA.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
from helpers import KINDS, Problem
from reference_cells import CELLS as REFERENCES
from reference_cells import Array, Weights, clipped, inside, sigmoid
from reference_cells import Cell as Reference

import gpurnn
from gpurnn.backend import HOST, Place
from gpurnn.layers.description import Description
from gpurnn_kernels.cpu.cells import CELLS
from gpurnn_kernels.cpu.cells.cell import EQUATIONS, FED, H_PREV, Cell, Steps, hand_on, loaded
from gpurnn_kernels.cpu.cells.operands import Kernels
from gpurnn_kernels.cpu.cells.step import make_project
from gpurnn_kernels.cpu.cells.two_products import Products, make_step, make_step_back
from gpurnn_kernels.cpu.codegen.descriptors import V1
from gpurnn_kernels.spec import CELL_SHAPES, CellShape, Spec

SHAPE = CellShape(gates=2, products=2)  # f, n
PRODUCTS = Products((0,), 1)
kernel = Kernels(
    {
        "slot_f": PRODUCTS.slot,
        "slot_n": PRODUCTS.slot_n,
        "d_step": lambda plane, block: plane + block * V1,
        "d_step_n": lambda job, plane, block: plane + job.step_n + block * V1,
    },
    saved_gates=2,
    num_gates=2,
)


@kernel
def reset(slot_f: Any, h: Any, rh: Any, limit: Any = None) -> None:
    """Between the two products of a step: f * h."""
    rh.store(EQUATIONS.gru_reset(slot_f.load(), h.load(), loaded(limit)))


@kernel
def update(slot_f: Any, slot_n: Any, h: Any, h_next: Any, y: Any, saved: Any = None, limit: Any = None) -> None:
    most, f_, n_ = loaded(limit), slot_f.load(), slot_n.load()
    h_new = EQUATIONS.gru_update(f_, n_, h.load(), most)
    if saved is not None:
        saved.store(EQUATIONS.sigmoid_gate(f_, most), EQUATIONS.tanh_gate(n_, most))
    hand_on(h_new, h_next, y)


@kernel
def update_grad(
    gates: Any, h_prev: Any, dh: Any, d_step: Any, d_step_n: Any, d_gates: Any, drh: Any, limit: Any = None
) -> None:
    """dn_, and f's part of the update; drh starts at zero for the product W_n^T dn_."""
    f, n = gates.loads(2)
    df_, dn_, dh_prev = EQUATIONS.gru_update_grad(f, n, h_prev.load(), dh.load(), loaded(limit))
    d_step.store(df_)
    d_step_n.store(dn_)
    d_gates.store(dn_, start=1)
    dh.store(dh_prev)
    drh.clear()


@kernel
def reset_grad(gates: Any, h_prev: Any, dh: Any, d_step: Any, d_gates: Any, drh: Any, fed: Any, limit: Any = None) -> None:
    """f's part of f * h, and f * h for the gradient of W_n."""
    more, dh_prev, fh = EQUATIONS.gru_reset_grad(gates.load(0), h_prev.load(), drh.load(), loaded(limit))
    df_ = d_step.load() + more
    d_step.store(df_)
    d_gates.store(df_)
    dh.store(dh.load() + dh_prev)
    fed.store(fh)


mgu_project = make_project("mgu_project", PRODUCTS.begin)


@cache
def _steps(*options: str) -> Steps:
    name = "_".join(("mgu", *options))
    saved = make_step(f"{name}_step_saved", PRODUCTS, reset.form(*options), update.form("saved", *options))
    return Steps(
        mgu_project,
        make_step(f"{name}_step", PRODUCTS, reset.form(*options), update.form(*options)),
        saved,
        saved,
        make_step_back(f"{name}_step_back", 1, update_grad.form(*options), reset_grad.form(*options)),
    )


class MinimalGatedUnit(Cell):
    """The cell of the CPU backend."""

    products = PRODUCTS.first, PRODUCTS.second
    planes = ("rh",)
    planes_back = ("drh",)
    saved_gates = 2
    left_by_step = "fed"
    recurrent = (0, H_PREV), (1, FED)

    def steps(self, spec: Spec) -> Steps:
        return _steps("limit") if spec.has_options else _steps()

    def all_steps(self) -> Iterator[Steps]:
        yield _steps()
        yield _steps("limit")


class MguDescription(Description):
    """A GRU's arguments over another cell."""

    @property
    def cell(self) -> str:
        return "mgu"


class MGU(gpurnn.GRU):
    """The layer: a GRU's arguments, states and calls; made by `MGU.with_params`."""

    def _begin(self, description: Description, params: Mapping[str, Array], place: Place = HOST) -> None:
        arguments = {field.name: getattr(description, field.name) for field in fields(description)}
        super()._begin(MguDescription(**arguments), params, place)


class MguProblem(Problem):
    """A problem for the layer."""

    def __init__(self, *sizes: int, **more: Any) -> None:
        super().__init__("mgu", *sizes, **more)

    @cached_property
    def layer(self) -> Any:
        I, H = self.sizes
        return MGU.with_params({"input_size": I, "hidden_size": H, **self._made}, self.params)


# The reference: the same cell in NumPy, slow and obviously right


def mgu_step(w: Weights, x: Array, h_prev: Array, clip: float | None = None) -> tuple[Array]:
    """x (B, I), h_prev (B, H) -> (h,), (B, H)."""
    H = w.W_h.shape[1]
    f = sigmoid(clipped(h_prev @ w.W_h[:H].T + x @ w.W_x[:H].T + w.b[:H], clip))
    n = np.tanh(clipped((f * h_prev) @ w.W_h[H:].T + x @ w.W_x[H:].T + w.b[H:], clip))
    return ((1 - f) * h_prev + f * n,)


def mgu_step_grad(
    w: Weights, x: Array, h_prev: Array, dh: Array, clip: float | None = None
) -> tuple[Array, tuple[Array], Weights]:
    """The step's inputs, and dh (B, H) that reaches its output -> dx (B, I), (dh_prev,), d weights."""
    H = w.W_h.shape[1]
    a_f = h_prev @ w.W_h[:H].T + x @ w.W_x[:H].T + w.b[:H]
    f = sigmoid(clipped(a_f, clip))
    a_n = (f * h_prev) @ w.W_h[H:].T + x @ w.W_x[H:].T + w.b[H:]
    n = np.tanh(clipped(a_n, clip))
    dn_ = dh * f * (1 - n**2) * inside(a_n, clip)
    ds = dn_ @ w.W_h[H:]  # d (f * h_prev)
    df_ = (dh * (n - h_prev) + ds * h_prev) * f * (1 - f) * inside(a_f, clip)
    dh_prev = dh * (1 - f) + ds * f + df_ @ w.W_h[:H]
    da = np.concatenate([df_, dn_], axis=1)
    dW_h = np.concatenate([df_.T @ h_prev, dn_.T @ (f * h_prev)])
    return da @ w.W_x, (dh_prev,), Weights(da.T @ x, dW_h, da.sum(axis=0), np.zeros_like(w.b_hn))


def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands the cell in, to the package and to the reference."""
    monkeypatch.setitem(CELL_SHAPES, "mgu", SHAPE)
    monkeypatch.setitem(CELLS, "mgu", MinimalGatedUnit())
    monkeypatch.setitem(KINDS, "mgu", ("mgu", {}))
    monkeypatch.setitem(REFERENCES, "mgu", Reference(2, 1, mgu_step, mgu_step_grad))
