"""Ctrl-C and SIGTERM: the first Ctrl-C lets what runs end, the second stops at once, and so does SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a run ends as it does on Ctrl-C."""


class Interruption:
    """Whether Ctrl-C has asked for an end.

    Attributes:
        is_asked: Whether it came, and no job is to begin any more.
    """

    def __init__(self) -> None:
        """Begin without."""
        self.is_asked = False

    def take(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGINT: note the first, raise on the second."""
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


@contextmanager
def first_ctrl_c_only_asks() -> Iterator[Interruption]:
    """While jobs run, let the first Ctrl-C only ask for an end.

    In another thread than the main one signals can't be taken: nothing changes.
    """
    interruption = Interruption()
    if not _is_main_thread():
        yield interruption
        return
    old = signal.signal(signal.SIGINT, interruption.take)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, old)


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run the way that the second Ctrl-C does: batch systems leave little time.

    The first one raises; those after it are ignored, for `timeout` and batch systems send two, and the second must not
    stop the tables from being written. In another thread than the main one signals can't be taken: nothing changes.
    """
    if not _is_main_thread():
        yield
        return
    has_come = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        if not has_come:
            has_come = True
            raise Terminated

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        # What Ray catches inside its own calls it raises anew, as the plain kind.
        raise (Terminated if has_come else KeyboardInterrupt) from error
    finally:
        signal.signal(signal.SIGTERM, old)


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Keep our handler of SIGTERM while Ray starts, which would replace it by one that exits at once.

    Ray does so in Python, twice, and in C++ as well: that one's is taken back at the end.
    """
    ours, install = signal.getsignal(signal.SIGTERM), signal.signal

    def install_but_for_sigterm(number: int, handler: Any) -> Any:
        return ours if number == signal.SIGTERM else install(number, handler)

    signal.signal = install_but_for_sigterm  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = install
        if _is_main_thread():
            signal.signal(signal.SIGTERM, ours)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
