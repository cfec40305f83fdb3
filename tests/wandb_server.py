"""A Weights & Biases server on this machine that takes runs, and takes or refuses their artifacts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REFUSAL = "artifacts are not allowed in this project"


@contextmanager
def wandb_server(*, takes_artifacts: bool) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the names of the GraphQL operations that it has been asked for."""
    operations: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/graphql":
                self._reply({})
                return
            query = json.loads(body)
            operations.append(query["operationName"])
            self._reply(answer(query["operationName"], query.get("variables") or {}, url, takes_artifacts))

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply({})

        def do_GET(self) -> None:
            self._reply({})

        def log_message(self, *_: Any) -> None: ...

        def _reply(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up as they like
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url, operations
    finally:
        server.shutdown()
        server.server_close()


def answer(operation: str, variables: dict[str, Any], url: str, takes_artifacts: bool) -> dict[str, Any]:
    """What the server says to a GraphQL operation."""
    project = {"id": "p", "name": variables.get("project") or "p", "entity": {"id": "e", "name": "me"}}
    bucket = {"id": "b", "name": variables.get("name"), "displayName": variables.get("displayName"), "project": project}
    files = [{"name": name, "uploadUrl": f"{url}/upload"} for name in variables.get("files") or ()]
    of_project = {"id": "p", "internalId": "p", "name": "p", "entity": {"name": "me"}}
    artifact = {
        **dict.fromkeys(("description", "metadata", "historyStep", "commitHash", "updatedAt"), None),
        "id": "a",
        "state": "COMMITTED",
        "size": 2,
        "digest": "d",
        "fileCount": 1,
        "versionIndex": 0,
        "tags": [],
        "ttlDurationSeconds": 0,
        "ttlIsInherited": False,
        "createdAt": "2026-11-30T00:00:00Z",
        "aliases": [],
        "artifactType": {"name": "policy"},
        "artifactSequence": {"id": "s", "latestArtifact": None, "name": "n", "project": of_project},
    }
    if operation == "CreateArtifact" and not takes_artifacts:
        return {"errors": [{"message": REFUSAL}]}
    return {
        "data": {
            "upsertBucket": {"bucket": {**bucket, "config": "{}", "historyLineCount": 0}, "inserted": True},
            "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
            "viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
            "createArtifact": {"artifact": artifact},
            "artifact": artifact,
            "project": {"artifactType": None, "artifact": None},
        }
    }
