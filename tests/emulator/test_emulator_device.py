"""The emulated device: real kernels compiled and run, its memory, its counts and its limits."""

import gc
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_compiler import needs_compiler

from ptx_emulator.errors import PTXError

pytestmark = needs_compiler


@pytest.fixture
def device() -> Any:
    from ptx_emulator.device import EmulatedDevice

    return EmulatedDevice()


def make_kernels() -> Any:
    """Kernels of addresses; in a function, since numba-cuda may be missing."""
    from llvmlite import ir
    from numba import cuda, types
    from numba.cuda.extending import intrinsic

    from gpurnn_kernels.cuda.host.device import Kernel

    float_pointer = ir.PointerType(ir.FloatType(), 1)
    word = ir.IntType(64)

    @intrinsic
    def load(typing: Any, base: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = builder.add(arguments[0], builder.mul(arguments[1], word(4)))
            return builder.load(builder.inttoptr(at, float_pointer))

        return types.float32(types.uint64, types.uint64), emit

    @intrinsic
    def store(typing: Any, base: Any, index: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = builder.add(arguments[0], builder.mul(arguments[1], word(4)))
            builder.store(arguments[2], builder.inttoptr(at, float_pointer))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.float32), emit

    def add_tanh(x: Any, y: Any, n: Any, shift: Any) -> None:
        i = types.uint64(cuda.grid(1))
        if i < types.uint64(n):
            store(y, i, math.tanh(load(x, i)) + shift)

    def reverse(x: Any, y: Any, n: Any) -> None:
        grid, i = cuda.cg.this_grid(), types.uint64(cuda.grid(1))
        store(y, i, load(x, i))
        grid.sync()
        store(x, i, load(y, types.uint64(n) - types.uint64(1) - i))

    def from_shared(x: Any, y: Any) -> None:
        held, t = cuda.shared.array(128, types.float32), cuda.threadIdx.x
        held[t] = load(x, types.uint64(t))
        cuda.syncthreads()
        store(y, types.uint64(t), held[127 - t])

    address = types.uint64
    return SimpleNamespace(
        add_tanh=Kernel("add_tanh", add_tanh, (address, address, types.int32, types.float32), 128),
        reverse=Kernel("reverse", reverse, (address, address, types.int32), 64, cooperative=True),
        from_shared=Kernel("from_shared", from_shared, (address, address), 128),
    )


@pytest.fixture(scope="module")
def kernels() -> Any:
    return make_kernels()


def test_a_kernel_runs_as_compiled(device: Any, kernels: Any) -> None:
    x = np.linspace(-3, 3, 300, dtype=np.float32)
    y = device.empty((300,), np.dtype(np.float32))
    launch = device.launcher(kernels.add_tanh, (3,), device.upload(x), y, 300)
    for shift in (0.5, -2.0):
        launch(shift)
        np.testing.assert_allclose(np.asarray(y), np.tanh(x.astype(np.float64)) + shift, atol=6e-7)
    assert device.launches == {"add_tanh": 2}
    assert device.bytes["add_tanh", "load"] == device.bytes["add_tanh", "store"] == 2 * 300 * 4


@pytest.mark.parametrize("name", ["T4", "H100 SXM", "RTX 5090"])
def test_each_card_compiles_for_itself(name: str, kernels: Any) -> None:
    from ptx_emulator.device import EmulatedDevice, program

    device = EmulatedDevice(name)
    x, y = device.upload(np.arange(128, dtype=np.float32)), device.empty((128,), np.float32)
    device.launcher(kernels.from_shared, (1,), x, y)()
    np.testing.assert_array_equal(np.asarray(y), np.arange(128)[::-1])
    assert program(kernels.from_shared, device.limits.compute_capability).static_shared == 512
    assert 0 < device.resident_blocks(kernels.from_shared, 0) <= device.limits.blocks_per_multiprocessor
    assert device.resident_blocks(kernels.from_shared, device.limits.shared_per_block) == 0


def test_blocks_meet_at_a_grid_barrier(device: Any, kernels: Any) -> None:
    x = device.upload(np.arange(256, dtype=np.float32))
    device.launcher(kernels.reverse, (4,), x, device.empty((256,), np.float32), 256)()
    np.testing.assert_array_equal(np.asarray(x), np.arange(256)[::-1])


def test_a_grid_that_cannot_be_resident_is_refused(device: Any, kernels: Any) -> None:
    held = device.resident_blocks(kernels.reverse, 0) * device.limits.multiprocessors
    x, y = (device.empty((64,), np.float32) for _ in range(2))
    device.launcher(kernels.reverse, (held,), x, y, 64)
    with pytest.raises(RuntimeError, match=f"H100 SXM holds {held}"):
        device.launcher(kernels.reverse, (held + 1,), x, y, 64)
    with pytest.raises(RuntimeError, match="holds"):
        device.launcher(kernels.reverse, (held,), x, y, 64, shared=100_000)
    with pytest.raises(RuntimeError, match="shared memory"):
        device.launcher(kernels.from_shared, (1,), x, y, shared=device.limits.shared_per_block)


def test_a_read_of_what_nobody_wrote_fails(kernels: Any) -> None:
    from ptx_emulator.device import EmulatedDevice

    device = EmulatedDevice()
    x, y = (device.empty((128,), np.float32) for _ in range(2))
    with pytest.raises(AssertionError, match="not initialised"):
        device.launcher(kernels.add_tanh, (1,), x, y, 128)(0.0)
    collecting = EmulatedDevice(strict=False)
    x, y = (collecting.empty((128,), np.float32) for _ in range(2))
    collecting.launcher(kernels.add_tanh, (1,), x, y, 128)(0.0)
    assert "not initialised" in "".join(collecting.warnings)


def test_an_index_past_the_end_fails(device: Any, kernels: Any) -> None:
    x, y = device.zeros((128,), np.float32), device.empty((128,), np.float32)
    with pytest.raises(PTXError, match="out of bounds"):
        device.launcher(kernels.add_tanh, (2,), x, y, 129)(0.0)


def test_what_is_written_counts_as_initialised(device: Any, kernels: Any) -> None:
    """By a kernel, by a product, by the host: whole arrays or parts of them."""
    flags = device.memory.flags_of
    x = device.empty((4, 8), np.float32)
    assert not flags(x).any()
    assert np.isnan(np.asarray(x)).all()
    x[1:3, ::2] = 1
    expected = np.zeros((4, 8), bool)
    expected[1:3, ::2] = True
    np.testing.assert_array_equal(flags(x), expected)
    np.testing.assert_array_equal(flags(x.copy()), expected)
    np.testing.assert_array_equal(flags(x[1:, 2]), expected[1:, 2])
    device.multiply(device.zeros((4, 3), np.float32), device.zeros((3, 8), np.float32), x)
    assert flags(x).all()
    y = device.empty((128,), np.float32)
    device.launcher(kernels.add_tanh, (1,), device.zeros((128,), np.float32), y, 100)(0.0)
    np.testing.assert_array_equal(flags(y), np.arange(128) < 100)


def test_products(device: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 5)), rng.standard_normal((5, 4))
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        for transpose_a in (False, True):
            for transpose_b in (False, True):
                left = device.upload((a.T if transpose_a else a).astype(dtype))
                right = device.upload((b.T if transpose_b else b).astype(dtype))
                out = device.empty((3, 4), dtype)
                device.multiply(left, right, out, transpose_a=transpose_a, transpose_b=transpose_b)
                device.multiply(left, right, out, transpose_a=transpose_a, transpose_b=transpose_b, accumulate=True)
                np.testing.assert_allclose(np.asarray(out), 2 * a @ b, atol=10 * tolerance)
    assert device.launches == {"multiply": 16}
    with pytest.raises(ValueError, match="side by side"):
        device.multiply(device.upload(a)[:, ::2], device.upload(b), device.empty((3, 4), np.float64))


