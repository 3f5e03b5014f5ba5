"""Figures of named GPUs that the time model starts from: their data sheets', but for the latencies, which are assumed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    name: str
    multiprocessors: int
    clock: float  # GHz, boost
    lanes: int  # float32 multiply-adds a multiprocessor and clock
    memory: float  # GB/s
    l2: float  # bytes a clock, all multiprocessors together
    l2_port: float  # bytes a clock into one multiprocessor
    registers: int  # KiB a multiprocessor


CARDS = (
    Card("T4", 40, 1.59, 64, 320, 1280, 64, 256),
    Card("A100", 108, 1.41, 64, 1555, 3600, 64, 256),
    Card("RTX 4090", 128, 2.52, 128, 1008, 3400, 64, 256),
    Card("H100", 132, 1.755, 128, 3350, 3100, 64, 256),
    Card("RTX 5090", 170, 2.41, 128, 1792, 3400, 64, 256),
)

# seconds; assumed, none of them measured yet
HOST_LAUNCH = 6e-6  # of a kernel, on the host
HOST_PRODUCT = 8e-6  # of a cuBLAS call, on the host
GAP = 1.5e-6  # between two kernels of one stream
BARRIER = 1.2e-6  # of all blocks
EXCHANGE = 0.6e-6  # until the h of another block can be read
CELL = 0.35e-6  # the pointwise part of a persistent step
ISSUE = 0.82  # multiply-adds among the instructions of a persistent tile, counted in its machine code
