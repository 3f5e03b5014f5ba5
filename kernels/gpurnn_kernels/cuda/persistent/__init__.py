"""Persistent kernels: one launch for a direction of a layer and a whole sequence, its recurrent weights on the chip."""

from .plan_backward import BackwardPlan, plan_backward
from .plan_forward import Plan, Refusal, plan
from .run import backward, forward

__all__ = ["BackwardPlan", "Plan", "Refusal", "backward", "forward", "plan", "plan_backward"]
