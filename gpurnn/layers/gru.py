"""The GRU layer, in both forms."""

from typing import Any

from gpurnn_kernels.spec import Array

from . import parameters
from .base import RecurrentLayer
from .call import run
from .description import described


class GRU(RecurrentLayer[Array]):
    """Gated recurrent unit; the default is reset-before (PyTorch and Keras 3 default to `reset_after=True`).

        z, r = sigma(W_h h + W_x x + b)[z, r]
        reset_after=False:  n = tanh(W_hn (r * h) + W_xn x + b_n)            (Cho et al. 2014, arXiv 1406.1078v1)
        reset_after=True:   n = tanh(r * (W_hn h + b_hn) + W_xn x + b_n)     (cuDNN's and PyTorch's)
        h = (1 - z) * h_prev + z * n

    z is how much of the NEW value enters; PyTorch, cuDNN, Keras and ONNX use the opposite sense.

    Args:
        input_size, hidden_size, num_layers: I, H and L.
        bias: False leaves b and b_hn out.
        batch_first: x and y are (B, T, ...) instead of (T, B, ...); states are not.
        bidirectional: D = 2; a second direction runs backward in time, y holds both side by side.
        reverse: the one direction runs backward in time; y is in the input's order.
        reset_after: which form.
        dtype: "float32", "float64" or, on a GPU only, "float16", of parameters, inputs and outputs. With float16, sums and
            an LSTM's c within a call are float32; gradients are not scaled, so that small ones vanish.
        seed: of the initial weights, uniform in +-1/sqrt(H), by `numpy.random.default_rng`.
        clip: what enters a sigma or tanh is clamped to [-clip, clip] before (ONNX's clip); its gradient is 0 where it was.
        precision: of the factors of a float32 layer's products; sums and all else stay float32. "bf16" rounds weights, x
            and h to bfloat16, "int8" to 8-bit integers with a scale for each row of weights and each row of the batch and
            step: on the CPU and forward only. "tf32" rounds to 11 bits on a GPU, and is as None on the CPU.
        fast_math: on a GPU in float32, tanh is the hardware's approximation, off by up to 2**-11 of its value, and sigma made
            of it, off by up to 2**-12; else, and on the CPU, both are within 4 ulp.

        gru = gpurnn.GRU(input_size=40, hidden_size=128, reset_after=True)
        y, h_n = gru(np.zeros((100, 8, 40), np.float32))  # (T, B, I) -> (T, B, H)

    Raises ValueError and TypeError for arguments out of range or of the wrong type.
    """

    _kind = "GRU"
    reset_after: bool

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
        reset_after: bool = False,
        clip: float | None = None,
        dtype: Any = "float32",
        precision: str | None = None,
        fast_math: bool = False,
        seed: Any = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "seed")}
        description = described("GRU", arguments)
        self._begin(description, parameters.draw(description.shapes, description.hidden_size, description.dtype, seed))

    def __call__(self, x: Array, state: Array | None = None, lengths: Any = None) -> tuple[Array, Array]:
        """Runs the layer over a batch of sequences.

            y, h_n = gru(x, lengths=[100, 3, 0, 50])

        Args:
            x: (T, B, I), or (B, T, I) with batch_first, or (T, I) without a batch; of the layer's dtype.
            state: h_0 (L*D, B, H), or (L*D, H) without a batch; None for zeros.
            lengths: integers (B,), or one without a batch: row b has lengths[b] valid steps, at the front. Outputs past
                them are 0, the returned state is that after the last valid step.

        Returns y (T, B, D*H) in x's layout, and h_n in the state's shape; row l*D + d is layer l, direction d.
        Raises ValueError for wrong shapes and lengths, TypeError for wrong types and dtypes.
        """
        y, final = run(self._prepared, x, state, lengths)
        return y, final
