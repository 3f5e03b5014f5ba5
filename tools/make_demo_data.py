"""Convert the Japanese Vowels recordings to the demo's data file, gpurnn/demo/japanese_vowels.npz.

    python tools/make_demo_data.py SOURCE [TARGET.npz]

SOURCE is the wheel of the PyPI package aeon, an unpacked one, or a folder that holds JapaneseVowels_TRAIN.ts and
JapaneseVowels_TEST.ts.  A line of a .ts file is one utterance: `:` between the channels, `,` between the steps of a
channel, and the speaker (1..9) last.

The result holds, for each split ("train", "test"), the ragged utterances end to end:
    <split>_steps     float32 (S, 12)   the S steps of all utterances, one utterance after the other
    <split>_lengths   uint8   (N,)      steps of each utterance
    <split>_speakers  uint8   (N,)      0..8
"""

import argparse
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

CHANNELS = 12
SPEAKERS = 9
LENGTHS = (7, 29)
UTTERANCES = {"train": 270, "test": 370}
TARGET = Path(__file__).parents[1] / "gpurnn" / "demo" / "japanese_vowels.npz"


def read_text(source: Path, name: str) -> str:
    """The text of the file `name`, out of a wheel or out of a folder."""
    inside = f"aeon/datasets/data/JapaneseVowels/{name}"
    if source.is_file():
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(inside).decode()
    path = next(p for p in (source / name, source / inside) if p.is_file())
    return path.read_text()


def parse(lines: Iterable[str]) -> tuple[list[np.ndarray], list[int]]:
    """Utterances, each (T, 12), and their speakers 0..8, from the lines of a .ts file."""
    utterances, speakers = [], []
    for line in lines:
        if not line.strip() or line.startswith(("#", "@")):
            continue
        *channels, speaker = line.split(":")
        utterances.append(np.array([[float(v) for v in channel.split(",")] for channel in channels]).T)
        speakers.append(int(speaker) - 1)
    return utterances, speakers


def convert(source: Path) -> dict[str, np.ndarray]:
    """The arrays of the data file, checked against the published figures."""
    arrays = {}
    for split, count in UTTERANCES.items():
        utterances, speakers = parse(read_text(source, f"JapaneseVowels_{split.upper()}.ts").splitlines())
        lengths = [len(u) for u in utterances]
        if len(utterances) != count or {u.shape[1] for u in utterances} != {CHANNELS}:
            raise ValueError(f"{split}: expected {count} utterances of {CHANNELS} channels, found {len(utterances)}")
        if min(lengths) < LENGTHS[0] or max(lengths) > LENGTHS[1] or set(speakers) != set(range(SPEAKERS)):
            raise ValueError(f"{split}: lengths {min(lengths)} to {max(lengths)}, speakers {sorted(set(speakers))}")
        arrays[f"{split}_steps"] = np.concatenate(utterances).astype(np.float32)
        arrays[f"{split}_lengths"] = np.array(lengths, np.uint8)
        arrays[f"{split}_speakers"] = np.array(speakers, np.uint8)
        print(f"{split}: {count} utterances, {sum(lengths)} steps, {min(lengths)} to {max(lengths)} each,", end=" ")
        print(f"by speaker {np.bincount(speakers).tolist()}")
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?", default=TARGET)
    args = parser.parse_args()
    np.savez_compressed(args.target, **convert(args.source))
    print(f"{args.target}: {args.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
