"""The bench compares like with like: all implementations answer as float64 does, within their precision's error."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TESTS

sys.path.append(str(TESTS.parent))  # last: gpurnn is what is installed
from bench.__main__ import grid_of, main, parser
from bench.harness import cases, models
from bench.harness.answers import check_output
from bench.harness.cases import Case, Grid
from bench.harness.compare import Report, read_rows
from bench.harness.contest import Entry, Settings, Taken, contest
from bench.harness.data import all_weights, sequence, stack
from bench.harness.errors import BenchError, Missing, Unsupported
from bench.harness.rows import rows_of
from bench.harness.timing import Sample
from bench.harness.worker import CHECKED_STEPS
from bench.peers import load
from bench.reports.precision import markdown

EVERY = cases.implementations(cases.PEERS, cases.PRECISIONS)
SMALL = {
    "lstm": Case("lstm", 24, 5, 12, 10, 1),
    "gru": Case("gru", 24, 5, 12, 10, 1),
    "gru-after": Case("gru-after", 24, 1, 12, 10, 1, layers=2, directions=2),
    "two-ways": Case("lstm", 24, 3, 12, 10, 1, layers=3, directions=2),
    "in-turn": Case("lstm", 24, 3, 12, 24, 1, layers=3, in_turn=True),
    "ragged": Case("lstm", 24, 6, 12, 10, 1, layers=2, directions=2, ragged=True),
    "ragged-gru": Case("gru-after", 24, 6, 12, 10, 1, layers=2, ragged=True),
    "stream": Case("lstm", 24, 1, 12, 10, 1, layers=2, stream=True),
    "stream-gru": Case("gru-after", 24, 2, 12, 10, 1, layers=3, stream=True),
}
ABSENT = {"torch": ("gru",), "onnxruntime-int8": ("gru", "gru-after")}  # cells that an implementation has not


def installed(name: str) -> Any:
    try:
        return load(name)
    except Missing as missing:
        pytest.skip(str(missing))


def answer(name: str, case: Case) -> Any:
    """An implementation's outputs (T, B, D*H)."""
    precision = cases.precision_of(name)
    peer = installed(name.removesuffix(f"-{precision}"))
    x, weights = sequence(case), all_weights(case)
    if case.stream:
        step = peer.build_step(case, weights, precision)
        return stack(step(x_t) for x_t in x)
    return peer.build(case, weights, precision)(x)


def expected(case: Case) -> Any:
    return installed("numpy").reference(case, all_weights(case), sequence(case), range(case.batch))


@pytest.mark.parametrize("which", SMALL)
@pytest.mark.parametrize("name", EVERY)
def test_all_answer_alike(name: str, which: str) -> None:
    case = SMALL[which]
    absent = [cell for start, cells in ABSENT.items() if name.startswith(start) for cell in cells]
    if case.cell in absent:
        with pytest.raises(Unsupported):
            answer(name, case)
    else:
        check_output(name, answer(name, case), expected(case), cases.precision_of(name))


@pytest.mark.parametrize("precision", cases.PRECISIONS)
def test_wrong_answers_are_refused(precision: str) -> None:
    case = SMALL["two-ways"]
    y = expected(case)
    check_output("right", y, y, precision)
    one_row, not_a_number, backward = y.copy(), y.copy(), y[::-1]
    one_row[:, -1] = 0
    not_a_number[3, 1, 2] = np.nan
    for wrong in (one_row, not_a_number, backward, y[:-1]):
        with pytest.raises(BenchError, match=r"wrong answer|shape"):
            check_output("wrong", wrong, y, precision)


