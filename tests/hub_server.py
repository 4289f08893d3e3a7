"""A local stand-in for the few routes of the Hugging Face Hub that pushing and loading need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by name, and what was asked with which token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The routes, as huggingface_hub calls them."""

    server: Hub

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self._asked()
        if self.headers.get("Authorization") != "Bearer secret-token":
            return self._json({"error": "no token"}, 401)
        if path == "/api/repos/create":
            data = json.loads(body)
            name = f"{data.get('organization') or 'me'}/{data['name']}"
            self.server.repos.setdefault(name, {})
            return self._json({"url": f"{self.server.address}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                content = base64.b64decode(row["value"]["content"])
                self.server.repos[name][row["value"]["path"]] = content
        address = f"{self.server.address}/{name}/commit/{COMMIT}"
        return self._json({"commitOid": COMMIT, "commitUrl": address})

    def do_GET(self) -> None:
        path = self._asked()
        parts = path.removeprefix("/datasets").strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.server.repos.get(name)
        if files is None:
            return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
        if parts[0] != "api":
            return self._file(files["/".join(parts[4:])])
        if "tree" in parts:
            rows = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in files.items()
            ]
            return self._json(rows)
        siblings = [{"rfilename": path} for path in files]
        return self._json({"id": name, "sha": COMMIT, "siblings": siblings})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _asked(self) -> str:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Authorization")))
        return path

    def _file(self, content: bytes) -> None:
        self._send(content, 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _json(self, data: Any, code: int = 200, error: str | None = None) -> None:
        self._send(json.dumps(data).encode(), code, {"X-Error-Code": error} if error else {})

    def _send(self, content: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        headers = {"X-Repo-Commit": COMMIT, **headers, "Content-Length": str(len(content))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
