"""What a user can get wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(ValueError):  # noqa: N818 - it names whose mistake it is, as in "bad input: ..."
    """A user's value that breaks a rule; the message names field, rule, value and what would do."""


MOST_SHOWN = 12


def unknown(what: str, name: object, known: Iterable[str], *, see: str = "") -> BadInput:
    """Build the error for a name that isn't in a list, with the nearest one that is.

    Args:
        what: What the name stands for, such as ``"model"``.
        name: The name that was given.
        known: The names that would do.
        see: Where they all stand, told in place of more than a dozen.

    Returns:
        The error to raise, ``unknown model 'resent'; did you mean 'resnet'? known: cnn, mlp, resnet``.
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = f"see {see}" if see and len(names) > MOST_SHOWN else f"known: {', '.join(names)}"
    return BadInput(f"unknown {what} {name!r}; {hint}{shown}")
