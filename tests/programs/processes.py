"""Programs that tests run in processes of their own: `python("from programs import processes; processes.pinned()")`."""

import json
import multiprocessing
import os
import re
import sys
import threading
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from helpers import GRADIENTS, OUTPUTS, Problem, assert_gradients_near, assert_near, assert_same_bits, leaves, row_of
from numba import njit
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target
from problems import PRECISIONS
from reference_cells import CELLS

import gpurnn


def digest(tree: Any) -> str:
    return b"".join(a.tobytes() for a in leaves(tree)).hex()


# Threads and processes


def _problem(seed: int) -> Problem:
    return Problem("lstm", 4, 40, 13, 70, bidirectional=True, seed=seed)


def _compute(seed: int) -> str:
    """Every kind of call, with all threads."""
    p = _problem(seed)
    stream = Problem("gru", 1, 40, 13, 70, seed=seed)
    parts = p.run(), tuple(p.gradients().values()), p.layer(p.x), p.layer(p.x), stream.layer.stream(40).step(stream.x[0])
    return digest(parts)


def processes(method: str) -> None:
    """Children, and children's children, beside a parent that has used its threads and goes on to."""
    gpurnn.set_num_threads(2)
    expected = [_compute(seed) for seed in range(4)]
    context = multiprocessing.get_context(method)
    for _ in range(2):
        with context.Pool(2) as pool:
            assert pool.map(_compute, range(4), chunksize=1) == expected
            pool.close()
            pool.join()
        assert _compute(3) == expected[3]
    child = context.Process(target=_in_a_child, args=(method, expected))
    child.start()
    child.join()
    assert child.exitcode == 0


