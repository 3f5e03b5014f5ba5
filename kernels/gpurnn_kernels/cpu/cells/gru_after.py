"""The GRU with the reset after.

A slot holds n_x z r q. A step saves z r n q, activated or, with a limit, before the activation. W_x makes the first three
vectors of a slot and W_h the last three; q = W_hn h + b_hn starts as b_hn.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from ...spec import Spec
from ..codegen.bundle import pointwise
from ..codegen.descriptors import V1, V3, V4
from ..codegen.elementwise import copy_vector
from ..codegen.inline import inlined
from ..codegen.vector import Vectors
from ..products.product import Product, slot_at
from .cell import EQUATIONS, H_PREV, Cell, Steps, hand_on, loaded
from .operands import Kernels
from .step import make_project, make_step, make_step_back, plane_at

kernel = Kernels(saved_gates=4, num_gates=3)


@kernel
def gru_after(slot, h, h_next, y, saved=None, limit=None, streaming=False):
    """Makes h of a step. streaming: what is saved goes past the caches."""
    most = loaded(limit)
    n_x, z_, r_, q = slot.loads(4)
    n_ = EQUATIONS.gru_candidate(r_, q, n_x, most)
    h_new = EQUATIONS.gru_update(z_, n_, h.load(), most)
    if saved is not None:
        z, r, n = EQUATIONS.sigmoid_gate(z_, most), EQUATIONS.sigmoid_gate(r_, most), EQUATIONS.tanh_gate(n_, most)
        saved.store(z, r, n, q, streaming=streaming)
    hand_on(h_new, h_next, y)


@kernel
def gru_after_grad(gates, h_prev, dh, d_step, d_gates, dq, limit=None):
    """Makes the gradients of a step: d_gates holds dz_ dr_ dn_, which W_x saw; d_step dz_ dr_ dq, which W_h saw; dq is dq
    alone."""
    most = loaded(limit)
    z, r, n, q = gates.loads(4)
    dz_, dn_, dh_prev = EQUATIONS.gru_update_grad(z, n, h_prev.load(), dh.load(), most)
    dr_, d_q = EQUATIONS.gru_candidate_grad(r, q, dn_, most)
    d_gates.store(dz_, dr_, dn_)
    d_step.store(dz_, dr_, d_q)
    dq.store(d_q)
    dh.store(dh_prev)


@pointwise
def make_way(v: Vectors, slot: Any, b_n: Any, count: Any) -> None:
    """Moves n_x of z r n_x, which share vectors, to the slot's last vector; b_hn takes its place, to become q."""
    n_x = v.shared(slot, 2, count)
    v.store(slot, v.load_first(n_x, count), 3)
    v.store_first(n_x, v.load(b_n), count)


@pointwise
def spread_row(v: Vectors, slot: Any, count: Any) -> None:
    """Gives z r q, which share vectors, and n_x, which `make_way` has moved, a vector each: n_x z r q."""
    gates = [v.load(slot, 3), *(v.load_first(v.shared(slot, gate, count), count) for gate in range(3))]
    for place, value in enumerate(gates):
        v.store(slot, value, place)


@inlined
def put_b_hn(job, share, slots, panel, whole, count):
    """Starts q as b_hn."""
    for slot in range(slots):
        at = slot_at(share, panel, slot)
        for p in range(whole):
            copy_vector(job.zero, (at + p * V4 + V3, job.b_n + (panel + p) * V1))
        if whole < count:
            make_way(job.zero, (at + whole * V4, job.b_n + (panel + whole) * V1, job.H % job.lanes))


@inlined
def spread(job, share, rows, at):
    for m in range(rows):
        spread_row(job.zero, (at + m * share.slot_row, job.H % job.lanes))


PRODUCT = Product((2, 0, 1), (0, 1, 2), h_at=1, put=put_b_hn, spread=spread)
begin, add_to = PRODUCT.code()
gru_after_project = make_project("gru_after_project", begin)


@cache
def _steps(*options: str) -> Steps:
    name = "_".join(("gru_after", *options))
    saved = (make_step(f"{name}_step_saved", begin, add_to, gru_after.form("saved", *options)),)
    streaming = (make_step("gru_after_step_streaming", begin, add_to, gru_after.form("saved", streaming=True)),)
    return Steps(
        gru_after_project,
        (make_step(f"{name}_step", begin, add_to, gru_after.form(*options)),),
        saved,
        saved if options else streaming,
        (make_step_back(f"{name}_step_back", gru_after_grad.form(*options), 3, plane_at),),
    )


class GRUAfterCell(Cell):
    products = (PRODUCT,)
    saved_gates = 4
    biases = (("b_n", "b_hn"),)
    shares_vectors = True
    left_by_step = "dq"
    recurrent = (0, H_PREV), (1, H_PREV), (3, H_PREV)

    def steps(self, spec: Spec) -> Steps:
        return _steps("limit") if spec.has_options else _steps()

    def all_steps(self) -> Iterator[Steps]:
        yield _steps()
        yield _steps("limit")
