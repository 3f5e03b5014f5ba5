"""The GRU with the reset before.

A pair of vectors of units has a slot z r z r and a slot n n. A step saves z r n, activated or, with a limit, before the
activation.
"""

from collections.abc import Iterator
from functools import cache

from ...spec import Spec
from ..codegen.descriptors import V1, V2
from ..codegen.inline import inlined
from .cell import EQUATIONS, FED, H_PREV, Cell, Steps, hand_on, loaded
from .operands import Kernels
from .step import make_project
from .two_products import Products, make_step, make_step_back

PRODUCTS = Products((0, 1), 2)
slot_z_at, slot_n_at = PRODUCTS.slot, PRODUCTS.slot_n


@inlined
def slot_r_at(share, block, slot):
    return slot_z_at(share, block, slot) + V1


kernel = Kernels(
    {
        "slot_z": slot_z_at,
        "slot_r": slot_r_at,
        "slot_n": slot_n_at,
        # the gates' gradients of a step: dz_ dr_, and dn_ apart
        "d_step": lambda plane, block: plane + block * V2,
        "d_step_n": lambda job, plane, block: plane + job.step_n + block * V1,
    },
    saved_gates=3,
    num_gates=3,
)


@kernel
def reset(slot_r, h, rh, saved=None, limit=None):
    """Makes r * h between the two products of a step."""
    most, r_ = loaded(limit), slot_r.load()
    rh.store(EQUATIONS.gru_reset(r_, h.load(), most))
    if saved is not None:
        saved.store(EQUATIONS.sigmoid_gate(r_, most), start=1)


@kernel
def update(slot_z, slot_n, h, h_next, y, saved=None, limit=None):
    most, z_, n_ = loaded(limit), slot_z.load(), slot_n.load()
    h_new = EQUATIONS.gru_update(z_, n_, h.load(), most)
    if saved is not None:
        gates = saved.found()
        gates.store(EQUATIONS.sigmoid_gate(z_, most))
        gates.store(EQUATIONS.tanh_gate(n_, most), start=2)
    hand_on(h_new, h_next, y)


@kernel
def update_grad(gates, h_prev, dh, d_step, d_step_n, d_gates, drh, limit=None):
    """Makes dz_ and dn_. drh starts at zero for the product W_hn^T dn_."""
    z, n = gates.load(0), gates.load(2)
    dz_, dn_, dh_prev = EQUATIONS.gru_update_grad(z, n, h_prev.load(), dh.load(), loaded(limit))
    d_step.store(dz_)
    d_step_n.store(dn_)
    d_gates.store(dz_)
    d_gates.store(dn_, start=2)
    dh.store(dh_prev)
    drh.clear()


@kernel
def reset_grad(gates, h_prev, dh, d_step, d_gates, drh, fed, limit=None):
    """Makes dr_, and r * h_prev for the gradient of W_hn."""
    dr_, dh_prev, rh = EQUATIONS.gru_reset_grad(gates.load(1), h_prev.load(), drh.load(), loaded(limit))
    d_step.store(dr_, start=1)
    d_gates.store(dr_, start=1)
    dh.store(dh.load() + dh_prev)
    fed.store(rh)


gru_before_project = make_project("gru_before_project", PRODUCTS.begin)


@cache
def _steps(*options: str) -> Steps:
    name = "_".join(("gru_before", *options))
    saved = make_step(f"{name}_step_saved", PRODUCTS, reset.form("saved", *options), update.form("saved", *options))
    return Steps(
        gru_before_project,
        make_step(f"{name}_step", PRODUCTS, reset.form(*options), update.form(*options)),
        saved,
        saved,
        make_step_back(f"{name}_step_back", 2, update_grad.form(*options), reset_grad.form(*options)),
    )


class GRUBeforeCell(Cell):
    products = PRODUCTS.first, PRODUCTS.second
    planes = ("rh",)
    planes_back = ("drh",)
    saved_gates = 3
    left_by_step = "fed"
    recurrent = (0, H_PREV), (1, H_PREV), (2, FED)

    def steps(self, spec: Spec) -> Steps:
        return _steps("limit") if spec.has_options else _steps()

    def all_steps(self) -> Iterator[Steps]:
        yield _steps()
        yield _steps("limit")
