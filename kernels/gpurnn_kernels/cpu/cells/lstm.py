"""The LSTM, with peepholes, a clip and a projection in any combination.

A slot holds f i o g. A step saves f i o g or, with a limit, f_ i_ o_ g_ with what the peepholes add to them.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

from ...spec import Spec
from ..codegen.bundle import pointwise
from ..codegen.inline import inlined
from ..codegen.vector import Vectors
from ..products.product import Product
from .cell import EQUATIONS, H_PREV, Cell, Steps, hand_on, loaded
from .operands import Kernels, Padded
from .projection import make_projected_step, make_projected_step_back
from .step import make_project, make_step, make_step_back, plane_of_all

kernel = Kernels(saved_gates=4, num_gates=4)


@kernel
def lstm(
    slot, c, h_next=None, y=None, m=None, saved=None, saved_c=None, saved_m=None, limit=None, peephole=None, streaming=False
):
    """Makes h_next and y or, for a projected layer, m. streaming: what is saved goes past the caches."""
    most, weights = loaded(limit), None if peephole is None else peephole.loads(3)
    f_, i_, o_, g_ = slot.loads(4)
    c_prev = c.load()
    h, c_new = EQUATIONS.lstm_cell(f_, i_, o_, g_, c_prev, most, weights)
    if saved is not None:
        gates = EQUATIONS.lstm_gates(f_, i_, o_, g_, c_prev, c_new, most, weights)
        saved.store(*gates, streaming=streaming)
        saved_c.store(c_new, streaming=streaming)
    c.store(c_new)
    if m is None:
        hand_on(h, h_next, y)
    else:
        m.store(h)
        if saved_m is not None:
            saved_m.store(h)


@kernel
def lstm_grad(gates, c_prev, c_saved, dc, d_step, d_gates, dh=None, dm=None, limit=None, peephole=None):
    """Makes the gradients of a step. dh, or dm of a projected layer, holds the whole gradient of o * tanh(c), and is
    cleared."""
    most, weights = loaded(limit), None if peephole is None else peephole.loads(3)
    incoming: Padded = dh or dm
    f, i, o, g = gates.loads(4)
    state = c_prev.load(), c_saved.load(), incoming.load(), dc.load()
    *d, dc_prev = EQUATIONS.lstm_cell_grad(f, i, o, g, *state, most, weights)
    for gate, value in enumerate(d):
        d_step.store(value, start=gate)
        d_gates.store(value, start=gate)
    dc.store(dc_prev)
    incoming.clear()


@pointwise
def spread_row(v: Vectors, slot: Any, count: Any) -> None:
    """Gives f i o g, which share vectors, a vector each, with zeros past the units."""
    gates = [v.load_first(v.shared(slot, gate, count), count) for gate in range(4)]
    for gate, value in enumerate(gates):
        v.store(slot, value, gate)


@inlined
def spread(job, share, rows, at):
    for m in range(rows):
        spread_row(job.zero, (at + m * share.slot_row, job.H % job.lanes))


PRODUCT = Product((0, 1, 2, 3), (0, 1, 2, 3), spread=spread)
begin, add_to = PRODUCT.code()
lstm_project = make_project("lstm_project", begin)
OPTIONS = ("limit", "peephole", "projected")


def _step(name: str, projected: bool, *present: str, **flags: bool) -> tuple[Any, ...]:
    out = ("m",) if projected else ("h_next", "y")
    step = make_step(name, begin, add_to, lstm.form(*out, *present, **flags))
    return (step, make_projected_step(f"{name}_second")) if projected else (step,)


@cache
def _steps(options: tuple[str, ...]) -> Steps:
    name, projected = "_".join(("lstm", *options)), "projected" in options
    operands = tuple(option for option in options if option != "projected")
    saved = ("saved", "saved_c", "saved_m") if projected else ("saved", "saved_c")
    back: tuple[Any, ...] = (make_step_back(f"{name}_step_back", lstm_grad.form("dh", *operands), 4, plane_of_all),)
    if projected:
        back = make_projected_step_back(f"{name}_step_back", lstm_grad.form("dm", *operands))
    step_saved = _step(f"{name}_step_saved", projected, *saved, *operands)
    return Steps(
        lstm_project,
        _step(f"{name}_step", projected, *operands),
        step_saved,
        step_saved if options else _step("lstm_step_streaming", False, *saved, streaming=True),
        back,
    )


class LSTMCell(Cell):
    products = (PRODUCT,)
    planes = ("c",)
    planes_back = ("dc", "c_start")
    saved_gates = 4
    shares_vectors = True
    options_on_amx = False
    recurrent = tuple((gate, H_PREV) for gate in range(4))

    def steps(self, spec: Spec) -> Steps:
        given = {"limit": spec.has_options, "peephole": spec.peepholes, "projected": bool(spec.proj_size)}
        return _steps(tuple(name for name in OPTIONS if given[name]))

    def all_steps(self) -> Iterator[Steps]:
        yield _steps(())
        for count in range(3):
            for some in combinations(OPTIONS[1:], count):
                yield _steps(("limit", *some))
