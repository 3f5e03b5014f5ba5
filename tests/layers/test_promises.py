"""The promises, bit for bit: a row's result depends neither on its neighbours, nor on threads, nor on streaming, nor on how
the work is shared out; gradients are the same in every run and on any number of threads; a plan tells what runs."""

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import KINDS, LAYERS, Problem, assert_same_bits, leaves, row_of
from problems import every_arithmetic, every_cell, every_dtype, every_kind
from reference import packed

import gpurnn
from gpurnn_kernels.cpu import engine
from gpurnn_kernels.cpu.codegen.aligned import address
from gpurnn_kernels.cpu.products.microkernel import table
from gpurnn_kernels.cpu.programs import blocking
from gpurnn_kernels.cpu.programs import forward as forward_pass
from gpurnn_kernels.cpu.programs.weights import panel_widths
from gpurnn_kernels.cpu.threads import partition as schedule

BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 24, 25, 33, 64, 65, 97, 128, 129, 130)
ORDERS = ["forward", "both", "stacked-reverse", "batch-first-both"]
pytestmark = pytest.mark.usefixtures("together")


@every_kind
@every_arithmetic
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_do_not_depend_on_the_batch(kind: str, arithmetic: dict[str, Any], threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = Problem(kind, 4, 130, 19, 41, **arithmetic)
    y, state = p.run()
    for n in BATCHES:
        for first in {0, 130 - n}:
            rows = slice(first, first + n)
            got = p.layer(p.x[:, rows], row_of(p.state, rows))
            assert_same_bits(got, (y[:, rows], row_of(state, rows)))


@every_cell
@pytest.mark.parametrize("options", ORDERS)
def test_rows_alone_in_every_direction(cell: str, options: str) -> None:
    p = Problem(cell, 7, 15, 5, 37, **LAYERS[options])
    y, state = p.run()
    for b in range(15):
        row = slice(b, b + 1)
        y_b, state_b = p.layer(p.laid_out(p.x[:, row]), row_of(p.state, row))
        assert_same_bits((p.laid_out(y_b), state_b), (y[:, row], row_of(state, row)))


@every_cell
@every_arithmetic
def test_wide_rows_do_not_depend_on_the_batch(cell: str, arithmetic: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """So wide that a batch is cut into blocks of rows."""
    monkeypatch.setattr(blocking, "ROWS_BYTES", 1 << 19)
    assert blocking.rows_at_once(130, 520 * 4 * np.dtype(arithmetic.get("dtype", "float32")).itemsize) < 130
    p = Problem(cell, 3, 130, 24, 520, **arithmetic)
    y, state = p.run()
    for n in (1, 2, 31):
        rows = slice(130 - n, 130)
        assert_same_bits(p.layer(p.x[:, rows], row_of(p.state, rows)), (y[:, rows], row_of(state, rows)))


@every_cell
@pytest.mark.parametrize("options", ORDERS)
def test_ragged_rows_are_what_they_are_alone(cell: str, options: str) -> None:
    lengths = [3, 9, 0, 1, 9, 4, 4, 7, 2, 8, 5, 6, 0]
    p = Problem(cell, 9, len(lengths), 5, 37, lengths=lengths, **LAYERS[options])
    y, state = p.run()
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        y_b, state_b = p.layer(p.laid_out(p.x[:n, row]), row_of(p.state, row))
        assert_same_bits((p.laid_out(y_b), state_b), (y[:n, row], row_of(state, row)))
        y_b, state_b = p.layer(p.laid_out(p.x[:, row]), row_of(p.state, row), [n])
        assert_same_bits((p.laid_out(y_b), state_b), (y[:, row], row_of(state, row)))


def everything(p: Problem) -> Any:
    """The arrays of calls and gradients of a layer that has not run before: plain calls take another way from the second."""
    p = copy.deepcopy(p)
    x = p.laid_out(p.x)
    gradients = {} if p.layer.precision else p.gradients()
    return *p.run(), gradients, *[p.layer(x, None, p.lengths) for _ in range(3)]


@every_cell
@every_arithmetic
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_plain_calls(cell: str, arithmetic: dict[str, Any], options: dict[str, Any], threads: int) -> None:
    """Without state and lengths, again and again, in several shapes in turn: what a call with a state of zeros gives."""
    gpurnn.set_num_threads(threads)
    problems = [Problem(cell, T, B, 13, 70, **arithmetic, **options) for T, B in ((6, 9), (9, 6), (1, 1), (0, 3), (3, 0))]
    layer = problems[0].layer
    inputs = [p.laid_out(p.x) for p in problems]
    expected = [layer(x, packed([np.zeros_like(s) for s in leaves(p.state)])) for x, p in zip(inputs, problems, strict=True)]
    expected.append(tuple(leaves(layer(inputs[2][:, 0]))))
    inputs.append(inputs[2][:, 0])
    for _ in range(3):
        for x, wanted in zip(inputs, expected, strict=True):
            got = layer(np.ascontiguousarray(x))
            assert_same_bits(tuple(leaves(got)), tuple(leaves(wanted)))
            assert got[0].flags.c_contiguous
            assert all(a.flags.writeable and a.base is not inputs for a in leaves(got))


@every_cell
@every_arithmetic
@pytest.mark.parametrize("options", ["forward", "both", "stacked"])
@pytest.mark.parametrize("B", [1, 2, 7, 40])
def test_threads(cell: str, arithmetic: dict[str, Any], options: str, B: int) -> None:
    lengths = [(3 * b) % 7 for b in range(B)]
    for ragged in (None, lengths):
        p = Problem(cell, 6, B, 13, 70, **arithmetic, lengths=ragged, **LAYERS[options])
        gpurnn.set_num_threads(1)
        expected = everything(p)
        for threads in (2, 3, 5):
            gpurnn.set_num_threads(threads)
            assert_same_bits(everything(p), expected)


@every_kind
@every_arithmetic
@pytest.mark.parametrize("split", ["one", "rows", "units"])
@pytest.mark.parametrize("B", [1, 13])
def test_every_way_to_share_the_work(
    kind: str, arithmetic: dict[str, Any], split: str, B: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {"proj_size": 150} if "proj_size" in KINDS[kind][1] else {}
    for options in ("forward", "stacked-reverse", "both"):
        for lengths in (None, [5, 0, 4, 4, 1, 2, 5, 3, 3, 0, 1, 5, 5][:B]):
            p = Problem(kind, 5, B, 13, 200, **arithmetic, lengths=lengths, **LAYERS[options], **wide)
            gpurnn.set_num_threads(1)
            expected = everything(p)
            with monkeypatch.context() as forced:
                forced.setattr(schedule, "_choose", lambda *_: (split, f"forced: {split}"))
                for threads in (2, 3, 5) if arithmetic.get("dtype") == "float32" else (3,):
                    gpurnn.set_num_threads(threads)
                    assert f"forced: {split}" in str(p.layer.plan(p.x, lengths))
                    assert_same_bits(everything(p), expected)


@every_cell
@pytest.mark.parametrize("split", ["one", "rows", "units"])
def test_steps_that_project_their_own_x(cell: str, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_choose", lambda *_: (split, "forced"))
    gpurnn.set_num_threads(2)
    for options in ("forward", "reverse", "both"):
        for lengths in (None, [5, 0, 4, 4, 1, 2, 5, 3, 3, 0, 1, 5, 5]):
            expected = everything(Problem(cell, 5, 13, 6, 70, lengths=lengths, **LAYERS[options]))
            with monkeypatch.context() as small:
                small.setattr(blocking, "SLOT_BYTES", 1)
                small.setattr(blocking, "MOST_SLOT_BYTES", 1)
                made = programs(small)
                assert_same_bits(everything(Problem(cell, 5, 13, 6, 70, lengths=lengths, **LAYERS[options])), expected)
            alone = {bool(share["fused"]) for program in made for share in program.records.shares}
            assert alone == {cell != "gru"}


@every_kind
@every_arithmetic
@pytest.mark.parametrize("options", ["forward", "stacked", "no-bias"])
@pytest.mark.parametrize("B", [1, 5, 26])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_stream_gives_what_a_call_gives(kind: str, arithmetic: dict[str, Any], options: str, B: int, threads: int) -> None:
    gpurnn.set_num_threads(threads)
    p = Problem(kind, 5, B, 13, 70, **arithmetic, **LAYERS[options])
    y, state = p.run()
    stream = p.layer.stream(B, p.state)
    out = np.full_like(y[0], np.nan)
    for t, x_t in enumerate(p.x):
        if t % 2:
            assert stream.step(x_t, out=out) is out
            assert_same_bits(out, y[t])
        else:
            assert_same_bits(stream.step(x_t), y[t])
    assert_same_bits(stream.state, state)
    stream.reset()
    assert not any(np.any(s) for s in leaves(stream.state))


@every_cell
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("B", [1, 13])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streams_share_units(cell: str, far: bool, B: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's two products panel by panel, forth and back; or, of weights too large for that, one after the other."""
    p = Problem(cell, 5, B, 13, 150)
    y, state = p.run()
    monkeypatch.setattr(schedule, "_choose", lambda *_: ("units", "forced"))
    if far:
        monkeypatch.setattr(blocking, "L3_BYTES", 0)
    gpurnn.set_num_threads(threads)
    made = programs(monkeypatch)
    stream = p.layer.stream(B, p.state)
    for x_t, y_t in zip(p.x, y, strict=True):
        assert_same_bits(stream.step(x_t), y_t)
    assert_same_bits(stream.state, state)
    assert {bool(share["fused"]) for program in made for share in program.records.shares} == {not far}


@every_cell
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_with_copies_of_weights(cell: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies are those of the layer after each change."""
    monkeypatch.setattr(schedule, "_choose", lambda *_: ("rows", "forced"))
    p = Problem(cell, 5, 9, 13, 130, num_layers=2)
    made = programs(monkeypatch)
    for _ in range(3):
        p.layer.load_params({name: a / 2 for name, a in p.layer.params.items()})
        gpurnn.set_num_threads(1)
        expected = [p.layer(p.x) for _ in range(2)]
        gpurnn.set_num_threads(threads)
        for wanted in expected:
            assert_same_bits(p.layer(p.x), wanted)
    copies = [bool(copies) for program in made for _, _, copies in program._readers]
    assert sum(copies) >= threads - 1


@every_cell
def test_a_sequence_in_pieces(cell: str) -> None:
    p = Problem(cell, 23, 6, 13, 70, num_layers=2)
    y, state = p.run()
    at: Any = p.state
    for piece in (slice(0, 1), slice(1, 9), slice(9, 9), slice(9, 23)):
        y_piece, at = p.layer(p.x[piece], at)
        assert_same_bits(y_piece, y[piece])
    assert_same_bits(at, state)


@every_cell
def test_a_step_of_a_cell_is_a_step_of_a_layer(cell: str) -> None:
    p = Problem(cell, 1, 7, 13, 70)
    y, _ = p.run()
    arrays = [p.params[name] for name in p.params]
    step = gpurnn.lstm_cell if cell == "lstm" else gpurnn.gru_cell
    h = leaves(step(p.x[0], *(s[0] for s in leaves(p.state)), *arrays))[0]
    assert_same_bits(h, y[0])


@every_kind
@every_dtype
def test_gradients_twice(kind: str, dtype: str) -> None:
    lengths = [(5 * b) % 7 for b in range(29)]
    for ragged in (None, lengths):
        p = Problem(kind, 6, 29, 13, 70, dtype=dtype, lengths=ragged, bidirectional=True)
        assert_same_bits(p.gradients(), p.gradients())


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_ragged_rows_are_shared_out_evenly(threads: int) -> None:
    for lengths in ([9] * 12, [9] * threads, [7, 7, 7, 2, 1, 1], [64, 1, 1, 1, 1, 1, 1, 1]):
        bounds = schedule.cut_by_steps(np.array(lengths), threads)
        steps = [sum(lengths[a:b]) for a, b in itertools.pairwise(bounds)]
        assert sum(steps) == sum(lengths)
        assert max(steps) < sum(lengths) / threads + max(lengths)
        if len(set(lengths)) == 1:
            assert len(set(steps)) == 1


def programs(monkeypatch: pytest.MonkeyPatch) -> list[forward_pass.ForwardProgram]:
    """The programs of forward passes, filled as they are made."""
    made: list[forward_pass.ForwardProgram] = []
    plain: Callable[..., None] = forward_pass.ForwardProgram.__init__

    def spy(self: Any, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(engine.ForwardProgram, "__init__", spy)
    return made


@every_cell
@pytest.mark.parametrize("options", ["forward", "both", "stacked"])
@pytest.mark.parametrize(("B", "H"), [(1, 9), (1, 600), (2, 40), (64, 40), (130, 300), (40, 600)])
def test_a_plan_tells_what_runs(cell: str, options: str, B: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = programs(monkeypatch)
    gpurnn.set_num_threads(2)
    for lengths in (None, [2] + [1] * (B - 1)):
        p = Problem(cell, 2, B, 10, H, lengths=lengths, **LAYERS[options])
        plan = p.layer.plan(p.x, lengths)
        made.clear()
        p.run()
        assert len(plan.layers) == len(made) == p.layer.num_layers
        for line, program in zip(plan.layers, made, strict=True):
            ran = program.plan.schedule
            assert f": {program.plan}" in line
            shares = program.records.shares
            assert ("each step projects its own x" in line) == any(shares["fused"])
            assert ("x projected" in line) == (not all(shares["fused"]))
            ahead = address(table("float32", "float", panel_widths(program.records.spec), transposed=False, prefetch=True))
            prefetched = all(program.records.jobs["tiles"] == ahead)
            assert ("weights prefetched" in line) == prefetched
            assert prefetched or (B, H) != (40, 600)
            assert ("row-major slots" in line) == any(shares["row_major"])
            assert re.search(rf"\b{shares['row_cap'].max()} rows? and", line)
            assert re.search(rf"\b{shares['at_once'].max()} panels? at once", line)
            assert f"{p.layer.cell}_forward, float32" in line
            assert line in str(plan)
            for d, split in enumerate(ran.splits):
                working = {
                    s.thread for s in ran.parts if s.direction == d and s.row_end > s.row_begin and s.panel_end > s.panel_begin
                }
                assert len(working) == (1 if split == "one" else 2)
                words = {"one": "one thread", "rows": "rows split over", "units": "units split over"}
                assert words[split] in line
