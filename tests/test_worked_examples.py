"""The pages of docs/extend do what they say: applied to a copy of the tree, their own commands pass."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.stem for path in (ROOT / "docs" / "extend").glob("*.md"))
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "build", "__pycache__", "*.egg-info", "site", "node_modules")
# One process for all that isn't pytest: importing torch and Ray takes longer than the commands themselves.
TOGETHER = """
import json, runpy, sys
from study import cli
for words in json.loads(sys.argv[1]):
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
    elif cli.main(words[1:]):
        sys.exit(f"failed: {words}")
"""


def examples():
    spec = importlib.util.spec_from_file_location("worked_examples", ROOT / "docs" / "worked_examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(arguments, tree):
    """In the tree, whose packages go before the installed ones."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def planned(words):
    """What a run would do, in place of it."""
    if words[:2] != ["twophase", "run"]:
        return words
    at = words.index("--workers")
    return ["twophase", "plan", *words[2:at], *words[at + 2 :]]


def applied(page, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    text = (ROOT / "docs" / "extend" / f"{page}.md").read_text(encoding="utf-8")
    return tree, [shlex.split(command) for command in examples().apply(text, tree)]


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES)
def test_the_example_is_complete_and_passes_its_tests(page, tmp_path):
    """What runs a study is planned here, and run whole by `make slow`."""
    tree, commands = applied(page, tmp_path)
    tests = [words for words in commands if words[1:3] == ["-m", "pytest"]]
    assert len(tests) == 1
    assert "[100%]" in run(tests[0][1:], tree)
    assert "lane-steps" in run(["-c", TOGETHER, json.dumps([planned(w) for w in commands if w not in tests])], tree)
    for lint in (["check"], ["format", "--check"]):
        run(["-m", "ruff", *lint, "-q", "twophase", "results", "tests/twophase"], tree)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["metric", "data_set"])
def test_the_example_s_own_study_runs(page, tmp_path):
    tree, commands = applied(page, tmp_path)
    (command,) = [words for words in commands if words[:2] == ["twophase", "run"]]
    assert "transition" in run(["-c", TOGETHER, json.dumps([command])], tree)


def test_the_pages_are_there():
    assert PAGES == ["data_set", "indicator", "metric", "model", "perturbation"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```diff\n--- a.py\n-x = 3\n+x = 4\n```\n", "found 0 times"),
        ("```diff\n--- a.py\n+y\n x = 1\n```\n", "found 2 times"),
        ("```python\n# into a.py, before def g():\nz = 1\n```\n", "found 0 times"),
    ],
)
def test_a_place_that_isn_t_there_once_is_told(block, said, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    with pytest.raises(ValueError, match=said):
        examples().apply(block, tmp_path)


def test_changes_come_where_they_should(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\ny = 2\n\n\ndef f():\n    pass\n")
    page = (
        "```diff\n--- a.py\n-x = 1\n+x = 5\n y = 2\n```\n"
        "```python\n# into a.py, before def f():\nz = 3\n```\n"
        "```python\n# new file b.py\nq = 1\n```\n```sh\necho\n```\n"
    )
    assert examples().apply(page, tmp_path) == ["echo"]
    assert (tmp_path / "a.py").read_text() == "x = 5\ny = 2\n\n\nz = 3\n\n\ndef f():\n    pass\n"
    assert (tmp_path / "b.py").read_text() == "q = 1\n"
