"""What each command does, in words: the one source of `--help`, of docs/commands.md and of shell completion."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import results
from twophase import __version__

ABOUT = (
    "Find the step at which training goes from chaotic to stable, for every setting of a sweep, with an interval over "
    "seeds and controls beside it."
)
SEE = "twophase COMMAND --help tells of one command, with examples. The first thing to try: twophase run quick"

BAD_INPUT = "bad input, told in one line before anything starts"
ENVIRONMENT = "the machine failed: disk full, files unreadable, a cluster that doesn't answer"
GOES_ON = "Ctrl-C, SIGTERM; what was committed is kept, and the same command goes on"

VARIABLES = {
    "TWOPHASE_CACHE": "folder of generated and downloaded data (default: twophase in $XDG_CACHE_HOME or ~/.cache)",
    "RAY_ADDRESS": "heeded with --address auto only",
    "NO_COLOR": "if set, plain lines: no escape sequences on a terminal either",
}


@dataclass(frozen=True)
class Page:
    """What is said of a command.

    Attributes:
        does: One line.
        about: Paragraphs on what it does and leaves behind.
        examples: Command -> what it is for.
        found: What exit status 1 means; empty where there is none.
        is_long: Whether it runs for long, and may be interrupted.
    """

    does: str
    about: tuple[str, ...]
    examples: dict[str, str] = field(default_factory=dict)
    found: str = ""
    is_long: bool = False

    @property
    def statuses(self) -> dict[str, str]:
        """Exit status -> when."""
        found = {"1": self.found} if self.found else {}
        long = {"130, 143": GOES_ON} if self.is_long else {}
        return {"0": "done", **found, "2": BAD_INPUT, "3": ENVIRONMENT, **long}


CTRL_C = (
    "Ctrl-C once: what runs ends, no more begins, the tables are brought up to date. Twice, or SIGTERM: it stops now. "
    "All leave a study with which the same command goes on."
)

PAGES: dict[str, Page] = {
    "spaces": Page(
        "list the presets, or print one",
        (
            "Without a name: a table of the presets with trials, children, kernels, lane-steps and disk of each. With "
            "one: the preset as YAML, comments included, to be changed and run.",
        ),
        {
            "twophase spaces": "what there is, and what it costs",
            "twophase spaces quick > my_sweep.yaml": "a space to start from",
        },
    ),
    "plan": Page(
        "count what a space would run, and what is there",
        (
            "Reads the space whole, as run would, and counts trials, children, lane-steps (one network trained for one "
            "step), disk, and what of it the study's folder has already. Nothing is written and no Ray is started.",
            "--measure trains a few steps of each network first and tells the hours; it takes a minute or so.",
        ),
        {
            "twophase plan quick --set seeds=5": "what two more seeds would cost",
            "twophase plan my_sweep.yaml --measure": "how many hours",
            "twophase plan quick --json": "the counts as one JSON object",
        },
    ),
    "run": Page(
        "run a space, or what is missing of it",
        (
            "Trains a reference per setting and seed with its perturbed children, sentinels, controls and kernels, as "
            "the space says; commits rows to ROOT/NAME as each trial ends; then prints the transition of each setting "
            "and writes report.html. Progress goes to stderr: one live line on a terminal, else a line now and then.",
            "What is planned and not there is what runs: after a kill, or with more seeds, magnitudes, fork steps or "
            "settings, the same command goes on. Trials that failed are told, and run again with --retry-failed.",
            CTRL_C,
        ),
        {
            "twophase run quick": "the first thing to try; two minutes on two cores",
            "twophase run quick --set seeds=5": "two seeds more, added to what is there",
            "twophase run my_sweep.yaml --gpus-per-trial 0.25": "four trials on each GPU",
            "twophase run my_sweep.yaml --address auto": "on the Ray cluster that this machine belongs to",
        },
        found="some trials failed",
        is_long=True,
    ),
    "search": Page(
        "let Optuna choose the settings, for the goals that the space names",
        (
            "A space with a search block has distributions as axes. Optuna proposes settings, Ray Tune runs them, "
            "a journal beside the tables remembers: the same command goes on, and runs no setting twice. Prints the "
            "best settings (for several goals the Pareto front).",
            CTRL_C,
        ),
        {
            "twophase search earliest": "which settings turn stable first",
            "twophase search earliest --set search.num_settings=20": "fewer of them",
        },
        found="some trials failed",
        is_long=True,
    ),
    "status": Page(
        "tell how far a study is, and what failed",
        (
            "Reads the folder alone, so it may be asked from any terminal or machine while a driver runs: trials done, "
            "failed, running and waiting, time left, and failures with their cause.",
        ),
        {
            "twophase status quick": "once",
            "twophase status quick --watch": "every two seconds, until the driver ends",
            "twophase status quick --json": "for a script",
        },
        found="some trials failed",
    ),
    "locate": Page(
        "print the transition of each setting",
        (
            "The step from which children stay connected to their reference for good: the median over seeds, with an "
            "interval and a verdict (located, stable_from_start, chaotic_throughout, undetermined). By default the "
            "primary, which the first run declared; another indicator or magnitude is exploratory, and said to be. "
            "--by pools all settings that agree on the axes named. Several studies are read as one.",
            "An answer that rests on a part of what was planned says so on stderr.",
        ),
        {
            "twophase locate quick": "one row per setting",
            "twophase locate quick --by model --json": "pooled over all but the model, as JSON",
            "twophase locate quick --indicator disagreement": "by another indicator",
        },
    ),
    "compare": Page(
        "print ratios between settings, and trends over numeric axes",
        (
            "By what factor one level's transition is later than another's, matched over all other axes and seeds; how "
            "it moves per octave of a numeric axis; the same of controls beside it; which clock (steps, learning rate "
            "spent, training loss) foretells it. Intervals account for few seeds, censored crossings and the number of "
            "comparisons.",
        ),
        {
            "twophase compare quick --by model": "is the MLP's later than the CNN's?",
            "twophase compare depth_lr --by lr --by depth": "trends over two axes at once",
        },
    ),
    "more": Page(
        "tell which seeds and fork steps to add for a wanted precision",
        (
            "From the spread that the study has shown so far: how many seeds, directions and fork steps would bring "
            "each interval to the wanted ratio of upper to lower end, with --set lines to paste.",
        ),
        {"twophase more quick --ratio 1.5": "intervals whose upper end is half as much again as the lower"},
    ),
    "report": Page(
        "write the report and its figures",
        (
            "One self-contained report.html in the study's folder, which opens from disk and needs no network, and its "
            "figures as PNG and SVG in figures/. The answer comes first, then figures, methods and how to reproduce. "
            "run writes it too; this brings it up to date.",
        ),
        {"twophase report quick": "writes runs/quick/report.html"},
    ),
    "check": Page(
        "prove a study's store whole",
        (
            "Every key once, no half file, every commit's files there with the rows that it names, every sentinel "
            "bitwise equal to its reference. Each finding says what mends it. Changes nothing.",
        ),
        {"twophase check quick": "prints what it proved, or what it found"},
        found="something was found",
    ),
    "compact": Page(
        "put many small files into few, same rows",
        (
            "One file per table in place of one per trial; every reader sees the same rows at every moment, and a kill "
            "loses and doubles nothing. A run that leaves more than 500 parts does so by itself.",
        ),
        {"twophase compact quick": "tells how many files there were and are"},
    ),
    "completion": Page(
        "print a shell's completion script",
        (
            "Completes commands, options, presets, studies, setting names for --set and --by, and indicators; bash, "
            "zsh or fish. Put the line below into your shell's start-up file; fish: "
            "twophase completion fish > ~/.config/fish/completions/twophase.fish",
        ),
        {
            'eval "$(twophase completion bash)"': "in ~/.bashrc",
            'eval "$(twophase completion zsh)"': "in ~/.zshrc, after compinit",
        },
    ),
}


def wrapped(paragraphs: Iterable[str]) -> str:
    """Paragraphs as wide as the terminal, but no wider than is easily read."""
    return "\n\n".join(textwrap.fill(text, _columns()) for text in paragraphs)


def closing() -> str:
    """What ends the help of the whole."""
    statuses = Page("", (), found="some trials failed, or a check found something", is_long=True).statuses
    listed = [*_listed("environment:", VARIABLES), "", *_listed("exit status:", statuses)]
    return "\n".join([*listed, "", wrapped([SEE])])


def page_closing(page: Page) -> str:
    """What ends the help of a command: examples and exit statuses."""
    told = [f"  {command}\n      {why}" for command, why in page.examples.items()]
    return "\n".join(["examples:", *told, "", *_listed("exit status:", page.statuses)])


def _listed(head: str, table: Mapping[str, str]) -> list[str]:
    width = max(map(len, table))
    margin = " " * (width + 4)
    return [
        head,
        *(
            textwrap.fill(does, _columns(), initial_indent=f"  {name:{width}}  ", subsequent_indent=margin)
            for name, does in table.items()
        ),
    ]


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, 100) - 2


def first_words(root: str) -> str:
    """What is said to somebody who calls `twophase` with nothing: where to begin, and what is here already."""
    steps = {
        "twophase run quick": "two minutes on two cores: two architectures, three seeds, the table of transitions",
        "twophase spaces": "the presets, and what each costs",
        "twophase spaces quick > my_sweep.yaml": "a sweep of your own to start from; then twophase run my_sweep.yaml",
        "twophase --help": "all commands; twophase run --help tells of one",
    }
    width = max(map(len, steps))
    lines = [f"twophase {__version__}. {ABOUT}", "", "Begin with:"]
    lines += [f"  {command:{width}}  {does}" for command, does in steps.items()]
    here = results.studies_in(Path(root))
    if here:
        shown = ", ".join(here[:8]) + (f" and {len(here) - 8} more" if len(here) > 8 else "")
        lines += ["", f"Studies in {root}/: {shown} (twophase status {here[0]})"]
    return "\n".join(lines)
