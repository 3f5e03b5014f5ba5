"""The LSTM layer."""

from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array, CellName

from .layer import RecurrentLayer


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000):

        f, i, o = sigma(W_h h + W_x x + b)[f, i, o]      g = tanh(W_h h + W_x x + b)[g]
        c = f * c_prev + i * g                           h = o * tanh(c)

    Args:
        input_size, hidden_size, num_layers: I, H and L.
        bias: False leaves b out.
        batch_first: x and y are (B, T, ...) instead of (T, B, ...); states are not.
        bidirectional: D = 2; a second direction runs backward in time, y holds both side by side.
        reverse: the one direction runs backward in time; y is in the input's order.
        forget_bias: added to the forget gate's rows of b at construction.
        dtype: "float32" or "float64", of parameters, inputs and outputs.
        seed: of the initial weights, uniform in +-1/sqrt(H), by `numpy.random.default_rng`.
        proj_size, peepholes, clip, input_forget, precision, fast_math: not built yet; anything but the default raises
            NotImplementedError.

    Raises ValueError and TypeError for arguments out of range or of the wrong type.
    """

    states = ("h", "c")
    _arguments = (
        *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "reverse", "proj_size"),
        *("forget_bias", "peepholes", "clip", "input_forget", "dtype", "precision", "fast_math"),
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        reverse: bool = False,
        proj_size: int = 0,
        forget_bias: float = 0.0,
        peepholes: bool = False,
        clip: float | None = None,
        input_forget: bool = False,
        dtype: Any = "float32",
        precision: str | None = None,
        fast_math: bool = False,
        seed: Any = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        self._set_up(**arguments)
        arrays = self._draw(seed)
        for name, array in arrays.items():
            if name.endswith(".b"):
                array[: self.hidden_size] += self.dtype.type(self.forget_bias)
        self._start(arrays)

    def _set_up(  # type: ignore[override]
        self, *, proj_size: int, forget_bias: float, peepholes: bool, clip: Any, input_forget: bool, **common: Any
    ) -> None:
        asked = {
            "proj_size": proj_size != 0,
            "peepholes": peepholes is not False,
            "clip": clip is not None,
            "input_forget": input_forget is not False,
        }
        self._configure(**common, not_built=asked)
        if isinstance(forget_bias, bool) or not isinstance(forget_bias, (int, float, np.number)):
            raise TypeError(f"forget_bias: expected a number, got {type(forget_bias).__name__}")
        if not np.isfinite(forget_bias):
            raise ValueError(f"forget_bias: expected a finite number, got {forget_bias}")
        if forget_bias and not self.bias:
            raise ValueError("forget_bias: there is no bias to add it to, with bias=False")
        self.forget_bias = float(forget_bias)
        self.proj_size, self.peepholes, self.clip, self.input_forget = proj_size, peepholes, clip, input_forget

    @property
    def cell(self) -> CellName:
        return "lstm"

    def __call__(
        self, x: Array, state: tuple[Array, Array] | None = None, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Runs the layer over a batch of sequences.

        Args:
            x: (T, B, I), or (B, T, I) with batch_first, or (T, I) without a batch; of the layer's dtype.
            state: (h_0, c_0), each (L*D, B, H), or (L*D, H) without a batch; None for zeros.
            lengths: integers (B,), or one without a batch: row b has lengths[b] valid steps, at the front. Outputs past
                them are 0, the returned state is that after the last valid step.

        Returns y (T, B, D*H) in x's layout, and (h_n, c_n) in the state's shapes; row l*D + d is layer l, direction d.
        Raises ValueError for wrong shapes and lengths, TypeError for wrong types and dtypes.
        """
        y, final = self._run(x, state, lengths)
        return y, final
