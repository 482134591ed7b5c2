"""A double of Google's HTTP interfaces: objects of Cloud Storage, jobs of Dataflow.

It knows what Beam's clients ask for while a job is planned, staged and sent, and no more: buckets
are there, objects are uploaded in pieces, looked at, listed, read, copied and deleted one by one,
and a job that is created has the state and the messages that the test says.
"""

import base64
import http.server
import json
import re
import threading
import urllib.parse
from typing import Any

import google_crc32c

_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
_LISTING = re.compile(r"/storage/v1/b/([^/]+)/o")
_UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(/.*)?")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class GoogleDouble(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine until it is left.

    Attributes:
      objects: bytes by "bucket/name".
      requests: bodies of the jobs that were asked for.
      state, said: of every job.
      unknown: what was asked for and is not there to answer.
    """

    def __init__(self, state: str, said: str) -> None:
        super().__init__(("localhost", 0), _Answers)
        self.objects: dict[str, bytes] = {}
        self.requests: list[dict[str, Any]] = []
        self.state, self.said = state, said
        self.unknown: list[str] = []
        self.uploads: dict[str, bytearray] = {}
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def __enter__(self) -> "GoogleDouble":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GoogleDouble

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        return parts.path, query, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _missing(self) -> None:
        self._answer({"error": {"code": 404, "message": "it is not there"}}, 404)

    def _unknown(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self._answer({"error": {"code": 501, "message": "the double does not know"}}, 501)

    def _described(self, key: str) -> dict[str, Any]:
        bucket, name = key.split("/", 1)
        content = self.server.objects[key]
        checksum = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        return {
            "bucket": bucket, "name": name, "size": str(len(content)), "crc32c": checksum,
            "generation": "1", "updated": "2022-04-15T00:00:00.000Z",
        }  # fmt: skip

    def do_GET(self) -> None:
        path, query, _ = self._asked()
        if job := _JOBS.fullmatch(path):
            self._job(job[3] or "")
        elif found := _OBJECT.fullmatch(path):
            key = f"{found[1]}/{urllib.parse.unquote(found[2])}"
            if key not in self.server.objects:
                self._missing()
            elif query.get("alt") == "media":
                self._read(self.server.objects[key])
            else:
                self._answer(self._described(key))
        elif found := _LISTING.fullmatch(path):
            prefix = f"{found[1]}/{query.get('prefix', '')}"
            keys = sorted(key for key in self.server.objects if key.startswith(prefix))
            self._answer({"items": [self._described(key) for key in keys]})
        elif found := _BUCKET.fullmatch(path):
            self._answer({"name": found[1], "location": "US-CENTRAL1"})
        else:
            self._unknown()

    def _read(self, content: bytes) -> None:
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        end = min(len(content), int(asked[2]) + 1 if asked and asked[2] else len(content))
        told = {"Content_Range": f"bytes {begin}-{end - 1}/{len(content)}"} if asked else {}
        self._answer(content[begin:end], 206 if asked else 200, **told)

    def do_POST(self) -> None:
        path, query, body = self._asked()
        if _JOBS.fullmatch(path):
            self.server.requests.append(json.loads(body))
            self._answer(self._job_in("JOB_STATE_PENDING"))
        elif found := _UPLOAD.fullmatch(path):
            name = query.get("name") or json.loads(body)["name"]
            key = f"{found[1]}/{name}"
            self.server.uploads[key] = bytearray()
            self._answer({}, Location=f"{self.server.url}/uploads?{urllib.parse.quote(key)}")
        else:
            self._unknown()

    def do_PUT(self) -> None:
        _, _, body = self._asked()
        key = urllib.parse.unquote(urllib.parse.urlsplit(self.path).query)
        self.server.uploads[key] += body
        if self.headers["Content-Range"].endswith("/*"):
            self._answer({}, 308, Range=f"bytes=0-{len(self.server.uploads[key]) - 1}")
        else:
            self.server.objects[key] = bytes(self.server.uploads.pop(key))
            self._answer(self._described(key))

    def do_DELETE(self) -> None:
        path, _, _ = self._asked()
        found = _OBJECT.fullmatch(path)
        if found and self.server.objects.pop(f"{found[1]}/{urllib.parse.unquote(found[2])}", None):
            self._answer(b"", 204)
        else:
            self._missing()

    def _job(self, what: str) -> None:
        if what.endswith("/messages"):
            self._answer({"jobMessages": [
                {"id": "1", "time": "2022-04-15T00:00:00Z", "messageText": self.server.said,
                 "messageImportance": "JOB_MESSAGE_ERROR"},
            ]})  # fmt: skip
        elif what.endswith("/metrics"):
            self._answer({"metrics": []})
        else:
            self._answer(self._job_in(self.server.state))

    def _job_in(self, state: str) -> dict[str, Any]:
        return {"id": "job-1", "name": self.server.requests[-1]["name"], "currentState": state}
