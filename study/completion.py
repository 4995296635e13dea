"""Completion scripts for bash, zsh and fish, made from the command's own parsers.

They stand alone: what a word may be is written into them, and studies are looked for by the shell, for starting Python
on every Tab would take seconds.
"""

import argparse
import re
from dataclasses import dataclass
from importlib import resources

import results
import search_spaces
from study.manual import PAGES
from twophase.chaos import INDICATORS
from twophase.config import LEAVES
from twophase.relative import RELATIVE_INDICATORS

SHELLS = ("bash", "fish", "zsh")
KINDS = {
    "AXIS": "axis",
    "DIR": "folder",
    "INDICATOR": "indicator",
    "KEY=VALUE": "key",
    "NAME": "preset",
    "SHELL": "shell",
    "SPACE": "space",
    "STUDY": "study",
}
"""What stands for an argument in its usage -> what it may be; all else is free text."""


@dataclass(frozen=True)
class Argument:
    """An option or a place of a command.

    Attributes:
        flag: Its long name, empty for a place.
        kind: What its value may be: one of `KINDS`, ``text``, or ``none`` for an option without a value.
        doc: What it is.
    """

    flag: str
    kind: str
    doc: str


Commands = dict[str, list[Argument]]


def command_parsers(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Command -> its parser, in order."""
    (known,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return dict(known.choices)


def arguments_of(parser: argparse.ArgumentParser) -> list[Argument]:
    """Options and places of a command, in order."""
    found = []
    for action in parser._actions:
        flag = action.option_strings[-1] if action.option_strings else ""
        shown = action.metavar if isinstance(action.metavar, str) else ""
        kind = "none" if action.nargs == 0 else KINDS.get(shown, "text")
        found.append(Argument(flag, kind, (action.help or "").partition(";")[0]))
    return found


def words() -> dict[str, list[str]]:
    """Kind -> the words that it may be, where they are known beforehand."""
    presets = search_spaces.preset_names()
    return {
        "axis": [*LEAVES, "magnitude"],
        "indicator": [*INDICATORS, *RELATIVE_INDICATORS, "kernel_velocity"],
        "key": [f"{key}=" for key in search_spaces.override_keys()],
        "preset": presets,
        "shell": list(SHELLS),
        "space": presets,
    }


def script(shell: str, top: argparse.ArgumentParser) -> str:
    """The completion script of a shell."""
    commands = {name: arguments_of(parser) for name, parser in command_parsers(top).items()}
    parts = {
        "COMMANDS": " ".join(commands),
        "MARKER": results.SCHEMA_FILE,
        **{kind.upper(): " ".join(known) for kind, known in words().items()},
        **{"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands),
    }
    text = (resources.files("study") / "templates" / f"completion.{shell}").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: parts[match[1]], text)


def _bash(commands: Commands) -> dict[str, str]:
    by_flag = {one.flag: one.kind for own in commands.values() for one in own if one.flag and one.kind != "none"}
    flags = {name: " ".join(one.flag for one in own if one.flag) for name, own in commands.items()}
    places = {name: one.kind for name, own in commands.items() for one in own if not one.flag}
    return {
        "OPTION_KINDS": _cases(by_flag, "kind="),
        "PLACE_KINDS": _cases(places, "kind="),
        "OPTIONS": _cases({name: f'"{own}"' for name, own in flags.items()}, "options="),
    }


def _cases(table: dict[str, str], assigns: str) -> str:
    return "\n".join(f"        {pattern}) {assigns}{value} ;;" for pattern, value in table.items())


def _zsh(commands: Commands) -> dict[str, str]:
    return {
        "DESCRIBED": "\n".join(f"        {_quoted(f'{name}:{PAGES[name].does}')}" for name in commands),
        "SPECS": "\n".join(
            f"                {name}) _arguments -s {' '.join(map(_zsh_spec, own))} ;;"
            for name, own in commands.items()
        ),
    }


def _zsh_spec(one: Argument) -> str:
    value = "" if one.kind == "none" else f":{one.kind}:{'' if one.kind == 'text' else f'_twophase_{one.kind}'}"
    doc = re.sub(r"[\[\]:]", " ", one.doc)
    return _quoted(f"*{one.flag}[{doc}]{value}" if one.flag else f"*{value}")


def _fish(commands: Commands) -> dict[str, str]:
    lines = [
        f"complete -c twophase -n __fish_use_subcommand -a {name} -d {_quoted(PAGES[name].does)}" for name in commands
    ]
    for name, own in commands.items():
        seen = f"complete -c twophase -n '__fish_seen_subcommand_from {name}'"
        for one in own:
            option = f" -l {one.flag.lstrip('-')}" if one.flag else ""
            words_of = "" if one.kind in ("none", "text") else f" -a '(__twophase_{one.kind})'"
            takes = " -x" if one.flag and one.kind != "none" else ""
            lines.append(f"{seen}{option}{takes}{words_of} -d {_quoted(one.doc)}")
    return {"LINES": "\n".join(lines)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
