"""A study that was damaged is told as such by every command, in one line, with the way out."""

import json
import shutil

import pytest

import results
from study import cli


def damaged(part):
    """Make a copy of a finished study in which one thing is broken."""

    def delete(path):
        path.unlink()

    def truncate(path):
        path.write_bytes(path.read_bytes()[:-100])

    def of(table, change):
        return lambda folder: change(sorted((folder / table).glob("*"))[0])

    def schema(folder):
        text = (folder / "_schema.json").read_text()
        (folder / "_schema.json").write_text(text.replace(f'"version": {results.VERSION}', '"version": 99'))

    return {
        "newer schema": schema,
        "half a table": of("chaos", delete),
        "no table": lambda folder: shutil.rmtree(folder / "chaos"),
        "half a file": of("chaos", truncate),
        "half a commit": of("_commits", truncate),
        "half a declaration": lambda folder: truncate(folder / "_declared.json"),
    }[part]


LOST = ["chaos", "missing", "_commits", "computed again"]
DAMAGES = {
    "newer schema": ["schema version 99", "newer", "upgrade"],
    "half a table": LOST,
    "no table": LOST,
    "half a file": ["chaos", "bytes, its commit says", "_commits", "computed again"],
    "half a commit": ["damaged commit file", "_commits", "computed again"],
    "half a declaration": ["_declared.json is damaged"],
}
ON_A_STUDY = {"run": ["run", "tiny.yaml"], "locate": ["locate", "tiny"], "report": ["report", "tiny"]}


@pytest.mark.parametrize("command", ON_A_STUDY)
@pytest.mark.parametrize(("damage", "words"), DAMAGES.items(), ids=DAMAGES)
def test_a_damaged_study(answer, tmp_path, whole, command, damage, words):
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(whole.path, folder)
    damaged(damage)(folder)
    line = answer(*ON_A_STUDY[command])
    assert all(word in line for word in words), line
    assert str(folder.relative_to(tmp_path)) in line or damage == "newer schema"


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage != "half a declaration"])
def test_a_damaged_study_is_not_compacted(answer, tmp_path, whole, damage):
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(whole.path, folder)
    damaged(damage)(folder)
    before = sorted(folder.rglob("*"))
    line = answer("compact", "tiny")
    assert all(word in line for word in DAMAGES[damage]), line
    assert sorted(folder.rglob("*")) == before


def changed(**entries):
    return lambda declared: json.dumps({**declared, **entries})


DECLARATIONS = {
    "missing": lambda _: None,
    "no JSON": lambda declared: json.dumps(declared)[:50],
    "a list": lambda _: "[1]",
    "no primary": lambda declared: json.dumps({k: v for k, v in declared.items() if k != "primary"}),
    "indicator a number": changed(primary={"indicator": 5}),
    "threshold a word": changed(primary={"threshold": "low"}),
    "magnitudes words": changed(magnitudes=["large"]),
    "measures a number": changed(measures=5),
    "protocol a word": changed(protocol={"train_sample": "all"}),
    "perturbation a list": changed(perturbation=["gaussian"]),
    "spaces numbers": changed(spaces=[1]),
    "a space that is none": changed(spaces=[{"name": "tiny", "base": {"lr": "fast"}}]),
}


@pytest.mark.parametrize("damage", DECLARATIONS.values(), ids=DECLARATIONS)
def test_damaged_declarations_are_told_by_every_command_and_by_check(answer, tmp_path, whole, capsys, damage):
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(whole.path, folder)
    path = folder / "_declared.json"
    text = damage(json.loads(path.read_text()))
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(["check", "tiny"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    for line in [told[0], *(answer(command, "tiny") for command in ("locate", "status" if text else "report"))]:
        assert "_declared.json is" in line
        assert "restore it, or" in line
        assert "run the study's spaces again" in line


def test_check_says_what_mends_each_damage(tmp_path, whole, capsys):
    folder = tmp_path / "tiny"
    shutil.copytree(whole.path, folder)
    lost = sorted((folder / "chaos").glob("*"))[0]
    lost.unlink()
    (folder / "chaos" / ".x.tmp").write_text("")
    assert cli.main(["check", str(folder)]) == 1
    told = capsys.readouterr().out
    assert f"chaos/{lost.name}; remove _commits/{lost.stem}.json and run the study's space again" in told
    assert "chaos/.x.tmp; run the study's space again\n" in told
    assert told.endswith("2 findings\n")