def test_products_of_halves_and_tf32(device: Any) -> None:
    a, b = np.full((1, 4096), 1 + 2.0**-10, np.float16), np.ones((4096, 1), np.float16)
    out = device.empty((1, 1), np.float32)
    device.multiply(device.upload(a), device.upload(b), out)
    assert out[0, 0] == 4100
    fine = np.full((1, 64), 1 + 2.0**-12, np.float32)
    device.multiply(device.upload(fine), device.upload(np.ones((64, 1), np.float32)), out, tf32=True)
    assert out[0, 0] == 64


def test_products_read_only_what_is_initialised(device: Any) -> None:
    a, out = device.empty((2, 2), np.float32), device.empty((2, 2), np.float32)
    with pytest.raises(AssertionError, match="not initialised"):
        device.multiply(a, device.zeros((2, 2), np.float32), out)
    with pytest.raises(AssertionError, match="not initialised"):
        device.multiply(device.zeros((2, 2), np.float32), device.zeros((2, 2), np.float32), out, accumulate=True)


def test_freed_memory_is_out_of_bounds(device: Any, kernels: Any) -> None:
    from gpurnn_kernels.cuda.host.device import Kernel

    x, y = device.zeros((128,), np.float32), device.empty((128,), np.float32)
    address = device.address(x)
    assert isinstance(kernels.add_tanh, Kernel)
    launch = device.launcher(kernels.add_tanh, (1,), address, y, 128)
    launch(0.0)
    view = x[64:]
    del x
    gc.collect()
    assert device.address(view) == address + 256
    launch(0.0)
    del view
    gc.collect()
    with pytest.raises(PTXError, match="out of bounds"):
        launch(0.0)


