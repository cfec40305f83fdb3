"""Policies as repositories of the Hugging Face Hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprune.agent.policy_file import FILES


def fetch(name: str) -> Path:
    """Returns the folder of a policy, in the cache that huggingface_hub keeps.

    Only the three files of a policy are downloaded, whatever else is there.

    Args:
        name: USER/REPO[@REVISION].

    Raises:
        ValueError: There is no such repository or revision.
        PermissionError: The hub refuses.
        ConnectionError: The hub does not answer.
        ImportError: huggingface_hub is not installed.
    """
    repository, _, revision = name.partition("@")
    library = _library(f"hf:{name}")
    with _client_errors(f"no policy is at hf:{name}"):
        return Path(library.snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))


def publish(folder: Path, name: str) -> str:
    """The folder's three files are in the repository, which is made where there is none.

    Args:
        folder: A policy's.
        name: USER/REPO.

    Returns:
        What fetches this very version.

    Raises:
        PermissionError: There is no login. The rest is as in fetch.
    """
    library = _library(f"publishing to hf:{name}")
    if library.get_token() is None:
        raise PermissionError(
            f"publishing to hf:{name} needs a login to the Hugging Face Hub, and there is none: run `hf auth login`, "
            "or set HF_TOKEN"
        )
    with _client_errors(f"the policy is not at hf:{name}"):
        library.create_repo(name, exist_ok=True)
        commit = library.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message="A pruning policy"
        )
    return f"hf:{name}@{commit.oid}"


@contextlib.contextmanager
def _client_errors(what: str) -> Iterator[None]:
    """ValueError for names, PermissionError for what is forbidden, ConnectionError for all else that the hub raises."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{what}: a repository is called USER/REPO ({error})") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ValueError(
            f"{what}: there is no such repository or revision, or it is private and there is no login ({error})"
        ) from error
    except errors.HfHubHTTPError as error:
        raise PermissionError(f"{what}: the Hugging Face Hub refuses ({error})") from error
    except Exception as error:  # what the connection raises has no class that the library promises
        raise ConnectionError(f"{what}: the Hugging Face Hub can't be reached ({error}). Use a folder") from error


def _library(what: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"{what} needs huggingface_hub: pip install 'autoprune[hub]'") from error
    return huggingface_hub
