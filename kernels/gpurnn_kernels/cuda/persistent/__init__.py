"""Persistent kernels: one launch for a direction of a layer and a whole sequence, its recurrent weights on the chip."""

from .plan import Plan, Refusal, plan
from .run import forward

__all__ = ["Plan", "Refusal", "forward", "plan"]
