"""A server on this machine that speaks as much of the hub's API as fetching a model takes.

Answers are those of https://huggingface.co: model info with the list of files, HEAD and GET of ``resolve`` addresses
with commit, ETag and size, redirects of large files to another host, errors with their codes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".ckpt", ".pt")


@dataclass
class Repo:
    """``commits``: commit -> its files; ``branches``: name -> commit. ``gated``: the list is public, files are not."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A new commit, to which the branch moves."""
        commit = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


@dataclass
class FakeHub:
    """``requests``: method and path of all that was asked, with a mark where the token came along.

    ``lies``: path of a file -> what is wrong with the answers about it.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_right"
    requests: list[str] = field(default_factory=list)
    megabytes: int = 0
    lies: dict[str, Lie] = field(default_factory=dict)
    endpoint: str = ""
    store: str = ""

    def repo(self, name: str) -> Repo:
        return self.repos.setdefault(name, Repo())

    def fetched(self) -> list[str]:
        """Paths of files whose bytes were asked for."""
        asked = [line.split()[1] for line in self.requests if line.startswith("GET") and "/resolve/" in line]
        return [path.split("/resolve/", 1)[1].split("/", 1)[1] for path in asked]


@dataclass
class Lie:
    """``content``: bytes sent instead; ``tag``, ``size``, ``commit``: header values; ``listed``: size in the list.

    ``endless``: megabytes that are sent, without saying how many there will be.
    """

    content: bytes | None = None
    tag: str | None = None
    size: int | None = None
    commit: str | None = None
    listed: int | None = None
    endless: int = 0


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def serving() -> Iterator[FakeHub]:
    """The hub and the store of its large files, on ports of their own."""
    hub = FakeHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"hub": hub})) for kind in (_Handler, _Store)
    ]
    hub.endpoint, hub.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *words: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {path}" + (" token" if "Authorization" in self.headers else ""))
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._info(name, revision, "blobs" in parse_qs(url.query))
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            self._file(name, *rest.split("/", 1))

    def _allowed(self, repo: Repo | None, files: bool) -> bool:
        """As the hub refuses: what one may not know of does not exist."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token != self.hub.token:
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not token):
            self._error(401 if not token else 404, "RepoNotFound", "Repository not found")
        elif files and repo.gated and not token:
            self._error(401, "GatedRepo", "Access to model is restricted.")
        else:
            return True
        return False

    def _info(self, name: str, revision: str, blobs: bool) -> None:
        repo = self.hub.repos.get(name)
        if not self._allowed(repo, files=False) or repo is None:
            return
        commit = repo.branches.get(revision or "main", revision)
        if commit not in repo.commits:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [
            self._sibling(path, data) if blobs else {"rfilename": path} for path, data in repo.commits[commit].items()
        ]
        return self._send(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode(), {})

    def _sibling(self, path: str, data: bytes) -> dict[str, object]:
        lie = self.hub.lies.get(path, Lie())
        size = len(data) if lie.listed is None else lie.listed
        described: dict[str, object] = {"rfilename": path, "size": size, "blobId": git_sha1(data)}
        if path.endswith(LARGE):
            described["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
        return described

    def _file(self, name: str, commit: str, path: str) -> None:
        """Small files come at once; large ones, with their hash for a tag, from the store."""
        repo = self.hub.repos.get(name)
        if not self._allowed(repo, files=True) or repo is None:
            return
        commit = repo.branches.get(commit, commit)
        data = repo.commits.get(commit, {}).get(path)
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        lie = self.hub.lies.get(path, Lie())
        headers = {"X-Repo-Commit": lie.commit or commit}
        if not path.endswith(LARGE):
            sent = data if lie.content is None else lie.content
            return self._send(200, sent, headers | {"ETag": f'"{lie.tag or git_sha1(data)}"'})
        headers["X-Linked-Etag"] = f'"{lie.tag or hashlib.sha256(data).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(data) if lie.size is None else lie.size)
        return self._send(302, b"", headers | {"Location": f"{self.hub.store}/{name}/resolve/{commit}/{path}"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Store(_Handler):
    """Where large files lie; knows nobody, and is owed no token."""

    def _file(self, name: str, commit: str, path: str) -> None:
        lie = self.hub.lies.get(path, Lie())
        if lie.endless:
            return self._pour(lie.endless)
        data = self.hub.repos[name].commits[commit][path] if lie.content is None else lie.content
        return self._send(200, data, {"ETag": '"of-the-store"'})

    def _pour(self, megabytes: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with suppress(ConnectionError):
            for _ in range(megabytes):
                self.wfile.write(b"100000\r\n" + bytes(2**20) + b"\r\n")
                self.hub.megabytes += 1
