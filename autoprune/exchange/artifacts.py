"""Policies as artifacts of Weights & Biases."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb
import wandb.errors

from autoprune.agent.bundle import load_policy
from autoprune.agent.policy_file import FILES
from autoprune.files import atomic_write
from autoprune.machine_cache import cache_dir
from autoprune.tracking import sync_command, wandb_settings

KIND = "policy"  # the type of the artifacts, also of those that runs log
TIMEOUT_S = 30
PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a name; none leads out of the cache


def fetch(name: str) -> Path:
    """Returns the folder of a policy; a version by its number, as v3, is downloaded once.

    Args:
        name: ENTITY/PROJECT/NAME:VERSION.

    Raises:
        ValueError: The name has another form, or the artifact is no policy that can be loaded.
        PermissionError: There is no login.
        ConnectionError: The server has no such artifact, or does not answer.
    """
    if not re.fullmatch(f"{PART}/{PART}/{PART}:{PART}", name):
        raise ValueError(f"an artifact is wandb:ENTITY/PROJECT/NAME:VERSION, as in …:v0 or …:latest, got {name!r}")
    path, _, version = name.rpartition(":")
    home = cache_dir() / "policies" / path
    if re.fullmatch(r"v\d+", version) and (home / version).is_dir():
        return home / version
    _require_login(f"wandb:{name}")
    with _client_errors(f"gave no policy {name!r}"):
        artifact = wandb.Api(timeout=TIMEOUT_S).artifact(name, type=KIND)
        folder = home / str(artifact.version)
        if not folder.is_dir():
            _download(artifact, folder)
    return folder


def publish(folder: Path, name: str, *, metadata: Mapping[str, Any]) -> str:
    """The folder's three files are a version of the artifact; returns what fetches it.

    With WANDB_MODE=offline they are sent by the command that is returned, which reads them where they stand.

    Args:
        folder: A policy's.
        name: ENTITY/PROJECT/NAME.
        metadata: What the server shows beside the artifact, in JSON values.

    Raises:
        ValueError: The name has another form.
        PermissionError: There is no login, or the server refuses.
        ConnectionError: The server does not answer.
    """
    if not re.fullmatch(f"{PART}/{PART}/{PART}", name):
        raise ValueError(f"a policy is published to wandb:ENTITY/PROJECT/NAME, without a version, got {name!r}")
    offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
    if not offline:
        _require_login(f"publishing to wandb:{name}")
    entity, project, short_name = name.split("/")
    artifact = wandb.Artifact(short_name, type=KIND, metadata=dict(metadata))
    for file in FILES:
        artifact.add_file(str((folder / file).resolve()), name=file, policy="immutable")
    with _client_errors(f"did not take the policy for {name!r}"), _run(entity, project, offline=offline) as run:
        logged = run.log_artifact(artifact)
        if offline:
            return sync_command(Path(run.dir).parent)
        try:
            return f"wandb:{name}:{logged.wait(timeout=TIMEOUT_S).version}"
        except ValueError as error:  # what the server says, in its own words
            raise PermissionError(f"Weights & Biases refused the policy for {name!r}: {error}") from error


def _download(artifact: Any, folder: Path) -> None:
    """The three files of a policy that can be loaded, and nothing else that may be in the artifact."""
    with atomic_write(folder) as partial:
        for file in FILES:
            try:
                entry = artifact.get_entry(file)
            except KeyError as error:
                raise ValueError(f"the artifact {artifact.name!r} holds no policy: there is no {file} in it") from error
            entry.download(root=str(partial))
        load_policy(partial)


@contextlib.contextmanager
def _run(entity: str, project: str, *, offline: bool) -> Iterator["wandb.Run"]:
    """A run that does nothing but publish. Its files are in the cache."""
    home = cache_dir() / "publishing"
    home.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        dir=str(home),
        mode="offline" if offline else "online",
        entity=entity,
        project=project,
        job_type="publish",
        reinit="create_new",
        settings=wandb_settings(),
    ) as run:
        yield run


@contextlib.contextmanager
def _client_errors(what: str) -> Iterator[None]:
    """ConnectionError for whatever the client raises: its errors have no class in common. Ours stay as they are."""
    try:
        yield
    except (ValueError, PermissionError):
        raise
    except Exception as error:
        raise ConnectionError(
            f"Weights & Biases {what}, or can't be reached ({error}). Check the name, the network and `wandb login`; "
            "a folder can be handed on without a server"
        ) from error


def _require_login(what: str) -> None:
    """Raises PermissionError where W&B finds no key. Asks no server and no person."""
    with contextlib.suppress(wandb.errors.AuthenticationError, wandb.errors.UsageError):
        online = os.environ.get("WANDB_MODE") not in ("offline", "disabled", "dryrun")
        if online and wandb.login(prompt=False, verify=False):
            return
    raise PermissionError(
        f"{what} needs a login to Weights & Biases, and there is none: run `wandb login` (or set WANDB_API_KEY, "
        "and unset WANDB_MODE)"
    )
