"""A direction of a layer as the persistent kernels see it, and what the reference says of it. Letters as in reference.py."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import reference
import reference_cells

from gpurnn_kernels.cuda import persistent
from gpurnn_kernels.spec import Spec
from ptx_emulator.device import EmulatedDevice

Device = Any  # an `EmulatedDevice`, or a GPU
REFERENCE = {"lstm": "lstm", "gru_before": "gru", "gru_after": "gru_after"}


def toy(name: str = "A100", **changes: Any) -> EmulatedDevice:
    """A card, or one like it with other limits."""
    device = EmulatedDevice(name)
    device.limits = replace(device.limits, **changes)
    return device


def host(a: Any) -> Any:
    """An array of any device, as NumPy has it."""
    return a.get() if hasattr(a, "get") else np.asarray(a)


class PersistentProblem:
    """Random weights, W_x x and state; NaN wherever nothing may be read. dtype: of W_h, states, y and r * h."""

    def __init__(
        self,
        cell: str,
        H: int,
        T: int = 5,
        B: int = 3,
        *,
        lengths: Sequence[int] | None = None,
        reverse: bool = False,
        fast_math: bool = False,
        precision: str | None = None,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)

        def draw(*shape: int) -> Any:
            return rng.normal(0, 0.5, shape).astype(np.float32)

        self.dtype = np.dtype(dtype)
        self.T, self.B, self.H, self.lengths = T, B, H, lengths
        self.spec = Spec(cell, 1, H, self.dtype, reverse, precision=precision, fast_math=fast_math)  # type: ignore[arg-type]
        G, states = self.spec.gates, 2 if cell == "lstm" else 1
        self.xp = draw(T, B, G * H)
        W_h = (draw(G * H, H) * np.float32(2 / np.sqrt(H))).astype(dtype)
        self.weights = {"W_h": W_h, "b": draw(G * H), "b_hn": draw(H)}
        self.state = [draw(B, H).astype(dtype) for _ in range(states)]
        self.dy = draw(T, B, H)
        self.dstate = [draw(B, H) for _ in range(states)]
        self.valid = np.clip(np.full(B, T) if lengths is None else lengths, 0, T)
        past = np.arange(T)[:, None] >= self.valid
        self.xp[past] = np.nan
        self.dy[past] = np.nan

    def in_order(self, a: Any) -> Any:
        return reference.flipped(a, self.valid) if self.spec.reverse else reference.masked(a, self.valid)

    @cached_property
    def reference_weights(self) -> reference_cells.Weights:
        w = {name: a.astype(np.float64) for name, a in self.weights.items()}
        return reference_cells.Weights(np.eye(len(w["b"])), w["W_h"], w["b"], w["b_hn"])

    @cached_property
    def expected(self) -> tuple[Any, list[Any]]:
        """y, final state."""
        cell = reference_cells.CELLS[REFERENCE[self.spec.cell]]
        x = self.in_order(self.xp.astype(np.float64))
        track = reference.sequence(cell, self.reference_weights, x, tuple(map(np.float64, self.state)), self.valid)
        return self.in_order(track[0][1:]), [states[-1] for states in track]

    def upload(self, device: Device) -> Any:
        return SimpleNamespace(**{name: device.upload(a) for name, a in self.weights.items()})

    def keep_row(self, row: int) -> None:
        """A batch of one, of a row of what was drawn."""
        self.B, self.valid = 1, self.valid[row : row + 1]
        self.xp, self.dy = self.xp[:, row : row + 1], self.dy[:, row : row + 1]
        self.state, self.dstate = [a[row : row + 1] for a in self.state], [a[row : row + 1] for a in self.dstate]

    def forward(
        self,
        device: Device,
        plan: Any = None,
        *,
        keep: bool = False,
        in_place: bool = False,
        directions: int = 1,
        y: Any = None,
    ) -> tuple[Any, list[Any], Any]:
        """-> y, final state, what is saved.

        directions: y lies in the last columns of a wider array. in_place: the gates are saved over xp.
        """
        T, B, H = self.T, self.B, self.H
        plan = plan or self.plan(device)
        if y is None:
            y = device.zeros((T, B, directions * H), self.dtype)[:, :, (directions - 1) * H :]
        final = [device.empty((B, H), self.dtype) for _ in self.state]
        state = [device.upload(a) for a in self.state]
        G = self.spec.gates
        xp = device.upload(self.xp)
        gates = xp if in_place else device.empty((T, B, G * H), np.float32)
        factor = self.spec.cell == "gru_before"
        extra = device.empty((T, B, H), self.dtype if factor else np.float32) if keep else None
        saved = SimpleNamespace(gates=gates, extra=extra) if keep else None
        lengths = None if self.lengths is None else device.upload(np.array(self.lengths, np.int64))
        arrays = {"xp": xp, "initial": state, "lengths": lengths, "y": y, "final": final, "saved": saved}
        persistent.run_forward(device, plan, self.upload(device), **arrays)  # type: ignore[arg-type]
        return y, final, saved

    @cached_property
    def expected_gradients(self) -> tuple[Any, list[Any], Any]:
        """The gradients of W_x x (T, B, G*H), the initial state, and W_h."""
        cell = reference_cells.CELLS[REFERENCE[self.spec.cell]]
        x = self.in_order(self.xp.astype(np.float64))
        w = self.reference_weights
        track = reference.sequence(cell, w, x, tuple(map(np.float64, self.state)), self.valid)
        dy, dstate = self.in_order(self.dy.astype(np.float64)), tuple(map(np.float64, self.dstate))
        dx, d_initial, dw = reference.sequence_grad(cell, w, x, track, self.valid, dy, dstate)
        return self.in_order(dx), list(d_initial), dw.W_h

    def backward(
        self, device: Device, plan: Any = None, *, directions: int = 1, without_dy: bool = False
    ) -> tuple[Any, list[Any]]:
        """-> d_gates, d initial state, of a forward pass on the same device."""
        T, B, H = self.T, self.B, self.H
        y, _, saved = self.forward(device, keep=True)
        plan = plan or self.plan_backward(device)
        wide = np.full((T, B, directions * H), np.nan, np.float32)
        wide[:, :, (directions - 1) * H :] = self.dy
        dy = None if without_dy else device.upload(wide)[:, :, (directions - 1) * H :]
        d_gates = device.empty((T, B, (3 if self.spec.cell == "gru_before" else 4) * H), np.float32)
        dinitial = [device.empty((B, H), np.float32) for _ in self.state]
        lengths = None if self.lengths is None else device.upload(np.array(self.lengths, np.int64))
        initial, dfinal = [device.upload(a) for a in self.state], [device.upload(a) for a in self.dstate]
        weights = self.upload(device)
        arrays = {"saved": saved, "y": y, "initial": initial, "lengths": lengths, "dy": dy, "dfinal": dfinal}
        persistent.run_backward(device, plan, weights, **arrays, d_gates=d_gates, dinitial=dinitial)  # type: ignore[arg-type]
        return d_gates, dinitial

    def gradient_error(self, d_gates: Any, dinitial: Sequence[Any]) -> float:
        """The largest, relative to the largest gradient."""
        H = self.H
        got = host(d_gates)
        if self.spec.cell == "gru_after":  # dz, dr, dq, dn
            got = np.concatenate([got[:, :, : 2 * H], got[:, :, 3 * H :]], axis=2)
        dx, expected_initial, _ = self.expected_gradients
        pairs = [(got, dx), *zip(dinitial, expected_initial, strict=True)]
        return max(float(np.max(np.abs(host(a) - b)) / np.max(np.abs(b))) for a, b in pairs)

    def plan(self, device: Device) -> persistent.ForwardPlan:
        plan = persistent.fit_forward(self.spec, self.B, device)
        assert isinstance(plan, persistent.ForwardPlan), plan
        return plan

    def plan_backward(self, device: Device) -> persistent.BackwardPlan:
        plan = persistent.fit_backward(self.spec, self.B, device)
        assert isinstance(plan, persistent.BackwardPlan), plan
        return plan

    def error(self, y: Any, final: Sequence[Any]) -> float:
        """The largest, of y and the final state."""
        expected_y, expected_final = self.expected
        pairs = [(y, expected_y), *zip(final, expected_final, strict=True)]
        return max(float(np.max(np.abs(host(got) - want), initial=0)) for got, want in pairs)
