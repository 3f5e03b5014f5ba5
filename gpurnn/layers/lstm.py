"""The LSTM layer."""

from typing import Any

import numpy as np

from gpurnn_kernels.spec import Array

from . import parameters
from .base import RecurrentLayer
from .call import run
from .description import described


class LSTM(RecurrentLayer[tuple[Array, Array]]):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000):

        f, i, o = sigma(W_h h + W_x x + b)[f, i, o]      g = tanh(W_h h + W_x x + b)[g]
        c = f * c_prev + i * g                           h = o * tanh(c)

    with p * c_prev added to what enters f and i and p * c to what enters o (peepholes), f = 1 - i (input_forget), or
    h = W_p (o * tanh(c)) (proj_size).

    Args:
        input_size, hidden_size, num_layers: I, H and L.
        bias: False leaves b out.
        batch_first: x and y are (B, T, ...) instead of (T, B, ...); states are not.
        bidirectional: D = 2; a second direction runs backward in time, y holds both side by side.
        reverse: the one direction runs backward in time; y is in the input's order.
        proj_size: P, units of h and y after a projection, 0 < P < H; 0 for none (PyTorch's proj_size).
        forget_bias: added to the forget gate's rows of b at construction.
        peepholes: the gates f, i, o see c, each unit its own, by weights (3*H,) (ONNX's P, in another order).
        clip: what enters the gates' sigma or tanh is clamped to [-clip, clip] before; its gradient is 0 where it was. As
            in ONNX Runtime, c is not clamped.
        input_forget: coupled gates, f = 1 - i: the rows of f in W_x, W_h, b and peephole are not used (ONNX's
            input_forget).
        dtype: "float32", "float64" or, on a GPU only, "float16", of parameters, inputs and outputs. With float16, sums and
            an LSTM's c within a call are float32; gradients are not scaled, so that small ones vanish.
        seed: of the initial weights, uniform in +-1/sqrt(H), by `numpy.random.default_rng`.
        precision: of the factors of a float32 layer's products; sums and all else stay float32. "bf16" rounds weights, x
            and h to bfloat16, "int8" to 8-bit integers with a scale for each row of weights and each row of the batch and
            step: on the CPU and forward only. "tf32" rounds to 11 bits on a GPU, and is as None on the CPU.
        fast_math: on a GPU in float32, tanh is the hardware's approximation, off by up to 2**-11 of its value, and sigma made
            of it, off by up to 2**-12; else, and on the CPU, both are within 4 ulp.

        lstm = gpurnn.LSTM(input_size=40, hidden_size=128)
        y, (h_n, c_n) = lstm(np.zeros((100, 8, 40), np.float32))  # (T, B, I) -> (T, B, H)

    Raises ValueError and TypeError for arguments out of range or of the wrong type.
    """

    _kind = "LSTM"
    forget_bias: float

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
        description = described("LSTM", arguments)
        params = parameters.draw(description.shapes, description.hidden_size, description.dtype, seed)
        with np.errstate(all="ignore"):  # a bias may be too small or too large for the dtype
            for name, array in params.items():
                if name.endswith(".b"):
                    array[: description.hidden_size] += description.dtype.type(description.forget_bias)
        self._begin(description, params)

    def __call__(
        self, x: Array, state: tuple[Array, Array] | None = None, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Runs the layer over a batch of sequences.

            y, (h_n, c_n) = lstm(x, lengths=[100, 3, 0, 50])

        Args:
            x: (T, B, I), or (B, T, I) with batch_first, or (T, I) without a batch; of the layer's dtype.
            state: (h_0, c_0), (L*D, B, P) and (L*D, B, H), or (L*D, P) and (L*D, H) without a batch; None for zeros. P is
                proj_size, or H without one.
            lengths: integers (B,), or one without a batch: row b has lengths[b] valid steps, at the front. Outputs past
                them are 0, the returned state is that after the last valid step.

        Returns y (T, B, D*P) in x's layout, and (h_n, c_n) in the state's shapes; row l*D + d is layer l, direction d.
        Raises ValueError for wrong shapes and lengths, TypeError for wrong types and dtypes.
        """
        y, final = run(self._prepared, x, state, lengths)
        return y, final
