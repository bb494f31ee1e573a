"""The stand-in Hub as an HTTP server: it finds the route, checks the token, misbehaves where a test wants it to."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.packs.fakehub.routes import Answer, Refusal, Request, find_route
from tests.packs.fakehub.store import Account, Repo, sha256

LARGE = (".safetensors", ".bin", ".png", ".webp")
TOKENS = {
    "hf_owner": Account("somebody", orgs=("studio",)),
    "hf_reader": Account("somebody", role="read"),
    "hf_other": Account("stranger"),
}


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" holds the expression."""

    where: str
    times: int  # how often it still happens
    status: int | None  # the answer instead
    after: int | None  # bytes of the answer that are sent before the connection breaks
    wait: float  # seconds before the answer
    text: str  # what the answer says


@dataclass
class Asked:
    """A request, and what was sent for it."""

    method: str
    path: str
    range: str | None
    account: str | None = None
    status: int = 0
    sent: int = 0  # bytes of the answer's body


class Hub(ThreadingHTTPServer):
    """The server. `url` is what HF_ENDPOINT has to be; `asked` is all that was asked of it so far."""

    daemon_threads = True

    def __init__(self, large: tuple[str, ...] = LARGE):
        """Serve until the process ends.

        Args:
            large: how the names end of files that lie in the large-file store; () puts all of them into git.
        """
        self.large, self.lock = large, threading.RLock()
        self.clear()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def clear(self) -> None:
        """Forget everything."""
        self.tokens = dict(TOKENS)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.page = 1000  # entries of a page of a list

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def store_url(self) -> str:
        """Another origin, as the real one has: what is redirected there gets no token."""
        return f"http://localhost:{self.server_port}/_lfs"

    def put(self, repo_id: str, files: dict[str, bytes], branch: str = "main", **settings: Any) -> Repo:
        """A repository with files, without asking a client for it."""
        with self.lock:
            repo = self.repos.setdefault(("model", repo_id), Repo(repo_id, **settings))
            before = repo.commits[repo.branches["main"]]
            large = before.large | {name for name in files if name.endswith(self.large)}
            self.blobs.update({sha256(data): data for name, data in files.items() if name in large})
            repo.add(branch, {**before.files, **files}, large, "put")
        return repo

    def model(self, repo_id: str) -> Repo:
        return self.repos["model", repo_id]

    def fail(
        self,
        where: str,
        *,
        times: int = 1,
        status: int | None = None,
        after: int | None = None,
        wait: float = 0,
        text: str = "something went wrong",
    ) -> None:
        """Make the next `times` requests that `where` finds go wrong."""
        self.faults.append(Fault(where, times, status, after, wait, text))

    def take_fault(self, asked: Asked) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, f"{asked.method} {asked.path}"):
                    fault.times -= 1
                    return fault
        return None

    def of(self, where: str) -> list[Asked]:
        """What was asked whose "METHOD /path" holds the expression."""
        return [asked for asked in self.asked if re.search(where, f"{asked.method} {asked.path}")]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self._body()
        asked = Asked(self.command, unquote(self.path), self.headers.get("Range"))
        self.server.asked.append(asked)
        fault = self.server.take_fault(asked)
        if fault is not None and fault.wait:
            time.sleep(fault.wait)
        if fault is not None and fault.status is not None:
            answer = Refusal(fault.status, fault.text).answer()
        else:
            answer = self._answer(asked, body)
        try:
            self._send(answer, asked, None if fault is None else fault.after)
        except (BrokenPipeError, ConnectionResetError):  # whoever asked did not wait
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, asked: Asked, body: bytes) -> Answer:
        address = urlsplit(self.path)
        try:
            with self.server.lock:
                account = self._account()
                asked.account = account.name if account else None
                request = Request(self.server, account, parse_qs(address.query), body, asked.range)
                endpoint, words = find_route(self.command, address.path)
                return endpoint(request, *words)
        except Refusal as refusal:
            return refusal.answer()

    def _account(self) -> Account | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.server.tokens.get(token)

    def _send(self, answer: Answer, asked: Asked, after: int | None) -> None:
        data = answer.data if isinstance(answer.data, bytes) else json.dumps(answer.data).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        asked.status = answer.status
        if self.command == "HEAD":
            return
        sent = data if after is None else data[:after]
        self.wfile.write(sent)
        asked.sent = len(sent)
        if len(sent) < len(data):
            self.wfile.flush()
            self.close_connection = True
