"""`gpurnn demo`: who is speaking?"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .console import say
from .parser import Commands, at_least, check_output, command

if TYPE_CHECKING:
    from ..demo.model import Classifier


def add(commands: Commands) -> None:
    parser = command(commands, run, "demo", "tell nine speakers apart by real recordings")
    parser.add_argument("--train", action="store_true", help="train the classifier from scratch first")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the training (default: 0)")
    parser.add_argument("--weights", type=Path, metavar="FILE.safetensors", help="take the classifier from here")
    parser.add_argument("--save", type=Path, metavar="FILE.safetensors", help="keep the classifier here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw an utterance and its hidden states")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..demo import data, model, show

    if args.train and args.weights is not None:
        raise ValueError("--train starts from scratch: it takes no --weights")
    if args.save is not None:
        check_output(args.save, args.weights)
    if args.plot is not None:
        show.need_matplotlib()
    console = Console()
    classifier = _trained(args.seed) if args.train else model.load(args.weights)
    if args.save is not None:
        classifier.save(args.save)
        say(f"saved: {args.save}")
    test = data.load("test")
    if args.plot is not None:
        from ..demo.plot import draw

        draw(classifier, test, args.plot)
        say(f"drawn: {args.plot}")
    show.report(console, classifier, test)


def _trained(seed: int) -> "Classifier":
    from ..demo import data
    from ..demo.train import Recipe, train
    from .progress import progress

    utterances, recipe = data.load("train"), Recipe(seed=seed)
    begin = time.perf_counter()
    with progress("epochs") as update:
        update(0, recipe.epochs, "")
        classifier = train(utterances, recipe, lambda epoch, loss: update(epoch + 1, recipe.epochs, f"loss {loss:.4f}"))
    seconds = time.perf_counter() - begin
    say(f"trained on {len(utterances)} utterances, {recipe.epochs} epochs, seed {seed}, in {seconds:.1f} s")
    return classifier
