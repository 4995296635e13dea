"""The command `twophase`."""

import argparse
import contextlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NoReturn

from threadpoolctl import threadpool_limits

import results
from study import commands, completion, manual
from study.cluster import EnvironmentFault
from study.interruption import Terminated
from study.resources import AUTO
from twophase import __version__
from twophase.errors import BadInput

Command = Callable[[argparse.Namespace], int]
Add = Callable[[str, Command], argparse.ArgumentParser]
"""(name, function) -> the command's parser; what is said of it stands in `study.manual`."""

BAD_INPUT, ENVIRONMENT = 2, 3
BY_SIGNAL = 128
INTERRUPTED, BROKEN_PIPE, TERMINATED = BY_SIGNAL + 2, BY_SIGNAL + 13, BY_SIGNAL + 15
KEPT = "what was committed is kept, the same command goes on"


class Parser(argparse.ArgumentParser):
    """Answers bad arguments in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        raise BadInput(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments; default: those of the process.

    Returns:
        Exit status: 0 done, 1 some trials failed or a check found something, 2 bad input, 3 the environment failed; as
        shells have it, 130 on Ctrl-C, 141 when nobody reads the output any more, 143 on SIGTERM.
    """
    try:
        arguments = parser().parse_args(argv)
        command: Command = arguments.command
        # Estimates take many small products, which threads that wait for one another slow down tenfold; workers are
        # processes of their own.
        with threadpool_limits(limits=1):
            status = command(arguments)
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        _close_output()
        return BROKEN_PIPE
    except (BadInput, results.StudyError) as error:
        print(f"twophase: {error}", file=sys.stderr)
        return BAD_INPUT
    except (EnvironmentFault, OSError) as error:
        print(f"twophase: {error}", file=sys.stderr)
        return ENVIRONMENT
    except Terminated:
        print(f"twophase: terminated; {KEPT}", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print(f"twophase: interrupted; {KEPT}", file=sys.stderr)
        return INTERRUPTED


def _close_output() -> None:
    """Let the reader of our output go quietly: what is still unwritten has nowhere to go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def parser() -> Parser:
    """Every command with its arguments."""
    top = Parser(
        prog="twophase",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=manual.wrapped([manual.ABOUT]),
        epilog=manual.closing(),
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version of this and what it stands on")
    top.set_defaults(command=_greet)
    known = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)

    def add(name: str, command: Command) -> argparse.ArgumentParser:
        page = manual.PAGES[name]
        sub = known.add_parser(
            name,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            help=page.does,
            description=manual.wrapped([f"{page.does[0].upper()}{page.does[1:]}.", *page.about]),
            epilog=manual.page_closing(page),
        )
        sub.set_defaults(command=command)
        return sub

    for sub in (*_on_a_space(add), *_on_a_study(add)):
        sub.add_argument("--root", metavar="DIR", help=f"folder of studies (default: {commands.ROOT})")
    shell = add("completion", _print_completion)
    shell.add_argument("shell", metavar="SHELL", choices=completion.SHELLS, help=", ".join(completion.SHELLS))
    return top


def _greet(_: argparse.Namespace) -> int:
    """Called with nothing: a command is missing, and somebody is new here."""
    print(manual.first_words(commands.ROOT), file=sys.stderr)
    return BAD_INPUT


def _print_completion(arguments: argparse.Namespace) -> int:
    print(completion.script(arguments.shell, parser()), end="")
    return commands.DONE


class Version(argparse.Action):
    """Prints the versions, and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print and leave."""
        beside = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray"))
        print(f"twophase {__version__} ({beside}, Python {platform.python_version()})")
        parser.exit()
        raise AssertionError("exit returned")


def _number_or_auto(text: str) -> float | str:
    try:
        return text if text == AUTO else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}") from None


def _on_a_space(add: Add) -> list[argparse.ArgumentParser]:
    """The commands that take a space, and the list of presets."""
    spaces = add("spaces", commands.spaces)
    spaces.add_argument("name", metavar="NAME", nargs="?", help="a preset: print it as YAML to start from")
    plan, start, look = add("plan", commands.plan), add("run", commands.run), add("search", commands.search)
    for sub in (plan, start, look):
        sub.add_argument("space", metavar="SPACE", help="a preset's name or a YAML file")
        sub.add_argument("--name", help="name of the study, in place of the space's own")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the space; repeatable"
        )
        sub.add_argument(
            "--gpus-per-trial",
            type=_number_or_auto,
            default=0,
            metavar="F|auto",
            help="GPUs of one trial, may be a fraction; auto: 1/k of one, where k trials fit into its memory",
        )
        sub.add_argument(
            "--cpus-per-trial", type=int, default=1, metavar="N", help="processors set aside for one trial (default: 1)"
        )
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    plan.add_argument("--measure", action="store_true", help="time a few steps of each network, and tell the hours")
    look.add_argument("--json", action="store_true", help="print one JSON object")
    for sub in (start, look):
        sub.add_argument("--workers", type=int, metavar="N", help="most trials at a time (default: one per processor)")
        sub.add_argument("--address", help="a Ray cluster's address (default: Ray here, on loopback)")
        sub.add_argument("--retry-failed", action="store_true", help="run trials again that failed before")
    return [plan, start, look]


def _on_a_study(add: Add) -> list[argparse.ArgumentParser]:
    """The commands that take a study."""
    status, locate = add("status", commands.status), add("locate", commands.locate)
    compare, more = add("compare", commands.compare), add("more", commands.more)
    locate.add_argument("--by", action="append", metavar="AXIS", help="pool over all axes but these; repeatable")
    compare.add_argument(
        "--by", action="append", required=True, metavar="AXIS", help="a setting, or magnitude; repeatable"
    )
    for sub in (locate, compare):
        sub.add_argument("--indicator", metavar="INDICATOR", help="another indicator than the primary")
        sub.add_argument("--magnitude", type=float, help="another magnitude than the primary's")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument(
            "study",
            metavar="STUDY",
            nargs="+",
            help="a study's folder or its name under the root; several are read as one",
        )
    more.add_argument(
        "--ratio", type=float, default=1.5, metavar="R", help="the interval's upper end over its lower (default: 1.5)"
    )
    more.add_argument("--json", action="store_true", help="print one JSON object")
    shown = status.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.add_argument("--watch", action="store_true", help="print it again every two seconds while a driver runs")
    report, check = add("report", commands.report), add("check", commands.check)
    compact = add("compact", commands.compact)
    for sub in (more, status, report, check, compact):
        sub.add_argument("study", metavar="STUDY", help="a study's folder or its name under the root")
    return [locate, compare, more, status, report, check, compact]


if __name__ == "__main__":
    sys.exit(main())
