"""A hub on the loopback: serves one model repository to the real Hugging Face client (set HF_ENDPOINT)."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "b" * 40


@contextmanager
def serve_model(name: str, folder: Path) -> Iterator[str]:
    """Serve ``folder`` as the model ``name`` ('owner/model'), revision 'main', until the block ends; yields the endpoint."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/")
            files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
            resolved = path.removeprefix(f"{name}/resolve/{COMMIT}/")
            if path in (f"api/models/{name}/revision/main", f"api/models/{name}/revision/{COMMIT}"):
                siblings = [{"rfilename": file} for file in files]
                self._json({"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
            elif path == f"api/models/{name}/tree/{COMMIT}":
                self._json([{"type": "file", "path": file, **self._size_and_id(folder / file)} for file in files])
            elif resolved != path and resolved in files:
                content = (folder / resolved).read_bytes()
                digest = self._size_and_id(folder / resolved)["oid"]
                self._answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def _size_and_id(self, file: Path) -> dict[str, object]:
            return {"size": file.stat().st_size, "oid": hashlib.sha1(file.read_bytes()).hexdigest()}

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
