"""Leaks sockets in CLOSE_WAIT on purpose and says exactly which: the commands of leaker.c, as far as they go.

Argument `--name BYTES` in hexadecimal becomes the task name.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time

kept = []
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
backlog = socket.create_server(("127.0.0.1", 0), backlog=64)


def shown(address):
    return f"{address[0]}:{address[1]}"


def visited(upload):
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    if upload:
        client.sendall(b"x" * upload)
    client.close()
    return server


def read_to_the_end_and_forget(server):
    while server.recv(256):  # told EOF here
        pass
    kept.append(server)


def child_with(fds):
    """A forked process that has nothing but these descriptors, and that ends with this one."""
    parent, child = os.getpid(), os.fork()
    if child:
        return child
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd not in fds:
                try:
                    os.close(fd)
                except OSError:
                    pass  # That of the list itself.
        signal.pause()
    os._exit(0)


def leak(kind, count):
    after, sockets = time.monotonic_ns(), []
    for _ in range(count):
        if kind == "unaccepted":
            client = socket.create_connection(backlog.getsockname())
            entry = {"local": shown(client.getpeername()), "remote": shown(client.getsockname()), "holders": []}
            client.close()
        else:
            server = visited(3200 if kind == "data" else 0)
            entry = {"local": shown(server.getsockname()), "remote": shown(server.getpeername())}
            if kind in ("consumed", "forked"):
                read_to_the_end_and_forget(server)
            else:
                kept.append(server)
            entry["holders"] = [{"pid": os.getpid(), "fd": server.fileno()}]
        entry["kind"] = {"unaccepted": "not_accepted", "unread": "eof_unread", "data": "data_unread"}.get(
            kind, "eof_consumed"
        )
        sockets.append(entry)
    if kind == "forked":
        child = child_with({entry["holders"][0]["fd"] for entry in sockets})
        for entry in sockets:
            entry["holders"].append({"pid": child, "fd": entry["holders"][0]["fd"]})
    return {
        "pid": os.getpid(),
        "listen": [shown(listener.getsockname()), shown(backlog.getsockname())],
        "after_ns": after,
        "before_ns": time.monotonic_ns(),
        "sockets": sockets,
    }


def main():
    if "--name" in sys.argv:
        name = bytes.fromhex(sys.argv[sys.argv.index("--name") + 1])
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
    for line in sys.stdin:
        command, count = line.split()
        if command == "close":
            for server in kept[: int(count)]:
                server.close()
            del kept[: int(count)]
            answer = {"closed": int(count)}
        else:
            answer = leak(command, int(count))
        print(json.dumps(answer), flush=True)


main()
