"""A PyTorch training loop before and after one line: `gpurnn.interop.torch.replace(model)`.

The task is to remember: one of eight symbols is shown, noise follows, and at the end the symbol is asked for. The same model
from the same start, on the same batches, is trained with PyTorch's own LSTM and with gpurnn's kernels under it.

Gradients differ by rounding alone, a few millionths of them. The losses go together for the first 20 steps and part from step
30 on: what is found out in between multiplies any difference by ten every few steps, in float64 too. A third run shows it:
PyTorch parts from itself when its recurrent weights are moved by one rounding at the start. All three learn the task.

    pip install 'gpurnn[examples]'
    python examples/torch_training.py [STEPS]
"""

import sys
import time

import torch

from gpurnn.interop.torch import replace

SYMBOLS, LENGTH, BATCH, UNITS = 8, 30, 64, 128


class Memory(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(SYMBOLS, UNITS, batch_first=True)
        self.answer = torch.nn.Linear(UNITS, SYMBOLS)
        with torch.no_grad():
            self.lstm.bias_ih_l0[UNITS : 2 * UNITS] = 2  # begin by remembering

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.answer(h[-1])


def batch(generator):
    """Makes noise (B, T, 8) in which a symbol lights up somewhere in the first third, and the symbols (B,)."""
    x = 0.05 * torch.randn(BATCH, LENGTH, SYMBOLS, generator=generator)
    symbols = torch.randint(SYMBOLS, (BATCH,), generator=generator)
    x[torch.arange(BATCH), torch.randint(LENGTH // 3, (BATCH,), generator=generator), symbols] += 1
    return x, symbols


def start(nudge=0.0):
    """Makes the model as it is before training, its recurrent weights moved by a part of themselves."""
    torch.manual_seed(0)
    model = Memory()
    with torch.no_grad():
        model.lstm.weight_hh_l0 *= 1 + nudge
    return model


def gradients(model, x, wanted):
    """Gives the gradients of all parameters in one vector."""
    loss = torch.nn.functional.cross_entropy(model(x), wanted)
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))])


def train(model, steps):
    """Trains, and gives the loss at each step and the seconds a step."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, seconds = [], []
    for _ in range(steps):
        x, wanted = batch(generator)
        begin = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
    return losses, sorted(seconds)[steps // 2]


def main(steps=300):
    theirs, time_theirs = train(start(), steps)
    # PyTorch's own threads would spin on the cores that gpurnn's now work on
    torch.set_num_threads(1)
    moved, _ = train(start(nudge=torch.finfo().eps), steps)
    trained = replace(start())  # the one line
    ours, time_ours = train(trained, steps)

    print(f"{'step':>6}{'PyTorch':>12}{'moved':>12}{'gpurnn':>12}   cross-entropy")
    window = max(1, steps // 10)
    for first in range(0, steps - window + 1, window):
        means = [sum(losses[first : first + window]) / window for losses in (theirs, moved, ours)]
        print(f"{first:>6}{means[0]:>12.5f}{means[1]:>12.5f}{means[2]:>12.5f}   {'#' * round(25 * min(means[2], 3))}")
    apart = [max(abs(a - b) for a, b in zip(theirs[:20], losses[:20], strict=True)) for losses in (moved, ours)]
    print(f"\nlargest difference from PyTorch in the first 20 steps: moved {apart[0]:.1e}, gpurnn {apart[1]:.1e}")
    plain = Memory()
    plain.load_state_dict(trained.state_dict())
    example = batch(torch.Generator().manual_seed(2))
    expected = gradients(plain, *example)
    error = ((gradients(trained, *example) - expected).norm() / expected.norm()).item()
    print(f"gradients of the trained model, relative difference: {error:.1e}")
    print(f"a step, forward, backward and optimizer: PyTorch {1e3 * time_theirs:.1f} ms, gpurnn {1e3 * time_ours:.1f} ms")
    assert apart[1] < 1e-4
    assert error < 1e-4


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
