"""Every command and Python block of README and docs/ runs, on studies that are shrunk; what needs a cluster is planned.

Worked examples (docs/extend) have tests of their own, and so has the notebook.
"""

import contextlib
import itertools
import re
import shlex
import warnings
from pathlib import Path

import pytest

import search_spaces
import study
from study import cli, closing, driver, searching
from study.worker import run_job
from tests.study.conftest import given

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
MY_SWEEP = next(iter(re.findall(r"```yaml\n(name: my_sweep.*?)```", TEXTS["README.md"], re.DOTALL)))

SMALL = {
    "data": "digits",
    "num_train": 400,
    "num_test": 100,
    "batch_size": 32,
    "width": 16,
    "num_steps": 40,
    "seeds": 2,
    "chaos.fork_steps": [0, 10],
    "chaos.num_directions": 1,
    "chaos.train_sample": 64,
    "chaos.path_points": 3,
}
"""Small, but its references learn: of those that don't nothing is said."""
KERNELS = {"cone.probe_size": 10, "cone.steps.num_log": 2, "cone.steps.num_linear": 2}
SHRUNK = {
    "quick": {**SMALL, **KERNELS, "depth": 2},
    "my_sweep": {**SMALL, "settings": [{"model": "mlp"}], "axes.lr": [0.1, 0.2], "activation": "relu", "cone": None},
    "depth_lr": {**SMALL, "axes.depth": [1, 2], "axes.lr": [0.1, 0.2], "axes.num_steps": [30, 40]},
    "is_it_chaos": {**SMALL, "depth": 2, "activation": "relu", "axes.lr": [0.1, 0.2], "chaos.magnitudes": [1e-2, 1e-3]},
    "chaos_cone": {**SMALL, **KERNELS, "model": "mlp", "axes.depth": [1, 2], "axes.lr": [0.1, 0.2]},
    "earliest": {**SMALL, "search.num_settings": 2},
    "cone": {
        **SMALL,
        **KERNELS,
        "settings": [{"model": "mlp"}],
        "cone.sketch": 16,
        "cone.children": [0],
        "switch": None,
    },
}
"""Preset or file -> what is laid over it."""
OURS = ("num_steps", "chaos.fork_steps", "search.num_settings", "cone.steps.num_linear")
"""Where a command names these as well, ours go before its own; else the command's do."""
ELSEWHERE = ("--address", "s3://", "/shared", "--gpus-per-trial")


def commands():
    """(page, command) of each line that a reader may type, once, in the order of the pages."""
    seen = set()
    for page, text in TEXTS.items():
        for language, block in re.findall(r"```(sh|console)\n(.*?)```", text, re.DOTALL):
            prompt = "$ " if language == "console" else ""
            for line in block.splitlines():
                command = re.sub(r"\s+# .*", "", line.removeprefix(prompt))
                if line.startswith(prompt) and command and command not in seen:
                    seen.add(command)
                    yield page, command


COMMANDS = list(commands())
TWOPHASE = [pytest.param(command, id=command) for _, command in COMMANDS if command.startswith("twophase ")]
OTHERS = [pytest.param(command, id=command) for _, command in COMMANDS if not command.startswith("twophase ")]


def without_ray(patch):
    """Where it isn't Ray that is tried: jobs one after another, here."""
    for module in (driver, searching):
        patch.setattr(module, "run_jobs", in_process)


def in_process(jobs, crew):
    for job in given(jobs):
        for _ in run_job(job, crew.place):
            pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _own_cache):
    """Where a reader would be: every study that the pages name, shrunk, and the space that README shows."""
    place = tmp_path_factory.mktemp("reader")
    (place / "my_sweep.yaml").write_text(MY_SWEEP, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place), contextlib.redirect_stdout(None):
        without_ray(patch)
        patch.setattr(closing, "write_report", lambda _: None)
        for name in ("quick", "depth_lr", "is_it_chaos", "chaos_cone", "cone"):
            study.launch(name, overrides=SHRUNK[name])
        study.launch("my_sweep.yaml", overrides=SHRUNK["my_sweep"])
        study.search("earliest", overrides=SHRUNK["earliest"])
        yield place


