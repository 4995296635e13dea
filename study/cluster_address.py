"""A cluster's address: its form, and what the cluster there says of itself, before anything of a study is made."""

import json
import os
import re
import socket
import subprocess
import sys

from study.cluster import BEFORE_IMPORT, EnvironmentFault
from study.nodes import Node
from twophase.errors import BadInput

CONNECT_SECONDS = 5.0
JOIN_SECONDS = 45.0
FORMS = "host:port, ray://host:port or auto"
_PLACE = re.compile(r"(?P<client>ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,9})")
# In a process of its own, for Ray's wait for a cluster that isn't there takes minutes and can't be ended from outside.
_JOIN = """
import json, sys, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def memory():
    import torch
    sizes = [torch.cuda.mem_get_info(i)[1] for i in range(torch.cuda.device_count())]
    return min(sizes, default=0)

ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)
nodes = [node for node in ray.nodes() if node['Alive']]
print(json.dumps([[node['Resources'].get(kind, 0) for kind in ('CPU', 'GPU')] for node in nodes]))
if sys.argv[2] == 'memory':
    there = [NodeAffinitySchedulingStrategy(n['NodeID'], soft=False) for n in nodes if n['Resources'].get('GPU', 0)]
    ask = ray.remote(num_cpus=0, num_gpus=0.01)(memory)
    print(min(ray.get([ask.options(scheduling_strategy=node).remote() for node in there]), default=0))
"""


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


def nodes_at(address: str) -> tuple[Node, ...]:
    """See whether a cluster answers, and what its machines offer: a connection within seconds, then joining it.

    Raises:
        EnvironmentFault: None answers within a minute.
    """
    return tuple(Node(cpus, gpus) for cpus, gpus in json.loads(_answer(address, "nodes")[0]))


def memory_at(address: str) -> int:
    """Bytes of memory of the smallest GPU of a cluster that has some; 0 if it is not told.

    Raises:
        EnvironmentFault: No cluster answers within a minute.
    """
    return int(_answer(address, "memory")[1])


def _answer(address: str, what: str) -> list[str]:
    place = _PLACE.fullmatch(address)
    if place:
        try:
            socket.create_connection((place["host"].strip("[]"), int(place["port"])), CONNECT_SECONDS).close()
        except OSError as error:
            raise EnvironmentFault(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _JOIN, address, what],
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
    return answer.stdout.splitlines()
