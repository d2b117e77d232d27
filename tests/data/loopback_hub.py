"""A hub on the loopback: serves a folder <root>/<owner>/<name>/... to the real Hugging Face clients (set HF_ENDPOINT)."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve data sets until the block ends; yields the endpoint."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/").removeprefix("api/")
            kind, owner, name, *rest = [*path.split("/"), "", ""][: max(3, len(path.split("/")))]
            repository = root / owner / name
            if kind != "datasets" or not repository.is_dir():
                self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif rest[:1] == ["resolve"]:
                self._file(repository.joinpath(*rest[2:]))
            elif rest[:1] == ["tree"]:
                self._json(listing(repository, repository.joinpath(*rest[2:])))
            else:
                self._json({"id": f"{owner}/{name}", "sha": COMMIT, "private": False, "tags": [], "siblings": []})

        do_HEAD = do_GET

        def _file(self, file: Path) -> None:
            if file.is_file():
                content = file.read_bytes()
                self._answer(200, content, {"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

        def _json(self, content: object) -> None:
            self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def listing(repository: Path, folder: Path) -> list[dict[str, object]]:
    """Entries of one folder, as the hub's tree endpoint gives them."""
    return [
        {"type": "file", "path": str(path.relative_to(repository)), "size": path.stat().st_size, "oid": digest(path)}
        if path.is_file()
        else {"type": "directory", "path": str(path.relative_to(repository)), "size": 0, "oid": COMMIT}
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
    ]


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
