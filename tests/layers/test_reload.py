"""The library imported anew, as notebooks and servers that reload code do, beside layers of the import before."""

from helpers import python

USE = """
import importlib, sys
import numpy as np, gpurnn

layer, x = gpurnn.GRU(3, 4, seed=0), np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
y, h = layer(x, np.zeros((1, 2, 4), "f4"), [5, 5])
stream = layer.stream(2)
names = [name for name in sys.modules if name.partition(".")[0] in ("gpurnn", "gpurnn_kernels")]
CHANGE
for one in (layer, gpurnn.GRU(3, 4, seed=0)):
    for stepping in (one.stream(2, 0 * h), one.stream(2), stream):
        assert np.array_equal(np.stack([stepping.step(x_t) for x_t in x]), y)
        stepping.reset()
    (again, last), vjp = one.vjp(x, 0 * h, [5, 5])
    vjp(y, h)
    assert np.array_equal(again, y) and np.array_equal(one(x)[0], y) and np.array_equal(one(x)[0], y)
print("ok")
"""


def test_layers_from_before_an_import_anew() -> None:
    anew = "for name in names: del sys.modules[name]\nimport gpurnn"
    assert python(USE.replace("CHANGE", anew)) == "ok\n"


def test_layers_from_before_modules_were_reloaded() -> None:
    reload = "for name in names: importlib.reload(sys.modules[name])"
    assert python(USE.replace("CHANGE", reload)) == "ok\n"
