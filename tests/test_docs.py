"""What the documentation says is so: pages follow from the code, spaces load, commands are commands."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import search_spaces
from study import cli

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/space.md", "docs/compare.md", "docs/transition.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}


def blocks(language):
    for name, text in TEXTS.items():
        for i, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)):
            yield pytest.param(block, id=f"{name} {language} {i}")


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["tables.md", "settings.md", "commands.md"])
def test_generated_pages_are_up_to_date(page):
    made = generator().PAGES[page]()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == made, "run `make docs`"


@pytest.mark.parametrize("text", list(blocks("yaml")))
def test_every_space_shown_loads(text, tmp_path):
    (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")
    space = search_spaces.load(tmp_path / "shown.yaml")
    assert len(space.settings) >= 2
    assert space.cone.kernels


def test_the_search_shown_loads(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "search.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")
    asked = search_spaces.load_search(tmp_path / "shown.yaml")
    assert len(asked.branches) == 2


COMMANDS = [
    pytest.param(line.split("#")[0].strip(), id=line.split("#")[0].strip())
    for text in TEXTS.values()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("twophase ")
]


def test_commands_are_shown():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shown_is_one(command, tmp_path, monkeypatch, capsys):
    """Those that only count are run; the others' arguments are read."""
    monkeypatch.chdir(tmp_path)
    shown = next(iter(re.findall(r"```yaml\n(.*?)```", TEXTS["README.md"], re.DOTALL)))
    Path("my_sweep.yaml").write_text(shown, encoding="utf-8")
    words = shlex.split(command.partition(">")[0])[1:]
    if words[0] in ("plan", "spaces"):
        assert cli.main(words) == 0
        assert capsys.readouterr().out
    else:
        assert callable(cli.parser().parse_args(words).command)


SEARCHES = {name for name in search_spaces.preset_names() if "search" in search_spaces.read_source(name)}


@pytest.mark.parametrize("name", search_spaces.preset_names())
def test_a_preset_printed_is_the_preset(name, tmp_path, capsys):
    assert cli.main(["spaces", name]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    load = search_spaces.load_search if name in SEARCHES else search_spaces.load
    assert load(tmp_path / "mine.yaml") == load(name)


def test_presets_are_listed_with_their_cost(capsys):
    assert cli.main(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in search_spaces.preset_names():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert search_spaces.preset_summary(name) in line
        assert re.search(r"\d", line)


@pytest.mark.parametrize("name", sorted(set(search_spaces.preset_names()) - SEARCHES))
def test_a_space_written_out_is_the_same_space(name, tmp_path):
    space = search_spaces.load(name, {"lr": 0.05, "seeds": [3, 4]})
    (tmp_path / "again.yaml").write_text(search_spaces.space_yaml(space.source), encoding="utf-8")
    again = search_spaces.load(tmp_path / "again.yaml")
    assert again == space
    assert again.source == space.source
