"""Completion as the shells themselves do it; help, version and first words."""

import re
import shlex
import shutil
import subprocess

import pytest

import search_spaces
from study import cli, completion, manual
from study.terminal import is_live
from twophase.config import LEAVES

PARSERS = completion.command_parsers(cli.parser())


@pytest.fixture
def folder(tmp_path):
    """Two studies under runs, one elsewhere, and a space."""
    for study in ("runs/quick", "runs/mine", "elsewhere/other"):
        (tmp_path / study).mkdir(parents=True)
        (tmp_path / study / "_schema.json").write_text("{}")
    (tmp_path / "runs" / "no_study").mkdir()
    (tmp_path / "space.yaml").write_text("name: a")
    (tmp_path / "notes.txt").write_text("a")
    return tmp_path


def bash_completes(folder, line):
    words = line.split(" ")
    asked = f"""
        source /dev/stdin <<< "$SCRIPT"
        COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}
        _twophase
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    script = completion.script("bash", cli.parser())
    made = subprocess.run(
        ["bash", "-uc", asked], cwd=folder, env={"SCRIPT": script, "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stderr == ""
    return set(made.stdout.split("\n")) - {""}


def test_bash_completes_commands_options_and_places(folder):
    def completes(line):
        return bash_completes(folder, line)

    assert completes("twophase ") == {*PARSERS, "--help", "--version"}
    assert completes("twophase re") == {"report"}
    assert completes("twophase run --re") == {"--retry-failed"}
    assert completes("twophase compare q --") >= {"--by", "--indicator", "--magnitude", "--json", "--root"}
    assert completes("twophase locate x --by l") == {leaf for leaf in LEAVES if leaf.startswith("l")}
    assert completes("twophase run quick --set cone.pr") == {"cone.probe_size=", "cone.probe_seed="}
    assert completes("twophase run q") == {"quick"}
    assert "space.yaml" in completes("twophase run ")
    assert "notes.txt" not in completes("twophase run ")
    assert completes("twophase spaces ") == set(search_spaces.preset_names())
    assert completes("twophase status ") == {"quick", "mine", "runs", "elsewhere"}
    assert completes("twophase status --root elsewhere o") == {"other"}
    assert completes("twophase completion ") == {"bash", "fish", "zsh"}
    assert completes("twophase run --workers ") == set()


SHELLS_HERE = [shell for shell in completion.SHELLS if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS_HERE)
def test_every_shell_here_reads_its_script(shell, tmp_path):
    script = completion.script(shell, cli.parser())
    assert "@" not in re.sub(r"\$\{?\w*\[?@|\[@\]|\$@", "", script)
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_fish_and_zsh_know_every_command_option_and_word():
    for shell, dashes in (("fish", "-l "), ("zsh", "--")):
        script = completion.script(shell, cli.parser())
        for name, parser in PARSERS.items():
            assert re.search(rf"\b{name}\b", script)
            for one in completion.arguments_of(parser):
                assert f"{dashes}{one.flag.lstrip('-')}" in script
        assert all(word in script for known in completion.words().values() for word in known)


@pytest.mark.parametrize("name", list(PARSERS))
def test_help_tells_what_examples_and_statuses(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    page = manual.PAGES[name]
    assert page.does[1:] in " ".join(shown.split())
    assert all(command in shown for command in page.examples)
    assert re.search(r"exit status:\n  0 +done", shown)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("command", [c for page in manual.PAGES.values() for c in page.examples])
def test_examples_are_commands(command):
    words = shlex.split(command.removeprefix('eval "$(').removesuffix(')"').partition(">")[0])
    assert words[0] == "twophase"
    assert callable(cli.parser().parse_args(words[1:]).command)


def test_version_and_first_words(capsys, folder, monkeypatch):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"twophase \d+\.\d+\.\d+ \(torch .+, ray .+, Python .+\)\n", capsys.readouterr().out)
    monkeypatch.chdir(folder)
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "twophase run quick" in err
    assert "Studies in runs/: mine, quick" in err


def test_only_a_terminal_that_wants_them_gets_escapes(monkeypatch):
    class Stream:
        def __init__(self, is_terminal):
            self.isatty = lambda: is_terminal

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert is_live(Stream(True))
    assert not is_live(Stream(False))
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live(Stream(True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_live(Stream(True))
