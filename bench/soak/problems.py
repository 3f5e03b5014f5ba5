"""Random layers and what they are given, each from a seed, for `python -m bench soak`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import gpurnn

Array = npt.NDArray[Any]
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100, 130)
PAST = 1e30  # what x and dy hold past a sequence's end


class Ordinary:
    """Makes a problem's arrays, as `Guards` does, in NumPy's own memory, without gaps."""

    def given(self, array: Array) -> Array:
        return np.array(array, order="C")

    def out(self, shape: Any, dtype: Any) -> Array:
        return np.empty(shape, dtype)


ORDINARY = Ordinary()


def leaves(tree: Any) -> list[Array]:
    """The arrays in nested tuples and mappings."""
    parts = list(tree.values()) if isinstance(tree, Mapping) else tree
    return [leaf for part in parts for leaf in leaves(part)] if isinstance(parts, (tuple, list)) else [parts]


class Problem:
    """A layer's arguments and its inputs, (T, B, ..) whatever layout the layer has: `laid_out` is what it takes."""

    def __init__(self, seed: int, longest: int = 12) -> None:
        """longest: the most steps of a sequence, below 256."""
        rng = np.random.default_rng(seed)

        def yes(chance: float) -> bool:
            return bool(rng.random() < chance)

        self.seed, self.kind = seed, ("LSTM", "GRU")[int(yes(0.5))]
        direction = {"reverse": True} if yes(0.2) else {"bidirectional": True} if yes(0.3) else {}
        self.options: dict[str, Any] = {"bias": yes(0.8), "batch_first": yes(0.3), **direction}
        self.options["dtype"] = ("float32", "float64")[int(yes(0.3))]
        I, H = (int(size) for size in rng.choice(SIZES, 2))
        if yes(0.2):
            self.options["clip"] = 0.5
        if self.kind == "GRU":
            self.options["reset_after"] = yes(0.5)
        elif yes(0.3):
            self.options |= {"peepholes": yes(0.5), "input_forget": yes(0.5), "proj_size": int(rng.integers(H))}
        self.sizes = (I, H, int(rng.choice([1, 1, 2, 3])))  # I, H, L
        self.unbatched, self.threads = yes(0.15), int(rng.integers(1, 4))
        T, B = int(rng.integers(0, longest + 1)), 1 if self.unbatched else int(rng.choice([0, 1, 1, 2, 3, 5, 8, 15, 33]))
        self.lengths = rng.integers(0, T + 1, B, rng.choice(["int64", "int32", "uint8"])) if yes(0.4) else None
        widths = (self.options.get("proj_size") or H, H)[: 2 if self.kind == "LSTM" else 1]
        D = 2 if "bidirectional" in direction else 1

        def draw(*shape: int) -> Array:
            return np.asarray(rng.standard_normal(shape), self.options["dtype"])

        self.x, self.dy = draw(T, B, I), draw(T, B, D * widths[0])
        if yes(0.1) and T:
            self.x = np.broadcast_to(self.x[:1], self.x.shape)  # the same at each step, by a stride of 0
        elif self.lengths is not None:
            self.x[np.arange(T)[:, None] >= self.lengths] = PAST
        self.state, self.dstate = (
            [draw(self.sizes[2] * D, B, width) for width in widths] if yes(0.6) else None for _ in range(2)
        )
        self.kinds = ["call", "plain", "plain", "gradients"]  # of what can be run: a second plain call takes the short way
        if not direction and not self.unbatched and B > 0:
            self.kinds.append("steps")
        if self.options["dtype"] == "float32" and yes(0.4):
            self.options["precision"] = ("bf16", "int8")[int(yes(0.5))]
            self.kinds.remove("gradients")  # there are none

    def __str__(self) -> str:
        arguments = ", ".join([*map(str, self.sizes), *(f"{name}={value!r}" for name, value in self.options.items())])
        more = "".join(f", {name}" for name in ("state", "dstate", "unbatched") if getattr(self, name))
        lengths = "" if self.lengths is None else f", lengths {self.lengths.dtype} {self.lengths.tolist()}"
        return f"{self.kind}({arguments}), x {self.x.shape}{lengths}{more}, {self.threads} threads"

    def layer(self, seed: int = 0) -> Any:
        """A new one; its parameters come from the seed."""
        return getattr(gpurnn, self.kind)(*self.sizes, **self.options, seed=seed)

    def run(self, kind: str, layer: Any, arrays: Any) -> list[Array]:
        """The results of one of the kinds, by a layer of this problem. arrays: makes what the layer is given."""
        found: list[Array] = getattr(self, f"_{kind}")(layer, arrays)
        return found

    def laid_out(self, array: Array) -> Array:
        """(T, B, n) as the layer has it."""
        return array[:, 0] if self.unbatched else array.swapaxes(0, 1) if self.options["batch_first"] else array

    def _inputs(self, arrays: Any) -> tuple[Any, ...]:
        return (
            arrays.given(self.laid_out(self.x)),
            self._state(self.state, arrays),
            None if self.lengths is None else arrays.given(self.lengths),
        )

    def _state(self, state: list[Array] | None, arrays: Any) -> Any:
        if state is None:
            return None
        given = [arrays.given(part[:, 0] if self.unbatched else part) for part in state]
        return tuple(given) if len(given) == 2 else given[0]

    def _call(self, layer: Any, arrays: Any) -> list[Array]:
        return leaves(layer(*self._inputs(arrays)))

    def _plain(self, layer: Any, arrays: Any) -> list[Array]:
        return leaves(layer(arrays.given(self.laid_out(self.x))))

    def _gradients(self, layer: Any, arrays: Any) -> list[Array]:
        out, vjp = layer.vjp(*self._inputs(arrays))
        grads = vjp(arrays.given(self.laid_out(self.dy)), self._state(self.dstate, arrays))
        return leaves((out, grads.x, grads.state, grads.params))

    def _steps(self, layer: Any, arrays: Any) -> list[Array]:
        B = self.x.shape[1]
        stream = layer.stream(B, self._state(self.state, arrays))
        found = []
        for t, x_t in enumerate(self.x):
            out = arrays.out((B, layer.output_size), self.x.dtype) if t % 2 else None
            found.append(stream.step(arrays.given(x_t), out=out).copy())
        return [*found, *leaves(stream.state)]


def difference(found: list[Array], expected: list[Array]) -> str | None:
    """Where arrays have other bits than they must have."""
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"result {index} is {one.dtype} {one.shape}, expected {other.dtype} {other.shape}"
        if one.tobytes() != other.tobytes():
            count = np.count_nonzero(~((one == other) | (np.isnan(one) & np.isnan(other))))
            return f"result {index}, {one.dtype} {one.shape}: other bits ({count} of {one.size} values differ)"
    return None
