"""Against PyTorch's layers, outputs and gradients, in float32 and float64."""

from typing import Any

import numpy as np
import pytest
from helpers import LAYERS, OUTPUTS, Problem, assert_gradients_near, assert_near
from reference import packed, parts
from test_reference import from_torch, to_torch, torch_names

torch = pytest.importorskip("torch")


def module_of(p: Problem, dtype: str) -> Any:
    """PyTorch's layer with a problem's parameters; its second bias is zero, but for the GRU's n."""
    make = torch.nn.LSTM if p.cell == "lstm" else torch.nn.GRU
    options = {"batch_first": p.batch_first, "bias": p.layer.bias, **p.options}
    module = make(*p.sizes, dtype=getattr(torch, dtype), **options)
    theirs = dict(module.named_parameters())
    with torch.no_grad():
        for target in theirs.values():
            target.zero_()
        for name, value in p.params.items():
            target = theirs[torch_names(name)[0]]
            if name.endswith("b_hn"):
                target[2 * len(value) :] = torch.tensor(value)
            else:
                target.copy_(torch.tensor(value if name.endswith("W_p") else to_torch(p.cell, value)))
    return module


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.parametrize("kind", ["lstm", "gru_after", "proj_size"])
@pytest.mark.parametrize("options", ["forward", "both", "stacked", "stacked-both", "no-bias", "batch-first-both"])
@pytest.mark.parametrize("lengths", [None, [2, 9, 1, 4]], ids=["full", "ragged"])
def test_layers(kind: str, dtype: str, options: str, lengths: list[int] | None) -> None:
    wide = {"proj_size": 17} if kind == "proj_size" else {}
    p = Problem(kind, 9, 4, 11, 35, dtype=dtype, lengths=lengths, **LAYERS[options], **wide)
    lstm = p.cell == "lstm"
    module = module_of(p, dtype)
    x = torch.tensor(p.laid_out(np.nan_to_num(p.x)), requires_grad=True)
    first = [torch.tensor(s, requires_grad=True) for s in parts(p.state)]
    if lengths is None:
        y, last = module(x, packed(first))
    else:
        utilities = torch.nn.utils.rnn
        ragged = utilities.pack_padded_sequence(x, lengths, batch_first=p.batch_first, enforce_sorted=False)
        y, last = module(ragged, packed(first))
        y, _ = utilities.pad_packed_sequence(y, batch_first=p.batch_first, total_length=9)
    ends = zip(last if lstm else [last], parts(p.dstate), strict=True)
    loss = (y * torch.tensor(p.laid_out(np.nan_to_num(p.dy)))).sum() + sum((s * torch.tensor(d)).sum() for s, d in ends)
    loss.backward()

    last = packed([s.detach().numpy() for s in (last if lstm else [last])])
    assert_near(p.run(), (p.laid_out(y.detach().numpy()), last), 2 * OUTPUTS[dtype])
    theirs = dict(module.named_parameters())
    expected = {"x": p.laid_out(x.grad.numpy()), "h_0": first[0].grad.numpy()}
    if lstm:
        expected["c_0"] = first[1].grad.numpy()
    for name, value in p.params.items():
        grad = theirs[torch_names(name)[0]].grad.numpy()
        if name.endswith("b_hn"):
            expected[name] = grad[2 * len(value) :]
        else:
            expected[name] = grad if name.endswith("W_p") else from_torch(p.cell, grad)
    assert_gradients_near(p.gradients(), expected, {"float32": 1e-4, "float64": 1e-11}[dtype])
