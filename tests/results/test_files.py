import math
import os
import stat

import pytest

from results.files import is_temp, json_bytes, temp_path, write_bytes


def test_replaces_the_whole_content(tmp_path):
    path = tmp_path / "a.json"
    write_bytes(path, b"a long first content")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_if_the_guard_raises(tmp_path):
    path = tmp_path / "a.json"

    def guard():
        # The temporary file is whole by now, beside its goal, under a name that Parquet readers skip.
        (temp,) = tmp_path.iterdir()
        assert temp.name.startswith(".")
        assert is_temp(temp)
        assert temp.read_bytes() == b"data"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_bytes(path, b"data", before_replace=guard)
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_differ(tmp_path):
    assert temp_path(tmp_path / "a") != temp_path(tmp_path / "a")
    assert not is_temp(tmp_path / "a.tmp")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_is_strict(value):
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"x": value})


def test_everything_is_on_the_disk_before_the_next_step(tmp_path, monkeypatch):
    """File, then name, then folder: a power cut cannot show a name without content."""
    log = []
    path_type = type(tmp_path)
    fsync, replace = os.fsync, path_type.replace

    def logged_fsync(descriptor):
        log.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def logged_replace(path, target):
        log.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(path_type, "replace", logged_replace)
    write_bytes(tmp_path / "a", b"data")
    assert log == ["file", "replace", "folder"]
