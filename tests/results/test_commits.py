import json

import pytest
from sample_study import SETTING_COLUMNS

import results
from results import Column, StudyError


@pytest.fixture
def commit_file(study, write):
    write("a")
    return study.path / "_commits" / "t0-a.json"


DAMAGES = {
    "empty": lambda _: "",
    "torn": lambda content: json.dumps(content)[:50],
    "list": lambda _: "[]",
    "missing field": lambda content: json.dumps({k: v for k, v in content.items() if k != "status"}),
    "extra field": lambda content: json.dumps({**content, "more": 1}),
    "other name": lambda content: json.dumps({**content, "part": "b"}),
    "status": lambda content: json.dumps({**content, "status": "fine"}),
    "generation": lambda content: json.dumps({**content, "generation": "1"}),
    "leaf": lambda content: json.dumps({**content, "keys": {**content["keys"], "lr": "0.1"}}),
    "trial": lambda content: json.dumps({**content, "trial": None}),
    "outside": lambda content: json.dumps({**content, "files": [{**content["files"][0], "name": "../../x"}]}),
    "unknown table": lambda content: json.dumps({**content, "files": [{**content["files"][0], "table": "x"}]}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line_naming_the_file(study, commit_file, damage):
    commit_file.write_text(DAMAGES[damage](json.loads(commit_file.read_text())))
    with pytest.raises(StudyError, match=r"damaged commit file .*t0-a\.json: .*; remove it") as caught:
        results.read_commits(study)
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="damaged commit file"):
        study.table("kernel")


def test_leaves_grown_since_are_filled(study, commit_file):
    clip = Column("clip", "float", "1", "gradient clipping", fill=0.5)
    grown = results.create(study.path, study="sample", setting_columns=(*SETTING_COLUMNS, clip))
    (commit,) = results.read_commits(grown)
    assert commit.keys["clip"] == 0.5


def test_files_that_vanish_while_read_are_listed_anew(study, write, monkeypatch):
    """A sweep takes generation 0 away between listing and reading; generation 1 came after the listing."""
    write("a")
    path_type = type(study.path)
    read_text = path_type.read_text

    def sweep_first(path, *args, **kwargs):
        if path.name == "t0-a.json":
            monkeypatch.undo()
            write("b", generation=1)
            path.unlink()
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(path_type, "read_text", sweep_first)
    assert [commit.part for commit in results.read_commits(study)] == ["b"]


def test_temporary_files_are_no_commits(study, commit_file):
    commit_file.with_name(".t0-b.json").write_text("{")
    assert len(results.read_commits(study)) == 1
