"""The recurrent layers that a model file holds, and the choice of one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar


class Found(NamedTuple):
    """A recurrent layer in another framework's model. Sizes are None where the file does not tell."""

    name: str
    kind: str  # as the source calls it: "LSTM", "GRU", "CuDNNLSTM"
    input_size: int | None
    hidden_size: int | None
    num_layers: int = 1
    directions: int = 1
    note: str = ""

    def __str__(self) -> str:
        unknown = "?"
        sizes = f"{unknown if self.input_size is None else self.input_size} -> "
        sizes += f"{unknown if self.hidden_size is None else self.hidden_size}"
        words = [f"{self.kind} {sizes}"]
        if self.num_layers > 1:
            words.append(f"{self.num_layers} layers")
        if self.directions > 1:
            words.append("bidirectional")
        if self.note:
            words.append(self.note)
        return f"{self.name!r} ({', '.join(words)})"


T = TypeVar("T")


def choose(
    candidates: Sequence[T], wanted: str | None, names: Callable[[T], Sequence[str]], describe: Callable[[T], Found], ask: str
) -> T:
    """Gives the one candidate of that name, or the only one there is; ValueError lists them otherwise.

    `ask` is how a caller would name one: "node=...".
    """
    if not candidates:
        raise ValueError("no LSTM or GRU in it")
    listed = "; ".join(str(describe(one)) for one in candidates[:20])
    if len(candidates) > 20:
        listed += f"; and {len(candidates) - 20} more"
    if wanted is None:
        if len(candidates) > 1:
            raise ValueError(f"{len(candidates)} recurrent layers; choose one by {ask}: {listed}")
        return candidates[0]
    matches = [one for one in candidates if wanted in names(one)]
    # a layer's own name goes before a part of another's
    exact = [one for one in matches if names(one)[0] == wanted]
    matches = exact or matches
    if len(matches) != 1:
        raise ValueError(f"{'several' if matches else 'no'} recurrent layers are named {wanted!r}; there are: {listed}")
    return matches[0]


@contextmanager
def named(file: Any) -> Iterator[None]:
    """Makes errors that come from a model begin with the file's name."""
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        message = str(error)
        if message.startswith(str(file)):
            raise
        kind = next(kind for kind in (NotImplementedError, TypeError, ValueError) if isinstance(error, kind))
        raise kind(f"{file}: {message}") from None
