"""A local HTTP server with Range and injected faults, and a local S3 server behind it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REFUSALS = {"401": 401, "403": 403, "404": 404, "429": 429, "500": 500, "503": 503}


class FaultyServer:
    """Serve a folder, or pass requests on to another port, with faults in the answers.

    `faults` maps the end of a path to the faults of its next GETs, one each; a fault with a * behind it stays.
    `asked` lists (path, first byte asked for) of every GET.
    """

    def __init__(self, folder: Path | None = None, *, upstream: int | None = None, port: int = 0) -> None:
        self.folder, self.upstream = folder, upstream
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, int]] = []
        self.pause_s = 0.02  # between pieces of 1 KiB where an answer is slow
        self.ended = threading.Event()
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"ours": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        for connection in self.connections:  # kept alive, they would go on being served
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()

    def take(self, path: str, start: int) -> str:
        with self.lock:
            self.asked.append((path, start))
            for end, faults in self.faults.items():
                if path.endswith(end) and faults:
                    return faults[0][:-1] if faults[0].endswith("*") else faults.pop(0)
        return ""

    def starts(self, end: str) -> list[int]:
        """List the first bytes asked for, of the file whose path ends so."""
        return [start for path, start in self.asked if path.endswith(end)]


class _Handler(BaseHTTPRequestHandler):
    ours: FaultyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written apart: 40 ms an answer otherwise

    def setup(self) -> None:
        super().setup()
        self.ours.connections.append(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        fault = self.ours.take(self.path, int(wanted[1]) if wanted else 0)
        if fault in REFUSALS:
            return self.answer(REFUSALS[fault], b"no")
        status, body, more = self.pass_on() if self.ours.upstream else self.read(None if fault == "whole" else wanted)
        if fault == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.answer(status, body, more, fault)

    do_HEAD = do_PUT = do_POST = do_GET

    def read(self, wanted: re.Match[str] | None) -> tuple[int, bytes, dict[str, str]]:
        assert self.ours.folder is not None
        try:
            data = (self.ours.folder / self.path.lstrip("/")).read_bytes()
        except FileNotFoundError:
            return 404, b"", {}
        if wanted is None:
            return 200, data, {}
        first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
        if first >= len(data):
            return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
        body = data[first : last + 1]
        return 206, body, {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}"}

    def pass_on(self) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ours.upstream, timeout=10)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection.request(self.command, self.path, content, dict(self.headers))
        answer = connection.getresponse()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("content-length", "connection", "date")}
        return answer.status, answer.read(), kept

    def answer(self, status: int, body: bytes, more: dict[str, str] | None = None, fault: str = "") -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        part = len(body) // 2 if fault in ("stall", "truncate", "reset") else len(body)
        try:
            if fault == "slow":
                for start in range(0, part, 1024):
                    self.wfile.write(body[start : start + 1024])
                    self.wfile.flush()
                    time.sleep(self.ours.pause_s)
            else:
                self.wfile.write(body[:part])
                self.wfile.flush()
            if fault == "stall":
                self.ours.ended.wait(30)
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
        except OSError:  # the client has gone
            pass
        if fault in ("stall", "truncate", "reset"):
            self.close_connection = True


@contextmanager
def s3_server() -> Iterator[int]:
    """Start moto's S3 server in a process of its own; give its port."""
    code = "from moto.server import main; import sys; main(sys.argv[1:])"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MOTO_ALLOW_NONEXISTENT_REGION": "true"},
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "moto's server ended at once"
                time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
