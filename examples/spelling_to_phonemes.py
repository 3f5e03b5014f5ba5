"""Spelling to phonemes: the GRU encoder and decoder of g2p-en over 2,000 English words.

The weights are a file of the PyPI package g2p-en, read as arrays (importing g2p_en would download corpora). Its own code runs
one word at a time, one letter at a time, in NumPy; so does `loop` here. gpurnn runs the encoder over all words at once, in one
call with lengths, and the decoder one step a phoneme for all words that are not done. The phonemes must be the same.

    pip install 'gpurnn[examples]'
    python examples/spelling_to_phonemes.py
"""

import re
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import gpurnn

WORDS, LONGEST, UNITS = 2000, 20, 256
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
START, END = 2, 3
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (*"BDFGKLMNPRSTVWYZ", "CH", "DH", "HH", "JH", "NG", "SH", "TH", "ZH")
# some vowels stand without a stress besides
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([f"{v}{s}" for v in VOWELS for s in "012"] + [*CONSONANTS, "UW"])]


def file_of(package, *parts):
    return Path(find_spec(package).submodule_search_locations[0], *parts)


def word_list():
    """Takes words evenly from EFF's list in the package xkcdpass."""
    words = sorted(set(re.findall(r"(?m)^[a-z]+$", file_of("xkcdpass", "static", "eff-long").read_text())))
    return words[:: len(words) // WORDS][:WORDS]


def loop(weights, words):
    """Runs g2p-en's own steps in NumPy: a word at a time, a letter at a time."""

    def cell(x, h, part):
        gates_x = x @ weights[f"{part}_w_ih"].T + weights[f"{part}_b_ih"]
        gates_h = h @ weights[f"{part}_w_hh"].T + weights[f"{part}_b_hh"]
        r, z = np.split(1 / (1 + np.exp(-(gates_x[: 2 * UNITS] + gates_h[: 2 * UNITS]))), 2)
        n = np.tanh(gates_x[2 * UNITS :] + r * gates_h[2 * UNITS :])
        return (1 - z) * n + z * h

    found = []
    for word in words:
        h = np.zeros(UNITS, np.float32)
        for index in spelled(word):
            h = cell(weights["enc_emb"][index], h, "enc")
        phonemes, last = [], START
        while len(phonemes) < LONGEST:
            h = cell(weights["dec_emb"][last], h, "dec")
            last = int((weights["fc_w"] @ h + weights["fc_b"]).argmax())
            if last == END:
                break
            phonemes.append(last)
        found.append(phonemes)
    return found


def spelled(word):
    return [LETTERS.index(letter) for letter in word] + [LETTERS.index("</s>")]


def gru(weights, part):
    """Reads the GRU of one half, whose weights have PyTorch's names and order."""
    state = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
    return gpurnn.from_torch({name: weights[f"{part}_{ours}"] for name, ours in state.items()})


def batched(weights, encoder, decoder, words):
    """Runs the encoder over all words at once, and the decoder step by step."""
    indices = [spelled(word) for word in words]
    lengths = np.array([len(one) for one in indices])
    padded = np.zeros((lengths.max(), len(words)), int)
    for row, one in enumerate(indices):
        padded[: len(one), row] = one
    _, h = encoder(weights["enc_emb"][padded], lengths=lengths)  # (T, B, 256)

    found = [[] for _ in words]
    rows, last = np.arange(len(words)), np.full(len(words), START)
    for _ in range(LONGEST):
        y, h = decoder(weights["dec_emb"][last][None], h)  # one step: (1, B, 256)
        last = (y[0] @ weights["fc_w"].T + weights["fc_b"]).argmax(axis=1)
        going = last != END
        rows, last, h = rows[going], last[going], h[:, going]
        for row, phoneme in zip(rows, last, strict=True):
            found[row].append(int(phoneme))
    return found


def timed(run):
    """Gives the shortest of three times, and the result."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - begin)
    return min(times), result


def main():
    with np.load(file_of("g2p_en", "checkpoint20.npz"), allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files}
    words = word_list()
    encoder, decoder = gru(weights, "enc"), gru(weights, "dec")
    time_ours, ours = timed(lambda: batched(weights, encoder, decoder, words))
    time_theirs, theirs = timed(lambda: loop(weights, words))

    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    for word, phonemes in list(zip(words, ours, strict=True))[:: len(words) // 8]:
        print(f"{word:>16}  {' '.join(PHONEMES[one] for one in phonemes)}")
    print(f"\nthe same phonemes for {same} of {len(words)} words")
    print(f"{'':28}{'seconds':>8}{'words a second':>16}")
    for name, seconds in (("NumPy, letter by letter", time_theirs), ("gpurnn, all words at once", time_ours)):
        print(f"{name:28}{seconds:>8.3f}{len(words) / seconds:>16,.0f}")
    print(f"{time_theirs / time_ours:.1f} times as fast")
    assert same == len(words)


if __name__ == "__main__":
    main()
