"""Studies in an object store: where a disk has renames and links, it has whole and conditional uploads."""

import json
import os
import time
from dataclasses import asdict

import pandas as pd
import pytest
from moto.server import ThreadedMotoServer
from sample_study import SETTING_COLUMNS, Writer, keys_of, rows_of

import results
from results import Lease, LeaseHeld, StudyError, lease, places
from results.files import json_bytes, write_bytes, write_flushed
from results.lease import LEASE_FILE, Holder, require_lease

CHAOS = {"chaos": rows_of("chaos", reference_digest="d0"), "kernel": rows_of("kernel")}


@pytest.fixture(scope="module")
def bucket():
    """A store with the S3 protocol, on loopback, for this module."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    named = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in named.items():
            patch.setenv(name, value)
        results.place("s3://sweeps").fs.mkdir("sweeps")
        yield "s3://sweeps"
    server.stop()


@pytest.fixture
def remote(bucket, request):
    return results.create(f"{bucket}/{request.node.name}/sample", study="sample", setting_columns=SETTING_COLUMNS)


def fill(study):
    """Parts written, replaced, superseded, failed and packed, as drivers do one after another."""
    with Lease.acquire(study.path) as held:
        write = Writer(study, held.id)
        write("a", CHAOS)
        write("a", {"kernel": rows_of("kernel", first=5)})
        write("b", CHAOS, trial_key="t1", keys=keys_of(seed=1))
        write("c", {}, trial_key="t2", keys=keys_of(seed=2), status="failed", error="no luck")
        write("a", CHAOS, generation=1)
        results.sweep(study, lease_id=held.id)
        results.compact(study, lease_id=held.id)
        write("d", CHAOS, trial_key="t1", keys=keys_of(seed=1), generation=2)
        results.write_trials(study)
        return results.sweep(study, lease_id=held.id)


def test_a_store_holds_what_a_disk_holds(remote, tmp_path):
    local = results.create(tmp_path / "sample", study="sample", setting_columns=SETTING_COLUMNS)
    removed = [[name.partition("-")[0] for name in fill(study)] for study in (local, remote)]
    assert removed[0] == removed[1] != []
    again = results.open(str(remote.path))
    for table in results.TABLES:
        pd.testing.assert_frame_equal(again.table(table), local.table(table), check_exact=True)
    assert len(again.table("chaos", filters=[("seed", "==", 1)])) == 3
    assert results.check(again) == results.check(local) == []
    names = [sorted(path.parent.name for path in study.path.rglob("*.*")) for study in (local, again)]
    assert names[0] == names[1]
    assert results.studies_in(again.path.parent) == ["sample"]
    assert results.place(again.path) is again.path


def test_a_lost_and_a_cut_file_are_found(remote):
    fill(remote)
    one = next((remote.path / "chaos").glob("t1-*"))
    data = one.read_bytes()
    one.unlink()
    assert [finding.what for finding in results.check(remote)] == ["data file is missing"]
    with pytest.raises(StudyError, match=r"data file s3://.* is missing, though a commit names it"):
        remote.table("chaos")
    write_bytes(one, data[:-9])
    (finding,) = results.check(remote)
    assert "bytes, its commit says" in finding.what


def test_one_driver_at_a_time(remote):
    with Lease.acquire(remote.path) as first:
        with pytest.raises(LeaseHeld, match="in use by host"):
            Lease.acquire(remote.path)
        assert results.live_holder(remote.path).id == first.id
    assert results.live_holder(remote.path) is None
    assert not [path.name for path in remote.path.iterdir() if "lease" in path.name]


def test_a_silent_driver_of_another_host_gives_way_and_a_beating_one_does_not(remote, monkeypatch):
    theirs = Holder("theirs", "elsewhere", 1, 0.0, "then")
    path = remote.path / LEASE_FILE
    write_flushed(path, json_bytes(asdict(theirs)))
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.5)
    time.sleep(2.5)
    write_bytes(lease._beat_file(path, "theirs"), b"")
    with pytest.raises(LeaseHeld):
        Lease.acquire(remote.path)
    time.sleep(2.5)
    with Lease.acquire(remote.path) as mine:
        require_lease(remote.path, mine.id)
        assert json.loads(path.read_text())["host"] == os.uname().nodename


def test_a_driver_s_beat_never_touches_the_lease(remote, monkeypatch):
    """A beat that came late, from a driver that was taken for dead, must not bring its lease back."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    with Lease.acquire(remote.path) as mine:
        path = remote.path / LEASE_FILE
        until = time.monotonic() + 20
        while not lease._beat_file(path, mine.id).exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        write_bytes(path, json_bytes(asdict(Holder("theirs", "elsewhere", 1, 0.0, "then"))))
        time.sleep(0.3)
        assert results.live_holder(remote.path).id == "theirs"
    assert results.live_holder(remote.path).id == "theirs"


def test_what_must_be_new_is_refused_by_the_store(remote):
    path = remote.path / "once"
    places.upload(path, b"first", is_new=True)
    with pytest.raises(FileExistsError):
        places.upload(path, b"second", is_new=True)
    assert path.read_bytes() == b"first"


def test_places_that_cannot_be_reached_are_told_in_one_line(bucket, monkeypatch):
    with pytest.raises(StudyError, match="no study at s3://sweeps/none/x"):
        results.open("s3://sweeps/none/x")
    with pytest.raises(
        StudyError, match=r"cannot reach nowhere://a: .*Unsupported filesystem.* use a folder, or an address"
    ):
        results.place("nowhere://a")
    assert str(results.place("file:///tmp/a")) == "/tmp/a"
    (results.place("s3://sweeps") / "other" / "x.txt").write_bytes(b"hello")
    with pytest.raises(StudyError, match="s3://sweeps/other has files but is not a study"):
        results.require_room("s3://sweeps/other")


def test_no_credentials_are_told_of_in_one_line():
    """Every store's own errors become the one that says that the place can't be written."""

    class Refusing:
        protocol, path = "s3", "sweeps/x"

        class fs:  # noqa: N801 - as fsspec names it
            @staticmethod
            def pipe_file(*_, **__):
                raise RuntimeError("Unable to locate credentials\nsecond line")

    with pytest.raises(OSError, match=r"Unable to locate credentials$"):
        places.upload(Refusing(), b"")
