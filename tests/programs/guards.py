"""Random layers on arrays between guard pages, for `python("from programs import guards; guards.run(0, 100)")`."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import reference
from helpers import GRADIENTS, OUTPUTS, TESTS, assert_gradients_near, assert_near
from reference import packed, parts

import gpurnn

sys.path.append(str(TESTS.parent))  # last: gpurnn is what is installed
from bench.soak.guarded import Guards
from bench.soak.problems import Problem


def run(first: int, count: int) -> None:
    """Seeds are printed before their problems run, so that a crash is known by the last one."""
    from gpurnn_kernels.cpu.threads import partition as schedule

    schedule._LEAST_CALL = 0.0
    for seed in range(first, first + count):
        problem, guards = Problem(seed), Guards(np.random.default_rng(seed))
        print(f"seed {seed}: {problem}", flush=True)
        with gpurnn.threads(problem.threads), guards.allocations():
            layer = problem.layer()
            found = {kind: problem.run(kind, layer, guards) for kind in problem.kinds}
        assert guards.difference() is None, guards.difference()
        if "precision" not in problem.options:
            check(problem, layer.params, found)


def check(problem: Problem, params: Mapping[str, Any], found: dict[str, list[Any]]) -> None:
    """Raises AssertionError unless results are near the reference's."""
    names = ("proj_size", "peepholes", "clip", "input_forget", "bidirectional", "reverse")
    options = {name: problem.options[name] for name in names if name in problem.options} | {"num_layers": problem.sizes[2]}
    cell = "lstm" if problem.kind == "LSTM" else "gru_after" if problem.options["reset_after"] else "gru"
    dtype = problem.options["dtype"]
    state, dstate = (None if given is None else packed(given) for given in (problem.state, problem.dstate))
    given = (state, problem.lengths)

    def as_found(x: Any, state: Any) -> list[Any]:
        """(T, B, n) and a state, as the layer gives them."""
        return [problem.laid_out(x), *(part[:, 0] if problem.unbatched else part for part in parts(state))]

    def forward(*given: Any) -> Any:
        return reference.forward(cell, params, problem.x, *given, **options)

    expected = as_found(*forward(*given))
    assert_near(tuple(found["call"]), tuple(expected), OUTPUTS[dtype])
    if problem.lengths is None:
        assert_near(tuple(found["plain"]), tuple(as_found(*forward(None, None))), OUTPUTS[dtype])
    if "steps" in found and problem.lengths is None:
        assert_near(tuple(found["steps"]), (*forward(*given)[0], *parts(forward(*given)[1])), OUTPUTS[dtype])
    if "clip" not in options:  # at a clip, gradients jump
        grads = reference.gradients(cell, params, problem.x, problem.dy, dstate, *given, **options)
        wanted = [*as_found(grads.x, grads.state), *grads.params.values()]
        pairs = enumerate(zip(found["gradients"][len(expected) :], wanted, strict=True))
        numbered = {str(index): pair for index, pair in pairs}
        got, want = ({name: pair[k] for name, pair in numbered.items()} for k in (0, 1))
        assert_gradients_near(got, want, GRADIENTS[dtype])
