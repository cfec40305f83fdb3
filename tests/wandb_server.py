"""A Weights & Biases server on this machine: it takes runs, takes or refuses their artifacts, and leads sweeps."""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REFUSAL = "artifacts are not allowed in this project"


@dataclass(slots=True)
class Received:
    """What a server has got."""

    url: str = ""
    operations: list[str] = field(default_factory=list)
    """Names of GraphQL operations."""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Run → what it was begun with."""
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Run → its rows."""
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Run → its summary."""


@contextmanager
def wandb_server(
    *, takes_artifacts: bool, sweep: str = "", proposals: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Received]:
    """A server, and what it has got so far.

    Args:
        takes_artifacts: Whether it refuses them.
        sweep: The YAML of its one sweep.
        proposals: Parameters of the runs that it has a sweep's agent make, one after the other.
    """
    received, waiting = Received(), [dict(values) for values in proposals]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/graphql":
                _streamed(self.path, body, received)
                self._reply({})
                return
            query = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            operation, variables = named[1] if named else query["operationName"], query.get("variables") or {}
            received.operations.append(operation)
            if operation == "UpsertBucket" and variables.get("config"):
                begun = {name: value for name, value in variables.items() if value is not None}
                received.runs.setdefault(variables["name"], {}).update(begun)
            if operation == "Heartbeat":
                idle = not any(json.loads(variables.get("runState") or "{}").values())
                self._reply(_heartbeat(waiting, number=len(proposals) - len(waiting)) if idle else _commands([]))
                return
            self._reply(answer(operation, variables, received.url, takes_artifacts, sweep))

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
    received.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


def _streamed(path: str, body: bytes, received: Received) -> None:
    """The lines of a run's files, as its file stream sends them: /files/ENTITY/PROJECT/RUN/file_stream."""
    parts = path.strip("/").split("/")
    if parts[-1] != "file_stream":
        return
    for name, part in (json.loads(body).get("files") or {}).items():
        lines = [json.loads(line) for line in part["content"]]
        if name == "wandb-history.jsonl":
            received.history.setdefault(parts[-2], []).extend(lines)
        elif name == "wandb-summary.json":
            for line in lines:
                received.summary.setdefault(parts[-2], {}).update(line)


def _heartbeat(waiting: list[dict[str, Any]], *, number: int) -> dict[str, Any]:
    """The sweep's next run, or the agent's end."""
    if not waiting:
        return _commands([{"type": "exit"}])
    arguments = {name: {"value": value} for name, value in waiting.pop(0).items()}
    return _commands([{"type": "run", "run_id": f"trial{number}", "program": None, "args": arguments}])


def _commands(commands: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}}


def answer(
    operation: str, variables: dict[str, Any], url: str, takes_artifacts: bool, sweep: str = ""
) -> dict[str, Any]:
    """What the server says to a GraphQL operation."""
    project = {"id": "p", "name": variables.get("project") or "p", "entity": {"id": "e", "name": "me"}}
    bucket = {"id": "b", "name": variables.get("name"), "displayName": variables.get("displayName"), "project": project}
    files = [{"name": name, "uploadUrl": f"{url}/upload"} for name in variables.get("files") or ()]
    of_project = {"id": "p", "internalId": "p", "name": "p", "entity": {"name": "me"}}
    artifact: dict[str, Any] = {
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
            "project": {
                "artifactType": None,
                "artifact": None,
                "sweep": {"id": "s", "name": variables.get("sweep"), "config": sweep, "runs": {"edges": []}},
            },
            "createAgent": {"agent": {"id": "agent"}},
        }
    }
