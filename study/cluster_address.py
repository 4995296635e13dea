"""A cluster's address: its form, and whether a cluster answers there, before anything of a study is made."""

import os
import re
import socket
import subprocess
import sys

from study.cluster import BEFORE_IMPORT, EnvironmentFault
from twophase.errors import BadInput

CONNECT_SECONDS = 5.0
JOIN_SECONDS = 45.0
FORMS = "host:port, ray://host:port or auto"
_PLACE = re.compile(r"(?P<client>ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,9})")
# In a process of its own, for Ray's wait for a cluster that isn't there takes minutes and can't be ended from outside.
_JOIN = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"


def check_form(address: str) -> None:
    """Hold an address against the forms that there are.

    Raises:
        BadInput: It is none of them.
    """
    place = _PLACE.fullmatch(address)
    if address != "auto" and place is None:
        raise BadInput(f"address must be {FORMS}, got {address!r}; leave it out to use this machine")
    if place and not 1 <= int(place["port"]) <= 65535:
        raise BadInput(f"address must have a port from 1 to 65535, got {address!r}")


def check_answer(address: str) -> None:
    """See whether a cluster answers: a connection within seconds, then a trial of joining it within a minute.

    Raises:
        EnvironmentFault: None does.
    """
    place = _PLACE.fullmatch(address)
    if place:
        try:
            socket.create_connection((place["host"].strip("[]"), int(place["port"])), CONNECT_SECONDS).close()
        except OSError as error:
            raise EnvironmentFault(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    if place and place["client"]:
        return  # Ray's own client gives up within half a minute.
    try:
        subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            env={**BEFORE_IMPORT, **os.environ},
            check=True,
            capture_output=True,
            text=True,
            timeout=JOIN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"no Ray cluster answers at {address} within {JOIN_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise EnvironmentFault(f"Ray can't be used on {address}: {lines[-1] if lines else 'no cause given'}") from None
