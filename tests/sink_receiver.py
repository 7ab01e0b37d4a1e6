"""A receiver of a sink as a process of its own: `sink_receiver.py PORT FILE`. It may be killed at any moment.

What it takes it has written down before it answers, in the order in which it came.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import RawIOBase
from pathlib import Path


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, book: RawIOBase) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.book = book
        self.turn = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.turn:
            self.server.book.write(body + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    with Path(sys.argv[2]).open("ab", buffering=0) as book:
        Receiver(int(sys.argv[1]), book).serve_forever()
