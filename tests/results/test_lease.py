import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import psutil
import pytest

from results import Lease, LeaseHeld, LeaseLost, StudyError, live_holder
from results import lease as lease_module
from results.lease import LEASE_FILE, Holder, is_running, read_holder, require_lease


def started(pid):
    return psutil.Process(pid).create_time()


def put(study, *, age=0.0, **changes):
    """Writes a lease as another driver would have, last heartbeat `age` seconds ago."""
    holder = {"id": "theirs", "host": lease_module.socket.gethostname(), "pid": os.getpid(), "since": "then"}
    holder = Holder(**{**holder, "process_started": started(os.getpid()), **changes})
    path = study.path / LEASE_FILE
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def files(study):
    return sorted(path.name for path in study.path.iterdir() if "lease" in path.name)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_second_driver_is_refused_in_one_line_naming_the_first(study, lease):
    with pytest.raises(LeaseHeld) as caught:
        Lease.acquire(study.path)
    holder = read_holder(study.path / LEASE_FILE)
    for word in ("'sample'", holder.host, str(os.getpid()), holder.since):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert lease.is_held()
    assert files(study) == [LEASE_FILE]


def test_released_lease_can_be_taken(study):
    with Lease.acquire(study.path) as first:
        assert live_holder(study.path).id == first.id
    assert files(study) == []
    assert not first.is_held()
    assert live_holder(study.path) is None
    with Lease.acquire(study.path) as second:
        assert second.id != first.id


def test_released_although_the_driver_fails(study):
    with pytest.raises(RuntimeError), Lease.acquire(study.path):
        raise RuntimeError
    assert files(study) == []


def test_dead_process_on_this_host_is_stale_at_once(study, dead_pid):
    put(study, pid=dead_pid)
    assert live_holder(study.path) is None
    with Lease.acquire(study.path) as lease:
        assert lease.is_held()
        assert files(study) == [LEASE_FILE]


def test_reused_process_number_is_told_by_its_start(study):
    put(study, process_started=started(os.getpid()) - 100)
    with Lease.acquire(study.path) as lease:
        assert lease.is_held()


def test_living_process_on_this_host_is_never_stale(study):
    put(study, age=10_000)
    with pytest.raises(LeaseHeld):
        Lease.acquire(study.path)


def test_zombie_process_is_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    start = started(process.pid)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.005)
    assert not is_running(process.pid, start)
    process.wait()
    assert not is_running(process.pid, start)


class TestForeignHost:
    def test_held_while_it_beats(self, study, dead_pid):
        # Its process number means nothing here.
        put(study, host="elsewhere", pid=dead_pid, age=50)
        assert live_holder(study.path).host == "elsewhere"
        with pytest.raises(LeaseHeld, match="host elsewhere"):
            Lease.acquire(study.path)

    def test_stale_after_a_minute(self, study):
        put(study, host="elsewhere", age=70)
        assert live_holder(study.path) is None
        with Lease.acquire(study.path) as lease:
            assert lease.is_held()

    def test_judged_by_the_file_servers_clock(self, study, monkeypatch):
        # The server's clock is an hour ahead: fresh files bear its time, and so does the heartbeat.
        flushed = lease_module.write_flushed

        def ahead(path, data):
            flushed(path, data)
            os.utime(path, (time.time() + 3600, time.time() + 3600))

        monkeypatch.setattr(lease_module, "write_flushed", ahead)
        put(study, host="elsewhere", age=-3590)
        with pytest.raises(LeaseHeld):
            Lease.acquire(study.path)
        put(study, host="elsewhere", age=0)
        with Lease.acquire(study.path) as lease:
            assert lease.is_held()


class TestHeartbeat:
    def test_refreshes_the_file(self, study, monkeypatch):
        monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.01)
        with Lease.acquire(study.path):
            path = study.path / LEASE_FILE
            os.utime(path, (1, 1))
            assert becomes(lambda: path.stat().st_mtime > 1)

    def test_leaves_anothers_lease_alone(self, study, monkeypatch):
        monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.01)
        lease = Lease.acquire(study.path)
        path = put(study, host="elsewhere", age=30)
        time.sleep(0.05)  # a beat may have been under way when the file was replaced
        os.utime(path, (5, 5))
        content = path.read_text()
        time.sleep(0.1)
        assert not lease.is_held()
        lease.release()
        assert (path.read_text(), path.stat().st_mtime) == (content, 5)

    def test_thread_ends_with_the_lease(self, study):
        before = threading.active_count()
        lease = Lease.acquire(study.path)
        assert threading.active_count() == before + 1
        assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("lease-"))
        lease.release()
        assert threading.active_count() == before