class Team:
    """A team whose answers are given, and whose samples take a millisecond each."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.names, self.answers, self.kinds = list(answers), answers, set[str]()

    def build(self, name: str, kind: str, case: Case) -> Any:
        self.kinds.add(kind)
        if self.answers[name] is None:
            raise Unsupported("no such layer")
        return self.answers[name]

    def sample(self, name: str, kind: str, budget: float, retries: int) -> Sample:
        return Sample(1e-3, 1e-3, 1, 1.0)

    def reference(self, command: str, case: Case, rows: list[int]) -> Any:
        return expected(case)[:, rows]


def test_errors_are_found_and_wrong_answers_left_out() -> None:
    case = replace(SMALL["stream"], seq=CHECKED_STEPS)
    y = expected(case)
    off = np.float32(0.05) * np.abs(y).mean()
    answers = {"gpurnn": y, "gpurnn-int8": y + off, "torch-bf16": y + off, "torch-int8": None, "openvino": y + off}
    team, errors = Team(answers), list[str]()
    entries = [Entry(name, name, "infer") for name in answers]
    found = contest(case, entries, team, Settings(2, 0.1, 0), errors.append)  # type: ignore[arg-type]
    assert {name: (len(one.samples), one.rms) for name, one in found.items()} == {
        "gpurnn": (2, 0),
        "gpurnn-int8": (2, pytest.approx(off, rel=1e-4)),
    }
    assert team.kinds == {"step"}
    assert [error.split(": ")[1] for error in errors] == ["torch-bf16", "openvino"]


def test_precisions_join_when_asked_for() -> None:
    assert cases.implementations(["torch", "numpy"], ["float32"]) == ["gpurnn", "torch", "numpy"]
    found = cases.implementations(["onnxruntime", "openvino"], ["int8"])
    assert found == ["gpurnn", "gpurnn-int8", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-bf16"]


def test_work_of_all_layers_counts() -> None:
    one = Case("lstm", 16, 3, 5, 8, 1)
    assert (one.flops, one.recurrent_bytes, one.units) == (2 * 5 * 3 * 4 * 16 * (8 + 16), 4 * 4 * 16 * 16, 5 * 3 * 16)
    two = replace(one, layers=2, directions=2)
    assert two.flops == 2 * (one.flops + 2 * 5 * 3 * 4 * 16 * (32 + 16))
    assert (two.stream_bytes, two.units) == (4 * 4 * 16 * 2 * (8 + 32 + 2 * 16), 4 * one.units)
    ragged = replace(one, ragged=True)
    assert max(ragged.lengths) == 5
    assert ragged.units == 16 * sum(ragged.lengths) < one.units


def test_models_have_names_and_sizes_of_their_own() -> None:
    found = [case for grid in models.GRIDS for case in models.model_cases(grid, None, [1, 2])]
    assert len({str(case) for case in found}) == len(found)
    assert {case.model for case in models.model_cases("models", ["lstm-1024"], [1])} == {"lstm-1024"}
    with pytest.raises(BenchError, match="has none of lstm-1024"):
        models.model_cases("models-large", ["lstm-1024"], [1])


def taken(ms: float, rms: float) -> Taken:
    return Taken([Sample(ms / 1e3, ms / 1e3, 1, 1.0)], rms)


def measured(case: Case, times: dict[str, float]) -> list[Any]:
    return rows_of(case, {name: taken(ms, 1e-4) for name, ms in times.items()}, case.flops, None)


TIMES = {"gpurnn": 4.0, "gpurnn-int8": 1.0, "torch": 6.0, "torch-int8": 3.0, "onnxruntime-int8": 2.0, "numpy": 0.1}


def test_a_precision_is_compared_with_its_like() -> None:
    rows = {row.implementation: row for row in measured(SMALL["lstm"], TIMES)}
    assert (rows["gpurnn"].best_peer, rows["gpurnn"].ratio) == ("torch", 1.5)
    assert (rows["gpurnn-int8"].best_peer, rows["gpurnn-int8"].ratio) == ("onnxruntime-int8", 2.0)
    assert [row.case for row in rows.values()] == [SMALL["lstm"]] * len(TIMES)


def report(path: Path, chosen: Sequence[Case]) -> None:
    found = Report("infer", "models", Settings(1, 0.1, 0), machine={"cpu": "a CPU", "cpus": 2, "date": "2026-01-01 12:00"})
    for case in chosen:
        found.rows += measured(case, TIMES)
    found.write(path)


def test_tables_and_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = models.model_cases("models", ["lstm-40-256x3"], [1, 2])
    report(tmp_path / "rows.json", model)
    rows, machine = read_rows(tmp_path / "rows.json")
    assert [row.case for row in rows[:: len(TIMES)]] == model
    text = markdown(rows, machine)
    line = "| lstm-40-256x3 B=8 T=160 | 4.00 | 6.00 torch | 1.00 | 3.00 | **2.00** | 4.00 | 2.00 | 2.00 |"
    assert text.count(line) == 2
    assert "| lstm-40-256x3 B=8 T=160 | 1.0e-04 | 1.0e-04 | 1.0e-04 | 1.0e-04 |" in text
    for command in ("table", "plot"):
        assert main([command, str(tmp_path / "rows.json"), str(tmp_path / f"{command}.png")]) == 0
    assert (tmp_path / "table.png").read_text() == text
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_older_results_are_read() -> None:
    """Their rows have no layers, and nothing in a reduced precision."""
    rows, machine = read_rows(TESTS.parent / "bench" / "results" / "infer-full.json")
    assert rows[0].case in Grid(cases.CELLS, (32,), (1,), (None,), (1, 2)).cases()
    with pytest.raises(BenchError, match="no row in a reduced precision"):
        markdown(rows, machine)


def test_axes_narrow_a_grid_of_models() -> None:
    given = "infer --grid models --only bilstm-256x2 lstm-1024 --batch 1 --seq 64 --threads 2"
    name, found = grid_of(parser().parse_args(given.split()))
    assert name == "custom"
    assert [(case.model, case.batch, case.seq, case.threads) for case in found] == [
        ("bilstm-256x2", 1, 64, 2),
        ("lstm-1024", 1, 64, 2),
    ]
