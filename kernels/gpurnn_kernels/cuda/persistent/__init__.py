"""Persistent kernels: one launch for a direction of a layer and a whole sequence, its recurrent weights on the chip."""

from .budget import Refusal
from .plan_backward import BackwardPlan, fit_backward
from .plan_forward import ForwardPlan, fit_forward
from .run import run_backward, run_forward

__all__ = ["BackwardPlan", "ForwardPlan", "Refusal", "fit_backward", "fit_forward", "run_backward", "run_forward"]
