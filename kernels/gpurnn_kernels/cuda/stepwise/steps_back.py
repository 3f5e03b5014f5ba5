"""Fields that the records of backward kernels have in common."""

from typing import Any

from ..host.device import DeviceArray
from ..run import Run, strides
from .steps import ragged


def output_gradient(dy: DeviceArray) -> dict[str, Any]:
    """Gives the fields of a kernel's record that say where dy is."""
    t, row = strides(dy)
    return {"dy": dy, "dy_t": t, "dy_row": row}


def previous_h(run: Run, h_0: Any, y: Any, first: bool) -> dict[str, Any]:
    """Gives the fields of a GRU's record that say where h of the step before is."""
    common = {"h_0": h_0, "last": run.steps - 1 if run.spec.reverse else -1, **ragged(run)}
    if first and run.lengths is None:
        return {"h_prev": h_0, "h_prev_t": 0, "h_prev_row": h_0.strides[0], "to_previous": 0, **common}
    t, row = strides(y)
    return {"h_prev": y, "h_prev_t": t, "h_prev_row": row, "to_previous": run.to_previous, **common}


def gate_arrays(gates: Any, d_gates: Any) -> dict[str, Any]:
    """Gives the fields of a kernel's record that say where gates and their gradients are."""
    return {"gates": gates, "gates_t": gates.strides[0], "d_gates": d_gates, "d_gates_t": d_gates.strides[0]}
