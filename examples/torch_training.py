"""A PyTorch training loop before and after one line: `gpurnn.interop.torch.replace(model)`.

The task is to remember: one of eight symbols is shown, noise follows, and at the end the symbol is asked for. The same model
from the same start, on the same batches, is trained with PyTorch's own LSTM and with gpurnn's kernels under it; the losses
go together.

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
    """Noise (B, T, 8) in which a symbol lights up somewhere in the first third, and which it was (B,)."""
    x = 0.05 * torch.randn(BATCH, LENGTH, SYMBOLS, generator=generator)
    symbols = torch.randint(SYMBOLS, (BATCH,), generator=generator)
    x[torch.arange(BATCH), torch.randint(LENGTH // 3, (BATCH,), generator=generator), symbols] += 1
    return x, symbols


def train(model, steps):
    """The loss at each step, and seconds a step."""
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
    torch.manual_seed(0)
    before = Memory()
    torch.manual_seed(0)
    after = replace(Memory())  # the one line

    theirs, time_theirs = train(before, steps)
    # PyTorch's own threads would spin on the cores that gpurnn's now work on
    torch.set_num_threads(1)
    ours, time_ours = train(after, steps)

    print(f"{'step':>6}{'PyTorch':>12}{'gpurnn':>12}   cross-entropy")
    window = max(1, steps // 10)
    for first in range(0, steps - window + 1, window):
        means = [sum(losses[first : first + window]) / window for losses in (theirs, ours)]
        print(f"{first:>6}{means[0]:>12.5f}{means[1]:>12.5f}   {'#' * round(25 * min(means[1], 3))}")
    first = max(abs(a - b) for a, b in zip(theirs[:20], ours[:20], strict=True))
    print(f"\nlargest difference in the first 20 steps: {first:.1e}")
    print(f"a step, forward, backward and optimizer: PyTorch {1e3 * time_theirs:.1f} ms, gpurnn {1e3 * time_ours:.1f} ms")
    assert first < 1e-3


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
