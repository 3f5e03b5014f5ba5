"""Which kernels run a layer: its loop over a sequence calls a projection and a step of its variant, by address."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...spec import Spec
from ..cells.backward import (
    gru_after_clip_step_back,
    gru_after_step_back,
    gru_before_clip_second_back,
    gru_before_clip_step_back,
    gru_before_second_back,
    gru_before_step_back,
    lstm_step_back,
)
from ..cells.gru_after import gru_after_clip_step, gru_after_project, gru_after_step, gru_after_step_keep
from ..cells.gru_before import (
    gru_before_clip_second,
    gru_before_clip_step,
    gru_before_project,
    gru_before_second,
    gru_before_second_keep,
    gru_before_step,
    gru_before_step_keep,
)
from ..cells.lstm import lstm_project, lstm_step, lstm_step_keep
from ..cells.lstm_options import (
    lstm_options_gradients,
    lstm_options_second,
    lstm_options_second_back,
    lstm_options_step,
    lstm_options_step_back,
)
from ..passes.amx_gradients import amx_input_gradients, amx_lstm_options_gradients, amx_recurrent_product, amx_weight_gradients
from ..passes.backward import backward
from ..passes.forward import copy_steps, forward
from ..passes.weight_gradients import all_weight_gradients, input_gradients
from ..products.microkernel import TILES, TILES_PREFETCH, TILES_TRANSPOSED
from ..products.pack import pack_backward, pack_forward, pack_strips
from ..threads.commands import serve

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """What a variant of a cell calls. A step has a kernel for each of its phases."""

    project: Kernel
    step: tuple[Kernel, ...]
    step_keep: tuple[Kernel, ...]  # a step that leaves what `step_back` reads
    step_back: tuple[Kernel, ...]
    weight_gradients: Kernel = all_weight_gradients
    amx_weight_gradients: Kernel = amx_weight_gradients

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return self.project, *self.step, *self.step_keep, *self.step_back, self.weight_gradients


VARIANTS = {
    "lstm": Variant(lstm_project, (lstm_step,), (lstm_step_keep,), (lstm_step_back,)),
    "lstm_options": Variant(
        lstm_project,
        (lstm_options_step, lstm_options_second),
        (lstm_options_step, lstm_options_second),
        (lstm_options_step_back, lstm_options_second_back),
        lstm_options_gradients,
        amx_lstm_options_gradients,
    ),
    "gru_before": Variant(
        gru_before_project,
        (gru_before_step, gru_before_second),
        (gru_before_step_keep, gru_before_second_keep),
        (gru_before_step_back, gru_before_second_back),
    ),
    "gru_before_clip": Variant(
        gru_before_project,
        (gru_before_clip_step, gru_before_clip_second),
        (gru_before_clip_step, gru_before_clip_second),
        (gru_before_clip_step_back, gru_before_clip_second_back),
    ),
    "gru_after": Variant(gru_after_project, (gru_after_step,), (gru_after_step_keep,), (gru_after_step_back,)),
    "gru_after_clip": Variant(gru_after_project, (gru_after_clip_step,), (gru_after_clip_step,), (gru_after_clip_step_back,)),
}


def variant_of(spec: Spec) -> Variant:
    return VARIANTS[spec.variant]


# every one, each once
KERNELS = tuple(
    dict.fromkeys(
        [
            pack_forward,
            *TILES.values(),
            *TILES_PREFETCH.values(),
            forward,
            copy_steps,
            pack_backward,
            *TILES_TRANSPOSED.values(),
            backward,
            input_gradients,
            *(kernel for variant in VARIANTS.values() for kernel in variant.kernels),
            serve,
        ]
    )
)

# those of float32 besides, where the target has AMX
AMX_KERNELS = tuple(
    dict.fromkeys(
        [
            pack_strips,
            amx_recurrent_product,
            *(variant.amx_weight_gradients for variant in VARIANTS.values()),
            amx_input_gradients,
        ]
    )
)
