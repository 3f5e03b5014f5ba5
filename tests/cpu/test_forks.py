"""Children return that were forked while other threads of the parent were at work, whatever these held."""

import os

import pytest
from helpers import python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run(program: str) -> str:
    return python(f"from programs import forks; forks.{program}")


@pytest.mark.parametrize("others", ["a_layer_is_made", "others_compile", "a_file_is_read"])
def test_fork_while(others: str) -> None:
    run(f"while_{others}()")


@pytest.mark.parametrize("after", [0.0, 0.01, 0.4, 1.0])
def test_fork_during_the_first_call(after: float) -> None:
    run(f"while_others_call_first({after})")


@pytest.mark.parametrize("shared", ["units", "rows"])
def test_a_handler_forks_during_a_call(shared: str) -> None:
    run(f"in_a_handler({shared!r})")
