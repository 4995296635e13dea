import json

import pytest
from sample_study import SETTING_COLUMNS

import results
from results import Column, SchemaError, StudyError
from results.layout import SCHEMA_FILE

GROWN = Column("clip", "float", "1", "gradient clipping", fill=0.0)


def create(path, columns=SETTING_COLUMNS, study="sample"):
    return results.create(path, study=study, setting_columns=columns)


def edit_schema(study, **changes):
    path = study.path / SCHEMA_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_open_knows_what_create_wrote(study):
    opened = results.open(str(study.path))
    assert opened == study
    assert (opened.path, opened.name, opened.setting_columns) == (study.path, "sample", SETTING_COLUMNS)


def test_creating_again_opens(study):
    before = (study.path / SCHEMA_FILE).stat().st_mtime_ns
    assert create(study.path) == study
    assert (study.path / SCHEMA_FILE).stat().st_mtime_ns == before


def test_another_study_of_that_folder_is_refused(study):
    with pytest.raises(StudyError, match="holds study 'sample', not 'other'"):
        create(study.path, study="other")


def test_missing_study_names_what_is_there(study):
    create(study.path.parent / "other", study="other")
    with pytest.raises(StudyError) as caught:
        results.open(study.path.parent / "sampel")
    assert "no study at" in one_line(caught)
    assert "did you mean 'sample'?" in str(caught.value)
    assert "other, sample" in str(caught.value)


def test_root_of_studies_is_no_study(study):
    with pytest.raises(StudyError, match=r"is not a study.*; studies in it: sample") as caught:
        results.open(study.path.parent)
    one_line(caught)


def test_no_such_root(tmp_path):
    with pytest.raises(StudyError, match="there is no folder") as caught:
        results.open(tmp_path / "no" / "where")
    one_line(caught)


def test_a_file_is_no_study(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="is not a study"):
        results.open(tmp_path / "file")


def test_newer_schema_is_refused_even_if_it_looks_otherwise(study):
    edit_schema(study, version=results.VERSION + 1, setting_columns="something new")
    for action in (results.open, create):
        with pytest.raises(StudyError, match="schema version 4, newer than this program's 3; upgrade") as caught:
            action(study.path)
        one_line(caught)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "study": "s", "setting_columns": [{}]}']
)
def test_damaged_schema_file(study, text):
    (study.path / SCHEMA_FILE).write_text(text)
    with pytest.raises(StudyError, match="is damaged"):
        results.open(study.path)


def test_unwritable_path(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="cannot write to") as caught:
        create(tmp_path / "file" / "study")
    one_line(caught)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StudyError, match="has files but is not a study"):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_creation_after_a_kill_within_creation(tmp_path):
    (tmp_path / f".{SCHEMA_FILE}.123.tmp").write_text("{")
    assert create(tmp_path).name == "sample"


def test_empty_name(tmp_path):
    with pytest.raises(StudyError, match="must not be empty"):
        create(tmp_path, study="")


class TestGrowth:
    def test_new_leaf_is_added_last_and_kept(self, study):
        grown = create(study.path, (GROWN, *SETTING_COLUMNS))
        assert grown.setting_columns == (*SETTING_COLUMNS, GROWN)
        assert results.open(study.path) == grown

    def test_new_leaf_needs_fill(self, study):
        with pytest.raises(SchemaError, match="'clip' is new and needs `fill`"):
            create(study.path, (*SETTING_COLUMNS, Column("clip", "float", "1", "")))

    def test_removed_leaf(self, study):
        with pytest.raises(SchemaError, match="'model' of the study is gone"):
            create(study.path, SETTING_COLUMNS[1:])

    def test_changed_type(self, study):
        changed = Column("depth", "float", "", "")
        with pytest.raises(SchemaError, match="'depth' is a int in the study, not a float"):
            create(study.path, [changed if column.name == "depth" else column for column in SETTING_COLUMNS])

    def test_fill_stays_what_old_files_were_read_with(self, study):
        create(study.path, (*SETTING_COLUMNS, GROWN))
        again = create(study.path, (*SETTING_COLUMNS, Column("clip", "float", "1", "", fill=9.0)))
        assert again.setting_columns[-1].fill == 0.0
