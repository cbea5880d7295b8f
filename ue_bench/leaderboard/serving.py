"""Serve pages to this machine alone, and make them anew when results have come.

Nothing is written: pages are kept in memory, and other files, such as results that pages link to, are read from the
folder as they are asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import EnvironmentProblem, UserError
from ..store.listing import Stamp, json_files

ADDRESS = "127.0.0.1"
PAUSE = 1.0  # seconds for which a folder that was looked at is not looked at again
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}
Texts = Mapping[str, str]  # pages by their path in the folder


class Pages:
    """The pages of a folder, made by ``make`` and made again when a result of one of ``boards`` came or changed.

    ``boards`` returns the folders of boards, and is asked every time: a new one may appear.
    """

    def __init__(self, root: Path, make: Callable[[], Texts], boards: Callable[[], list[Path]]) -> None:
        self.root = root
        self._make, self._boards = make, boards
        self._lock = threading.Lock()
        self._texts: Texts = {}
        self._state: Any = None
        self._looked = -PAUSE

    def current(self) -> Texts:
        """Return the pages of the results that are there now, or were a second ago. Raises what making them raises."""
        with self._lock:
            now = time.monotonic()
            if self._state is None or now - self._looked >= PAUSE:
                state = {folder: _state(folder) for folder in self._boards()}
                if state != self._state:
                    self._texts = self._make()
                    self._state = state
                self._looked = time.monotonic()
            return self._texts

    def content(self, path: str) -> tuple[bytes, str] | None:
        """Return what lies under a path and its type; None where there is nothing to serve."""
        name = path.lstrip("/")
        name += "index.html" if name == "" or name.endswith("/") else ""
        kind = TYPES.get(Path(name).suffix)
        if kind is None:
            return None
        text = self.current().get(name)
        if text is not None:
            return text.encode(), kind
        return _file(self.root, name), kind


def _state(folder: Path) -> tuple[Any, ...]:
    """Return what tells that a board's results or failures, or what is known of their origin, changed."""
    try:
        submissions = Stamp.of((folder / "submissions.json").stat())
    except OSError:
        submissions = None
    return tuple(json_files(folder / kind) for kind in ("results", "evasion", "failures")), submissions


def _file(root: Path, name: str) -> bytes:
    """Return the content of a file in ``root``. Raises OSError where it is none, is hidden or lies elsewhere."""
    parts = name.split("/")
    if any(part.startswith(".") or part == "" or "\\" in part or "\0" in part for part in parts):
        raise FileNotFoundError(name)
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise PermissionError(name)
    return path.read_bytes()


class Server(ThreadingHTTPServer):
    """A server of ``pages`` on the loopback address; port 0 stands for any free one.

    Browsers load pages again after ``refresh`` seconds, if that is not 0. Raises EnvironmentProblem where the port is
    taken.
    """

    daemon_threads = True

    def __init__(self, pages: Pages, port: int, refresh: int) -> None:
        self.pages, self.refresh = pages, refresh
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise EnvironmentProblem(
                f"port {port} cannot be used: {error.strerror}", "choose another with --port; 0 takes a free one"
            ) from error

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "ue-bench"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        status, body, kind = self._reply()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.server.refresh and kind == TYPES[".html"]:
            self.send_header("Refresh", str(self.server.refresh))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _reply(self) -> tuple[HTTPStatus, bytes, str]:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (ADDRESS, "localhost"):  # a page from elsewhere, under a name that was made to lead here
            return _said(HTTPStatus.FORBIDDEN, "this server is for this machine alone")
        try:
            found = self.server.pages.content(unquote(urlsplit(self.path).path))
        except UserError as error:
            return _said(HTTPStatus.SERVICE_UNAVAILABLE, f"{error.message}\n{error.hint or ''}")
        except (OSError, ValueError):
            found = None
        if found is None:
            return _said(HTTPStatus.NOT_FOUND, "there is no such page")
        return HTTPStatus.OK, *found

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: what is asked for is nobody's concern."""


def _said(status: HTTPStatus, text: str) -> tuple[HTTPStatus, bytes, str]:
    return status, f"{text}\n".encode(), "text/plain; charset=utf-8"
