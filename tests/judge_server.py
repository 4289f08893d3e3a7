"""A small OpenAI-compatible server on a free port, which says what the test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": said}],
    }


@dataclass
class JudgeServer:
    """What the server was asked, and how many requests it had under way at one time.

    Attributes:
        answer: from the prompt and the number of the request, from 0, to (status, body).
        delay: seconds that each answer takes.
    """

    answer: Callable[[str, int], tuple[int, Any]]
    delay: float = 0.0
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _handler(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.requests)
                server.requests.append(request)
                server.keys.add(self.headers["Authorization"])
                server.under_way += 1
                server.most_under_way = max(server.most_under_way, server.under_way)
            time.sleep(server.delay)
            with server.lock:
                server.under_way -= 1
            status, body = server.answer(request["messages"][0]["content"], number)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def judge_server(
    answer: Callable[[str, int], tuple[int, Any]], delay: float = 0.0
) -> Iterator[JudgeServer]:
    state = JudgeServer(answer, delay)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    http.daemon_threads = True
    state.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
