"""Whether Ray still lives: Tune would wait for ever where its daemon on this machine is gone."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from study.nodes import Node

DAEMONS = ("raylet", "gcs_server")
PULSE_SECONDS = 5.0
SILENT_SECONDS = 45.0
SHUTDOWN_SECONDS = 10.0


class RayGone(BaseException):
    """Ray is gone in the middle of a sweep; no `Exception`, on which Tune would wait for what is gone to tidy up."""


class LocalVitals:
    """Ray as this process started it: both of its daemons are children of ours.

    Attributes:
        machines: This machine, as Ray knows it.
    """

    def __init__(self, machines: Sequence[Node] = ()) -> None:
        """Find them; to be called once Ray has started."""
        self.machines = machines
        self._daemons = [child for child in psutil.Process().children() if _name(child) in DAEMONS]
        # They outlive their daemon for a while, and are nobody's children then.
        self._agents = [child for daemon in self._daemons for child in _children(daemon)]

    def fault(self) -> str:
        """What is wrong, in words; empty if nothing."""
        gone = [daemon for daemon in self._daemons if not _is_alive(daemon)]
        return f"Ray's process {gone[0].pid} on this machine was killed" if gone else ""

    def leave(self, shutdown: Callable[[], None]) -> None:
        """Leave Ray; where a daemon is gone, which the other one and workers would wait for, with nothing running."""
        if self.fault():
            alive = [daemon for daemon in self._daemons if _is_alive(daemon)]
            below = [child for daemon in alive for child in _children(daemon)]
            for process in [*self._daemons, *self._agents, *below]:
                _kill(process)
            _bounded(shutdown)
        else:
            shutdown()


class ClusterVitals:
    """A cluster that was joined: it is asked for its nodes, over and over, in a thread of its own.

    Attributes:
        machines: The nodes that live.
    """

    def __init__(self, nodes: Callable[[], Any], address: str, is_joined: Callable[[list[Any]], bool]) -> None:
        """Begin to ask.

        Args:
            nodes: Asks.
            address: The cluster's, to be named.
            is_joined: Tells from its nodes whether the one that this process joined lives.
        """
        self._nodes, self._address, self._is_joined = nodes, address, is_joined
        self.machines = nodes_of(nodes())
        self._heard, self._fault, self._ended = time.monotonic(), "", threading.Event()
        threading.Thread(target=self._ask, name="ray-pulse", daemon=True).start()

    def fault(self) -> str:
        """What is wrong, in words; empty if nothing."""
        silent = time.monotonic() - self._heard
        if not self._fault and silent > SILENT_SECONDS:
            self._fault = f"the Ray cluster at {self._address} was last heard of {silent:.0f} s ago"
        return self._fault

    def leave(self, shutdown: Callable[[], None]) -> None:
        """Leave the cluster, which may be gone."""
        self._ended.set()
        if self.fault():
            _bounded(shutdown)
        else:
            shutdown()

    def _ask(self) -> None:
        while not self._ended.wait(PULSE_SECONDS):
            try:
                nodes = self._nodes()
                self.machines = nodes_of(nodes)
                if not self._is_joined(nodes):
                    self._fault = f"the node of the Ray cluster at {self._address} that the driver joined is gone"
                    return
            except Exception as error:  # noqa: BLE001 - whatever Ray raises here, it doesn't answer
                self._fault = f"the Ray cluster at {self._address} doesn't answer: {str(error).splitlines()[0]}"
                return
            self._heard = time.monotonic()


def nodes_of(listed: list[Any]) -> tuple[Node, ...]:
    """The nodes that live, of those that `ray.nodes` lists."""
    offered = [node["Resources"] for node in listed if node["Alive"]]
    return tuple(Node(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in offered)


def _bounded(shutdown: Callable[[], None]) -> None:
    """Do what may wait for what is gone, and go on without it after a while."""
    thread = threading.Thread(target=shutdown, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
