"""No call reads or writes beyond its arrays: random layers on arrays between pages without access, against the reference.

`python -m bench soak --fuzz N` runs as many as one likes, without the reference.
"""

import os

import pytest
from helpers import python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs mprotect")


@pytest.mark.parametrize("first", [0, 100, 200])
def test_random_layers(first: int) -> None:
    python(f"from programs import guards; guards.run({first}, 100)", timeout=500)