def shrunk(words):
    """The words, with what shrinks a space's run laid over it."""
    if words[0] not in ("run", "search") and "--measure" not in words:
        return words
    own = search_spaces.parse_overrides([v for k, v in itertools.pairwise(words) if k == "--set"])
    overlay = SHRUNK[words[1].removesuffix(".yaml")]
    kept = {key: value for key, value in overlay.items() if key in OURS or key.rpartition(".")[2] not in own}
    sets = [("--set", f"{key}={'null' if value is None else value}") for key, value in kept.items()]
    return [*words, *itertools.chain(*sets)]


@pytest.mark.docs
@pytest.mark.parametrize("command", TWOPHASE)
def test_a_command_shown_runs(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    without_ray(monkeypatch)
    typed, _, target = command.partition(">")
    words = shlex.split(typed)[1:]
    arguments = cli.parser().parse_args(words)
    if any(sign in command for sign in ELSEWHERE):
        # Elsewhere isn't here: what is to be run there is planned.
        if words[0] == "run":
            space = words[1] if Path(words[1]).exists() else "quick"
            assert cli.main(["plan", space, *itertools.chain(*(("--set", one) for one in arguments.set))]) == 0
        return
    expected = 2 if "lr=-1" in command else 0
    assert cli.main(shrunk(words)) == expected
    out, err = capsys.readouterr()
    if expected:
        assert f"```console\n$ {command}\n{err}```" in TEXTS["docs/start.md"]
    else:
        assert out
    if target:
        (folder / "printed.yaml").write_text(out, encoding="utf-8")
        assert search_spaces.load(folder / "printed.yaml").settings


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands_name_what_there_is(command):
    """Targets of make and files of ours exist; commands inside quotes are ours."""
    words = shlex.split(command)
    assert words[0] in ("make", "pip", "ray", "kubectl", "sbatch", "echo", "eval", "python", "source"), command
    if words[0] == "make":
        assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("docs/"):
            assert (ROOT / word).exists()
    for inner in re.findall(r"twophase (?:completion \w+|run [^']+)", command):
        assert callable(cli.parser().parse_args(shlex.split(inner)[1:]).command)


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL)


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
def test_python_shown_runs(page, folder, monkeypatch):
    """Blocks of a page one after another, in one namespace; one that begins with the name of a file is that file."""
    monkeypatch.chdir(folder)
    names = {"__name__": "shown"}
    for block in python_blocks(page):
        if file := re.match(r"# (\w+\.py)", block):
            (folder / file[1]).write_text(block, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's packages, which a reader would see as well
            exec(compile(block, page, "exec"), names)
    assert set(names) - {"__name__", "__builtins__"}, "all of it ran, and it made something"


@pytest.mark.docs
def test_the_notebook_runs_and_says_what_it_was_saved_with():
    import importlib.util

    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made, saved = module.cleaned(module.executed(module.NOTEBOOK)), module.nbformat.read(module.NOTEBOOK, 4)
    kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in made.cells]
    assert kinds == [[output.output_type for output in cell.get("outputs", [])] for cell in saved.cells]
    assert sum(map(len, kinds)) >= 5


def is_demonstration(command):
    """Whether it runs on any machine, in minutes; README's sweep of an hour and clusters are only planned."""
    words = shlex.split(command)[1:]
    return words[0] in ("run", "search") and words[1] != "my_sweep.yaml" and not any(s in command for s in ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in TWOPHASE if is_demonstration(*one.values)])
def test_a_long_command_runs_whole(command, tmp_path, monkeypatch, capsys):
    """As typed."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(command)[1:]) == 0
    assert "transition" in capsys.readouterr().out