def test_arrays_of_the_host_are_refused(device: Any, kernels: Any) -> None:
    with pytest.raises(TypeError, match="on the device"):
        device.launcher(kernels.add_tanh, (1,), np.zeros(128, np.float32), device.empty((128,), np.float32), 128)


def test_arithmetic_on_arrays_stays_on_the_device(device: Any) -> None:
    x = device.upload(np.arange(4.0))
    total = x + x
    assert device.address(total)
    np.testing.assert_array_equal(np.asarray(total), [0, 2, 4, 6])
    total *= 2
    np.testing.assert_array_equal(np.asarray(total), [0, 4, 8, 12])


def test_no_driver_is_needed_and_nothing_stays_patched(kernels: Any) -> None:
    from numba.cuda import api, codegen, dispatcher

    from ptx_emulator.compile import capability

    before = api.get_current_device, dispatcher.get_current_device, codegen.devices
    with capability((7, 5)):
        assert dispatcher.get_current_device().compute_capability == (7, 5)
    assert (api.get_current_device, dispatcher.get_current_device, codegen.devices) == before


# (registers, threads, shared bytes, blocks of a multiprocessor): what NVIDIA's cuda_occupancy.h of CUDA 13.5 answers
OCCUPANCY = {
    "T4": [(33, 384, 0, 2), (40, 256, 0, 4), (32, 96, 16384, 4), (255, 32, 65000, 1), (64, 160, 0, 6), (200, 320, 0, 0)],
    "A100": [(33, 256, 65000, 2), (32, 256, 1000, 8), (32, 32, 101376, 1), (16, 128, 100000, 1), (128, 320, 101376, 1)],
    "RTX 3090": [(16, 1024, 65000, 1), (40, 320, 49152, 2), (255, 160, 0, 1), (96, 512, 65000, 1), (33, 512, 1000, 3)],
    "RTX 4090": [(32, 384, 49152, 2), (64, 128, 16384, 5), (40, 256, 16384, 5), (16, 160, 101376, 1), (64, 128, 0, 8)],
    "H100 SXM": [(40, 96, 16384, 13), (33, 384, 0, 4), (96, 32, 16384, 13), (128, 96, 49152, 4), (32, 160, 65000, 3)],
    "B200": [(96, 256, 16384, 2), (128, 160, 101376, 2), (255, 96, 0, 2), (33, 1024, 0, 1), (64, 32, 1000, 32)],
    "RTX 5090": [(200, 96, 1000, 2), (64, 256, 100000, 1), (32, 256, 0, 6), (64, 512, 100000, 1), (16, 96, 0, 16)],
}


@pytest.mark.parametrize("name", OCCUPANCY)
def test_occupancy_is_nvidias(name: str) -> None:
    from ptx_emulator.occupancy import resident_blocks
    from ptx_emulator.table import DEVICES

    for registers, threads, shared, expected in OCCUPANCY[name]:
        assert resident_blocks(DEVICES[name], threads, registers, shared) == expected


def test_registers_are_the_compiled_kernels(kernels: Any) -> None:
    from ptx_emulator.resources import resources

    used = resources(kernels.from_shared, (9, 0))
    assert 4 <= used.registers <= 32
    assert (used.stack, used.local) == (0, 0)
    assert 512 <= used.shared <= 512 + 1024  # 9.0 and later count what the system keeps


def test_a_captured_graph_runs_when_it_is_called(device: Any, kernels: Any) -> None:
    x, y = device.upload(np.zeros(128, np.float32)), device.empty((128,), np.float32)
    launch = device.launcher(kernels.add_tanh, (1,), x, y, 128)
    replay = device.capture(lambda: launch(2.0))
    assert not device.launches
    x[...] = 100
    for times in (1, 2):
        replay()
        assert device.launches == {"add_tanh": times}
    assert (np.asarray(y) == 3).all()
    for forbidden in (lambda: device.empty((1,), np.float32), lambda: device.multiply(x, x, y)):
        with pytest.raises(RuntimeError, match="captured"):
            device.capture(forbidden)
    device.empty((1,), np.float32)
