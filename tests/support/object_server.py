"""A real S3 server on loopback (moto), and a proxy before it that fails on order."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ltstore.storage import Location, open_location

BUCKET = "bucket"
CREDENTIALS = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
HOP = frozenset({"connection", "transfer-encoding", "content-length", "date", "server"})


@dataclass
class Request:
    """What a fault sees: its number, counted from 0, and what is asked for."""

    number: int
    method: str
    path: str


Fault = Callable[[Request], str]
"""Returns "" (let it pass), "500", "503", "hang", "cut" (half of the answer's body), "reset" (no answer), or
"lost" (the request is carried out and its answer is lost)."""


def no_fault(_: Request) -> str:
    """Let everything pass."""
    return ""


class ObjectServer:
    """Where the tests' bucket is."""

    def __init__(self, backend: tuple[str, int]) -> None:
        self.fault: Fault = no_fault
        self.requests: list[Request] = []
        self.hang_seconds = 3.0
        self._backend = backend
        self._guard = threading.Lock()
        methods = {f"do_{method}": _Proxy.serve for method in ("GET", "PUT", "HEAD", "POST", "DELETE")}
        handler = type("Handler", (_Proxy,), {"owner": self, **methods})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this server has in the environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def location(self, name: str, **options: Any) -> Location:
        """Return s3://bucket/NAME, with a client that does not wait long."""
        from datetime import timedelta

        retry = {
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {
                "init_backoff": timedelta(milliseconds=5),
                "max_backoff": timedelta(milliseconds=50),
                "base": 2,
            },
        }
        given = {"client_options": {"timeout": "2s"}, "retry_config": retry, **options}
        return open_location(f"s3://{BUCKET}/{name}", {**CREDENTIALS, "endpoint": self.endpoint, **given})

    def note(self, method: str, path: str) -> str:
        with self._guard:
            request = Request(len(self.requests), method, path)
            self.requests.append(request)
        return self.fault(request)

    def reset(self) -> None:
        self.fault = no_fault
        self.requests = []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Proxy(BaseHTTPRequestHandler):
    owner: ObjectServer
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        fault = self.owner.note(self.command, self.path)
        if fault == "hang":
            time.sleep(self.owner.hang_seconds)
            self.close_connection = True
            return
        if fault == "reset":
            self.close_connection = True
            return
        if fault in ("500", "503"):
            self._answer(int(fault), [], b"<Error><Code>InternalError</Code></Error>")
            return
        backend = http.client.HTTPConnection(*self.owner._backend, timeout=30)
        try:
            backend.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = backend.getresponse()
            data = answer.read()
        finally:
            backend.close()
        if fault == "lost":
            self.close_connection = True
            return
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
        size = answer.getheader("content-length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, data, cut=fault == "cut", size=size)

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        cut: bool = False,
        size: str | None = None,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", size or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Start moto and the proxy, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    backend.start()
    host, port = backend.get_host_and_port()
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", f"/{BUCKET}", headers={"Host": "s3.amazonaws.com"})
    assert connection.getresponse().status == 200
    connection.close()
    server = ObjectServer((host, port))
    try:
        yield server
    finally:
        server.close()
        backend.stop()
