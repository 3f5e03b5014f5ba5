"""`gpurnn demo`: who is speaking?"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import Commands, command

if TYPE_CHECKING:
    from rich.console import Console

    from ..demo.model import Classifier


def add(commands: Commands) -> None:
    parser = command(commands, run, "demo", "tell nine speakers apart by real recordings")
    parser.add_argument("--train", action="store_true", help="train the classifier from scratch first")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the training (default: 0)")
    parser.add_argument("--weights", type=Path, metavar="FILE.safetensors", help="take the classifier from here")
    parser.add_argument("--save", type=Path, metavar="FILE.safetensors", help="keep the classifier here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw an utterance and its hidden states")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..demo import data, model, show

    if args.train and args.weights is not None:
        raise ValueError("--train starts from scratch: it takes no --weights")
    if args.plot is not None:
        show.need_matplotlib()
    console = Console()
    classifier = _trained(console, args.seed) if args.train else model.load(args.weights)
    if args.save is not None:
        classifier.save(args.save)
        show.line(console, f"saved: {args.save}")
    test = data.load("test")
    if args.plot is not None:
        from ..demo.plot import draw

        draw(classifier, test, args.plot)
        show.line(console, f"drawn: {args.plot}")
    show.report(console, classifier, test)


def _trained(console: "Console", seed: int) -> "Classifier":
    from ..demo import data, show
    from ..demo.train import Recipe, train
    from .progress import progress

    utterances, recipe = data.load("train"), Recipe(seed=seed)
    begin = time.perf_counter()
    with progress("epochs") as update:
        update(0, recipe.epochs, "")
        classifier = train(utterances, recipe, lambda epoch, loss: update(epoch + 1, recipe.epochs, f"loss {loss:.4f}"))
    seconds = time.perf_counter() - begin
    show.line(console, f"trained on {len(utterances)} utterances, {recipe.epochs} epochs, seed {seed}, in {seconds:.1f} s")
    return classifier
