"""GPUs by name: what one multiprocessor and one block can hold.

From NVIDIA's CUDA programming guide, table "Technical Specifications per Compute Capability", and each card's data sheet.
"""

from gpurnn_kernels.cuda.host.device import Limits

KIB = 1024


def _limits(
    name: str, cc: tuple[int, int], multiprocessors: int, threads: int, blocks: int, shared: int, shared_block: int
) -> Limits:
    return Limits(name, cc, multiprocessors, threads, blocks, 65536, shared * KIB, shared_block * KIB)


DEVICES = {
    limits.name: limits
    for limits in (
        _limits("T4", (7, 5), 40, 1024, 16, 64, 64),
        _limits("A100", (8, 0), 108, 2048, 32, 164, 163),
        _limits("RTX 3090", (8, 6), 82, 1536, 16, 100, 99),
        _limits("RTX 4090", (8, 9), 128, 1536, 24, 100, 99),
        _limits("H100 SXM", (9, 0), 132, 2048, 32, 228, 227),
        _limits("B200", (10, 0), 148, 2048, 32, 228, 227),
        _limits("RTX 5090", (12, 0), 170, 1536, 24, 100, 99),
    )
}
