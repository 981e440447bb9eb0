"""The page of a study served on this machine alone, renewed while the study runs.

The address holds a random token, so that no other user of the machine and no page of another
origin can guess it; requests under any other name of the host, as DNS rebinding makes them, are
refused.
"""

import contextlib
import hashlib
import http.server
import json
import os
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dqx.report import cases, findings, page
from dqx.report.page import records
from dqx.report.page.document import document
from dqx.report.page.encode import strict_json
from dqx.settings import ConfigError
from dqx.study.folder import Folder, StudyError
from dqx.study.results import Study, load

HOST = "127.0.0.1"
# How often a page asks for what is new, in seconds.
PERIOD = 2.0
# A page is made anew after so many times what making it took, so that training keeps its cores.
_PAUSE = 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Watched:
    """What the page of a study shows now; made anew when results have changed.

    Args:
        path: the study's folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._lock = Path(path), threading.Lock()
        self._content: dict[str, Any] = {}
        self._rest = 0.0  # until when nothing is made anew

    def content(self) -> dict[str, Any]:
        """What the page shows, with the mark of its results.

        Raises:
            StudyError: naming the file, if one is damaged.
            ConfigError: if an agent is not known here.
        """
        with self._lock:
            mark = _mark(Folder(self._path))
            known = self._content.get("mark")
            if known is None or (mark != known and time.monotonic() >= self._rest):
                begun = time.monotonic()
                studies = [load(self._path)]
                groups = findings.groups(cases.read(studies))
                self._content = {**page.content(studies, groups), "mark": mark}
                took = time.monotonic() - begun
                self._rest = time.monotonic() + _PAUSE * took
            elif mark == known and time.monotonic() >= self._rest:
                begun = time.monotonic()
                self._content["studies"][0]["state"] = records.state(load(self._path))
                self._rest = time.monotonic() + _PAUSE * (time.monotonic() - begun)
            return dict(self._content)


def _mark(folder: Folder) -> str:
    """Changes with the results of a study, not with its progress."""
    files = [folder.plan, folder.manifest, folder.certificate, *_records(folder)]
    total = hashlib.sha256()
    for path in files:
        with contextlib.suppress(OSError):
            state = path.stat()
            total.update(f"{path.name} {state.st_mtime_ns} {state.st_size}\n".encode())
    return total.hexdigest()[:16]


def _records(folder: Folder) -> list[Path]:
    return [path for path in folder.records() if path.parent != folder.checkpoints]


class Server(http.server.ThreadingHTTPServer):
    """Serves the page of a study; ``with`` closes it.

    Args:
        path: the study's folder.
        port: to listen on; 0 for a free one.

    Attributes:
        address: of the page.

    Raises:
        StudyError: if the folder holds no study, or the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, path: str | os.PathLike[str], port: int = 0) -> None:
        study: Study = load(path)
        self.watched, self.token = Watched(study.path), secrets.token_urlsafe(18)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StudyError(
                f"cannot listen on port {port} of {HOST}: {reason}; choose another --port, or "
                "none for a free one"
            ) from None
        self.address = f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has left before it was answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "dqx", ""
    timeout = 30

    def do_GET(self) -> None:
        """Gives the page or its data to who knows the token."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            return self._answer(403, "another host")
        token, _, name = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return self._answer(404, "there is nothing here")
        if name not in ("", "data.json"):
            return self._answer(404, "there is nothing here")
        try:
            shown = self.server.watched.content()
        except (StudyError, ConfigError, OSError) as error:  # it may be replaced meanwhile
            return self._answer(500, str(error))
        mark = hashlib.sha256(json.dumps([shown["mark"], *_states(shown)]).encode()).hexdigest()
        mark = f'"{mark[:24]}"'
        if not name:
            return self._answer(200, document(shown, watch=(PERIOD, mark)), "text/html", mark)
        if self.headers.get("If-None-Match") == mark:
            return self._answer(304, "", mark=mark)
        self._answer(200, strict_json(shown), "application/json", mark)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(405, "only GET")

    def _answer(
        self, status: int, text: str, kind: str = "text/plain", mark: str | None = None
    ) -> None:
        body = text.encode()
        self.send_response(status)
        for header, value in _HEADERS.items():
            self.send_header(header, value)
        if status == 405:
            self.send_header("Allow", "GET")
        if mark is not None:
            self.send_header("ETag", mark)
        if status != 304:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304 and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps requests, whose addresses hold the token, off the terminal."""


def _states(shown: dict[str, Any]) -> list[str]:
    return [study["state"] for study in shown["studies"]]
