"""Leaks responses of `requests` in the ways that people do, and says exactly which sockets those are.

Argument: the base address of a server that closes every connection after its answer, except for `/keep`, after
which it closes when told to. Reads commands, one a line: `small N`, `large N`, `pooled`.
"""

import json
import os
import sys

import requests

kept = []


def streamed(path):
    """Never read to the end, never closed: the connection goes back to no pool."""
    response = requests.get(sys.argv[1] + path, stream=True)
    kept.append(response)
    return response.raw._fp.fp.raw._sock


def pooled():
    """Read to the end: the session's pool keeps the connection for a next request that never comes."""
    session = requests.Session()
    session.get(sys.argv[1] + "/keep").content
    kept.append(session)
    (pool,) = session.get_adapter("http://").poolmanager.pools._container.values()
    connection = pool.pool.get()
    pool.pool.put(connection)
    return connection.sock


def shown(address):
    return f"{address[0]}:{address[1]}"


for line in sys.stdin:
    command, _, count = line.strip().partition(" ")
    answer = []
    for _ in range(int(count or 1)):
        sock = pooled() if command == "pooled" else streamed("/" + command)
        answer.append(
            {
                "pid": os.getpid(),
                "fd": sock.fileno(),
                "local": shown(sock.getsockname()),
                "remote": shown(sock.getpeername()),
            }
        )
    print(json.dumps(answer), flush=True)