def _in_a_child(method: str, expected: list[str]) -> None:
    gpurnn.set_num_threads(3)
    assert _compute(0) == expected[0]
    child = multiprocessing.get_context(method).Process(target=_in_a_grandchild, args=(expected,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert _compute(1) == expected[1]


def _in_a_grandchild(expected: list[str]) -> None:
    assert _compute(2) == expected[2]


def fork_during_calls() -> None:
    """Forks while other threads are in the middle of calls on the layer that the child uses."""
    gpurnn.set_num_threads(2)
    p = _problem(0)
    q = Problem("gru", 3, 5, 6, 20)
    expected = digest((p.run(), p.layer(p.x), q.run()))
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            p.layer(p.x)
            q.run()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if digest((p.run(), p.layer(p.x), q.run())) == expected else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()


def fork_with_locks_held() -> None:
    """The child cannot wait for a thread that only its parent has: every lock that was made by then is free in the child."""
    gpurnn.set_num_threads(2)
    made: list[Any] = []
    plain = threading.Lock

    def recorded() -> Any:
        made.append(plain())
        return made[-1]

    threading.Lock = recorded  # type: ignore[misc, assignment]

    p = Problem("lstm", 4, 40, 13, 70)
    fresh = Problem("gru", 4, 40, 13, 70)
    assert fresh.layer is not None
    expected = digest((p.run(), p.layer(p.x)))
    threading.Lock = plain  # type: ignore[misc]
    held = [lock for lock in made if lock.acquire(blocking=False)]
    pid = os.fork()
    if pid == 0:
        found = digest((p.run(), p.layer(p.x)))
        fresh.run()
        os._exit(0 if found == expected else 1)
    for lock in held:
        lock.release()
    assert os.waitpid(pid, 0)[1] == 0


def first_use_refuses_a_bad_number_of_threads() -> None:
    layer = gpurnn.LSTM(3, 4)
    x = np.zeros((2, 1, 3), np.float32)
    for call in (gpurnn.get_num_threads, lambda: layer(x), lambda: layer.vjp(x), lambda: layer.stream().step(x[0])):
        try:
            call()
        except ValueError as error:
            assert "GPURNN_NUM_THREADS" in str(error)
        else:
            raise AssertionError("no ValueError")
    gpurnn.set_num_threads(1)
    layer(x)


def number_of_threads() -> None:
    print(gpurnn.get_num_threads())


def _share_always() -> None:
    """Keeps to the team however busy the machine is, and splits units, so that threads share every step."""
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.team import TEAM

    TEAM._rest_until = 0.0
    TEAM._notice = lambda _: None  # type: ignore[method-assign]
    schedule._choose = lambda *_: ("units", "forced")  # type: ignore[assignment]


def pinned() -> None:
    """More threads than the one CPU that the process may use."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    p = Problem("gru", 30, 5, 13, 100)
    expected = digest((p.run(), p.layer(p.x), p.gradients()["x"]))
    assert gpurnn.get_num_threads() == 1
    for forced in (False, True):
        if forced:
            _share_always()
        for threads in (2, 3):
            gpurnn.set_num_threads(threads)
            again = Problem("gru", 30, 5, 13, 100)
            for _ in range(3):
                assert digest((again.run(), again.layer(again.x), again.gradients()["x"])) == expected


def beside_busy_processes() -> None:
    """One on every CPU."""
    everywhere = os.sched_getaffinity(0)
    busy = [multiprocessing.get_context("spawn").Process(target=_spin, args=(os.getpid(),), daemon=True) for _ in everywhere]
    for process in busy:
        process.start()
    try:
        p = Problem("gru", 30, 5, 13, 100)
        gpurnn.set_num_threads(1)
        expected = digest((p.run(), p.layer(p.x), p.gradients()["x"]))
        for forced in (False, True):
            if forced:
                _share_always()
            for threads in (2, len(everywhere) + 1):
                gpurnn.set_num_threads(threads)
                again = Problem("gru", 30, 5, 13, 100)
                assert digest((again.run(), again.layer(again.x), again.gradients()["x"])) == expected
        assert os.sched_getaffinity(0) == everywhere
        if sys.platform == "linux":
            tasks = [int(task) for task in os.listdir("/proc/self/task")]
            assert all(os.sched_getaffinity(task) == everywhere for task in tasks)
    finally:
        for process in busy:
            process.kill()


def _spin(parent: int) -> None:
    while os.getppid() == parent:
        sum(range(10_000))


def exit_with_threads_at_work() -> None:
    """The interpreter ends while a daemon thread calls."""
    gpurnn.set_num_threads(2)
    p = _problem(0)
    p.run()

    def forever() -> None:
        while True:
            p.layer(p.x)

    for _ in range(2):
        threading.Thread(target=forever, daemon=True).start()
    for _ in range(20):
        p.run()


# Targets


def target() -> None:
    """Outputs, gradients and promises, small, as compiled for the target that the environment names."""
    from gpurnn_kernels.cpu.cells import CELLS as cells
    from gpurnn_kernels.cpu.codegen.compile import kernel_object
    from gpurnn_kernels.cpu.passes.forward import forward
    from gpurnn_kernels.cpu.products.microkernel import tiles
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.team import TEAM

    TEAM._notice = lambda _: None  # type: ignore[method-assign]
    schedule._LEAST_CALL = 0.0
    cases = [*((cell, "float32") for cell in CELLS), ("gru_after", "float64")]
    for cell, dtype in cases:
        for lengths in (None, [6, 0, 3, 1, 6, 2, 5, 4, 4, 6, 3, 2, 1]):
            p = Problem(cell, 6, 13, 9, 21, dtype=dtype, lengths=lengths, bidirectional=True)
            gpurnn.set_num_threads(1)
            alone = p.run(), p.gradients()
            assert_near(alone[0], p.expected(), OUTPUTS[dtype])
            assert_gradients_near(alone[1], p.expected_gradients(), GRADIENTS[dtype])
            gpurnn.set_num_threads(2)
            assert_same_bits((p.run(), p.gradients()), alone)
            y, state = alone[0]
            for rows in (slice(0, 1), slice(4, 9)):
                some = None if lengths is None else lengths[rows]
                assert_same_bits(p.layer(p.x[:, rows], row_of(p.state, rows), some), (y[:, rows], row_of(state, rows)))
        p = Problem(cell, 5, 3, 9, 37, dtype=dtype, num_layers=2)
        y, state = p.run()
        stream = p.layer.stream(3, p.state)
        assert_same_bits((np.stack([stream.step(x_t) for x_t in p.x]), stream.state), (y, state))
    step = next(cells["gru_after"].all_steps()).step[0]
    codes = [assembly(kernel_object(kernel, "float32")._library) for kernel in (tiles("float")[3], forward, step)]
    called = sorted({name for code in codes for name in called_symbols(code)})
    fused = sum(code.count("vfmadd") for code in codes)
    precisions(called=called, fused=fused)


def precisions(**more: Any) -> None:
    """The bits of layers in every precision, and what the target can do."""
    from gpurnn_kernels.cpu.codegen.target import target

    abilities = {"vector_bytes": target().vector_bytes, "fma": target().fma, "bf16": target().bf16, "dot": target().dot}
    print(json.dumps({**abilities, **more, "precisions": in_precisions()}))


def in_precisions() -> dict[str, str]:
    """The bits of layers in every precision, whose batch, threads and streams are tried as well."""
    found = {}
    for precision in PRECISIONS:
        bits = []
        for cell in ("lstm", "gru"):
            p = Problem(cell, 5, 13, 19, 37, precision=precision)
            gpurnn.set_num_threads(1)
            y, state = p.run()
            for got, wanted in zip(leaves((y, state)), leaves(p.expected()), strict=True):
                assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
            gpurnn.set_num_threads(2)
            assert_same_bits(p.run(), (y, state))
            for rows in (slice(0, 1), slice(4, 9)):
                assert_same_bits(p.layer(p.x[:, rows], row_of(p.state, rows)), (y[:, rows], row_of(state, rows)))
            stream = p.layer.stream(13, p.state)
            assert_same_bits((np.stack([stream.step(x_t) for x_t in p.x]), stream.state), (y, state))
            bits.append(digest((y, state)))
        found[precision] = "".join(bits)
    return found


def assembly(library: Any) -> str:
    """The assembly of a library's optimised IR, for the target that Numba believes in."""
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3, codemodel="default")
    return str(machine.emit_assembly(llvm.parse_assembly(ir_of(library))))


def ir_of(library: Any) -> str:
    """Optimised, without what ties it to this machine and Numba's reference counting, which kernels never call."""
    module = str(library._get_module_for_linking())
    module = re.sub(r'"target-cpu"="[^"]*"|"target-features"="[^"]*"|target datalayout = ".*"', "", module)
    return re.sub(r"^define linkonce_odr [^\n]*@NRT_.*?^}$", "", module, flags=re.DOTALL | re.MULTILINE)


def called_symbols(code: str) -> list[str]:
    """Functions that assembly calls and does not define, but for those that raise errors in a C callback."""
    called = set(re.findall(r"^\s*(?:callq?|jmp|bl|b)\s+\*?([A-Za-z_][\w$]*)", code, re.MULTILINE))
    return sorted(name for name in called if f"\n{name}:" not in code and not re.match("_?Py|numba_|NRT_", name))


def aarch64(features: str = "") -> None:
    """Emits kernels as on an aarch64 machine and lowers them; nothing of it can run here. features: of a machine that has
    more, for which only the kernels of precisions are emitted."""
    njit(lambda: 0)()  # Numba's own start, for this machine
    triple = "aarch64-unknown-linux-gnu"
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: triple
    codegen = type(cpu_target.target_context.codegen())
    codegen.magic_tuple = lambda _: (triple, "neoverse-n1", features)
    codegen.set_env = lambda *_: None
    JITCodeLibrary._finalize_specific = lambda _: None
    JITCodeLibrary.get_pointer_to_function = lambda library, _: library._ensure_finalized() or 0
    config.CACHE_DIR = __file__  # no folder: nothing is loaded or kept
    from gpurnn_kernels.cpu.cells import CELLS
    from gpurnn_kernels.cpu.codegen.compile import kernel_object
    from gpurnn_kernels.cpu.codegen.target import target
    from gpurnn_kernels.cpu.programs.kernels import kernels_of

    assert target().triple == triple
    default = [kernel for kernel, _ in kernels_of(CELLS, ["float32"], PRECISIONS) if "limit" not in kernel.__qualname__]
    wanted = [kernel for kernel in default if not features or re.search("(bf16|int8)_4|rows", kernel.__qualname__)]
    libraries = {kernel.__qualname__: kernel_object(kernel, "float32")._library for kernel in wanted}
    told = {}
    for name, library in libraries.items():
        code = assembly(library)
        told[name] = {"called": called_symbols(code), "fused": len(re.findall(r"fmla\s+v\d+\.[24][sd]", code))}
        told[name] |= {"hints": len(re.findall(r"\byield\b|hint", code)), "acquires": len(re.findall(r"\bldap?r\b", code))}
        told[name] |= {"modes": re.findall(r"\b(mrs|msr)\s+(?:x\d+|FPCR)", code, re.IGNORECASE)}
        told[name] |= {"sdot": len(re.findall(r"\bsdot\b", code))}
        told[name] |= {"x86": len(re.findall("call .*llvm[.]x86", ir_of(library)))}
    print(json.dumps(told))