def becomes(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_require_lease(study, lease):
    require_lease(study.path, lease.id)
    with pytest.raises(LeaseLost, match="lease other of study 'sample' is lost"):
        require_lease(study.path, "other")


def test_half_written_lease_is_held_until_a_minute_old(study):
    path = study.path / LEASE_FILE
    path.write_text('{"id"')
    with pytest.raises(LeaseHeld):
        Lease.acquire(study.path)
    os.utime(path, (1, 1))
    with Lease.acquire(study.path) as lease:
        assert lease.is_held()


def test_no_such_study(tmp_path):
    with pytest.raises(StudyError, match=r"cannot take the lease of .*missing"):
        Lease.acquire(tmp_path / "missing")


def test_file_system_without_links(study, monkeypatch):
    def unsupported(self, target):
        raise PermissionError

    monkeypatch.setattr(type(study.path), "hardlink_to", unsupported)
    with Lease.acquire(study.path) as lease:
        assert lease.is_held()
        with pytest.raises(LeaseHeld):
            Lease.acquire(study.path)
    assert files(study) == []


def test_a_rival_who_took_over_first_is_not_replaced(study, dead_pid, monkeypatch):
    """Both saw the same dead driver; the other was faster by a whole takeover."""
    put(study, pid=dead_pid)
    judged = lease_module.is_stale
    rivals = []

    def then_rival(holder, heartbeat, now):
        verdict = judged(holder, heartbeat, now)
        monkeypatch.undo()
        rivals.append(Lease.acquire(study.path))
        return verdict

    monkeypatch.setattr(lease_module, "is_stale", then_rival)
    with pytest.raises(LeaseHeld):
        Lease.acquire(study.path)
    assert rivals[0].is_held()
    assert files(study) == [LEASE_FILE]
    rivals[0].release()


def test_takeover_is_refused_while_another_is_at_it(study, dead_pid):
    path = put(study, pid=dead_pid, id="dead")
    marker = path.with_name(f".{LEASE_FILE}.dead.tmp")
    path.rename(marker)
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "id": "rival", "pid": os.getpid()}))
    put(study, pid=dead_pid, id="dead")
    with pytest.raises(LeaseHeld):
        Lease.acquire(study.path)


def test_takeover_after_one_who_died_while_taking_over(study, dead_pid):
    path = put(study, pid=dead_pid, id="second")
    path.rename(path.with_name(f".{LEASE_FILE}.first.tmp"))
    put(study, pid=dead_pid, id="first")
    with Lease.acquire(study.path) as lease:
        assert lease.is_held()
        assert files(study) == [LEASE_FILE]


def race(path, start, answers, done):
    start.wait()
    try:
        lease = Lease.acquire(path)
    except LeaseHeld:
        answers.put(None)
    else:
        answers.put(lease.id)
        done.wait()
        os.kill(os.getpid(), signal.SIGKILL)  # leaves a stale lease for the next round


def test_of_racing_processes_one_wins_free_and_stale(study):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "results"])
    for _ in range(4):  # the first round races for a free lease, the others for a dead driver's
        start, done, answers = context.Event(), context.Event(), context.Queue()
        rivals = [context.Process(target=race, args=(study.path, start, answers, done)) for _ in range(4)]
        for rival in rivals:
            rival.start()
        start.set()
        winners = [winner for winner in (answers.get(timeout=20) for _ in rivals) if winner]
        assert len(winners) == 1
        assert read_holder(study.path / LEASE_FILE).id == winners[0]
        done.set()
        for rival in rivals:
            rival.join()
        answers.close()


def test_of_racing_threads_one_wins_a_stale_lease(study, dead_pid):
    """Threads interleave more tightly than processes can be started."""
    for _ in range(30):
        put(study, pid=dead_pid)
        barrier, leases = threading.Barrier(4), []

        def rival(barrier=barrier, leases=leases):
            barrier.wait()
            with contextlib.suppress(LeaseHeld):
                leases.append(Lease.acquire(study.path))

        threads = [threading.Thread(target=rival) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(leases) == 1
        assert leases[0].is_held()
        assert files(study) == [LEASE_FILE]
        leases[0].release()
