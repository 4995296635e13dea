import math

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
