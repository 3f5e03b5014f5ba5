"""How many blocks of a kernel one multiprocessor holds, by the granularities in which its resources are given out."""

from gpurnn_kernels.cuda.host.device import Limits

WARP = 32
PARTITIONS = 4  # of the register file: each holds whole warps
REGISTERS_UNIT = 256  # a warp's registers are a multiple of it
MAX_REGISTERS = 255  # a thread
MAX_THREADS = 1024  # a block


def resident_blocks(limits: Limits, threads: int, registers: int, shared: int) -> int:
    """threads of a block, registers of a thread, shared memory of a block in bytes, static and dynamic."""
    warps = -(-threads // WARP)
    if threads > MAX_THREADS or registers > MAX_REGISTERS or shared > limits.shared_per_block:
        return 0
    by_threads = limits.threads_per_multiprocessor // WARP // warps
    return min(
        limits.blocks_per_multiprocessor, by_threads, _by_registers(limits, warps, registers), _by_shared(limits, shared)
    )


def _by_registers(limits: Limits, warps: int, registers: int) -> int:
    of_warp = -(-max(registers, 1) * WARP // REGISTERS_UNIT) * REGISTERS_UNIT
    return limits.registers_per_multiprocessor // PARTITIONS // of_warp * PARTITIONS // warps


def _by_shared(limits: Limits, shared: int) -> int:
    """From 8.0 on the system keeps 1 KiB of each block, and units are 128 bytes; 256 before."""
    modern = limits.compute_capability >= (8, 0)
    unit, reserved = (128, 1024) if modern else (256, 0)
    needed = -(-(shared + reserved) // unit) * unit
    return limits.shared_per_multiprocessor // needed if needed else limits.blocks_per_multiprocessor
