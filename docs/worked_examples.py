"""Applies the worked examples of docs/extend/*.md to a tree: `python docs/worked_examples.py PAGE TREE`.

A Python block that begins with ``# new file PATH`` is that file; one with ``# into PATH, before LINE`` goes there. A
diff block names a file in its first line and then changes it, in places parted by ``@@``, each of which is found by its
text, not by its number, so that pages outlive what else happens to a file.
"""

import re
import sys
from pathlib import Path

FENCE = re.compile(r"^```(python|diff|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEW = re.compile(r"# new file (\S+)\n")
INTO = re.compile(r"# into (\S+), before (.+)\n")


def apply(page: str, tree: Path) -> list[str]:
    """Change the tree as the page says.

    Returns:
        The commands that it then tells the reader to run.

    Raises:
        ValueError: A place isn't found exactly once.
    """
    commands = []
    for language, text in FENCE.findall(page):
        if language == "sh":
            commands += [line for line in text.splitlines() if line.strip()]
        elif language == "diff":
            _patch(text, tree)
        elif new := NEW.match(text):
            (tree / new[1]).write_text(text[new.end() :], encoding="utf-8")
        elif into := INTO.match(text):
            _replace(tree / into[1], [into[2]], [*text[into.end() :].rstrip().split("\n"), "", "", into[2]])
    return commands


def _patch(text: str, tree: Path) -> None:
    first, *lines = text.splitlines()
    path = tree / first.removeprefix("--- ")
    for hunk in "\n".join(lines).split("\n@@\n"):
        kept = hunk.split("\n")
        _replace(path, [line[1:] for line in kept if line[:1] != "+"], [line[1:] for line in kept if line[:1] != "-"])


def _replace(path: Path, before: list[str], after: list[str]) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    places = [i for i in range(len(lines)) if lines[i : i + len(before)] == before]
    if len(places) != 1:
        raise ValueError(f"{path}: found {len(places)} times instead of once: {before}")
    lines[places[0] : places[0] + len(before)] = after
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    name, place = sys.argv[1:]
    print("\n".join(apply(Path(name).read_text(encoding="utf-8"), Path(place))))
