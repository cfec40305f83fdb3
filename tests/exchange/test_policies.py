"""Policies that are fetched and published. What needs no server is real; what a server would say is faked, by name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import wandb

from autoprune.agent.bundle import load_policy, save_policy
from autoprune.exchange import policies
from autoprune.exchange.policies import fetch_policy, publish_policy
from tests.agent.policies import ELSEWHERE, learned_policy
from tests.commands import run_python
from tests.wandb_server import REFUSAL, wandb_server

FILES = ["README.md", "policy.json", "policy.safetensors"]
NOWHERE = "http://127.0.0.1:9"  # nobody listens there
KEY = "0123456789" * 4  # the form of a key; no server ever sees it


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in, and every cache is empty."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "HF_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "policy"
    save_policy(learned_policy("TD3"), folder, training=ELSEWHERE)
    return folder


def test_a_folder_is_itself(bundle: Path) -> None:
    assert fetch_policy(str(bundle)) == bundle


def test_a_folder_in_the_home_folder_is_found(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "mine").symlink_to(bundle)
    assert load_policy(fetch_policy("~/mine")).algorithm == "TD3"


def test_what_is_no_source_is_told_the_forms(tmp_path: Path) -> None:
    for wrong in ("nowhere", str(tmp_path / "nothing"), "s3:bucket/policy"):
        with pytest.raises(ValueError, match="hf:USER/REPO"):
            fetch_policy(wrong)


def test_shipped_policies_go_by_their_names(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "SHIPPED", bundle.parent)
    monkeypatch.setattr(policies, "DEFAULT", bundle.name)
    assert fetch_policy("shipped") == fetch_policy(f"shipped:{bundle.name}") == bundle
    for wrong in ("other", "..", f"../{bundle.parent.name}/{bundle.name}"):
        with pytest.raises(ValueError, match=r"brings no policy .* along, but \['policy'\]"):
            fetch_policy(f"shipped:{wrong}")


@pytest.mark.parametrize("name", ["", "n:v0", "p/n:v0", "me/p/n", "me/p/n:", "../p/n:v0", "me/../n:v0", "me/p/n:../v0"])
def test_artifacts_have_four_parts_none_of_which_leads_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="wandb:ENTITY/PROJECT/NAME:VERSION"):
        fetch_policy(f"wandb:{name}")


def test_a_policy_that_cannot_be_loaded_is_not_published(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no policy"):
        publish_policy(tmp_path, "wandb:me/p/n")
    for wrong in ("me/p/n", str(tmp_path), "shipped:mine"):
        with pytest.raises(ValueError, match=r"wandb:ENTITY/PROJECT/NAME.*hf:USER/REPO"):
            publish_policy(bundle, wrong)
    with pytest.raises(ValueError, match="'me/p/n:v0'"):
        publish_policy(bundle, "wandb:me/p/n:v0")


def test_without_a_login_it_is_said_what_helps(bundle: Path) -> None:
    with pytest.raises(PermissionError, match=r"wandb:me/p/n:v0.*wandb login"):
        fetch_policy("wandb:me/p/n:v0")
    with pytest.raises(PermissionError, match=r"wandb:me/p/n.*wandb login"):
        publish_policy(bundle, "wandb:me/p/n")


def test_published_offline_it_is_an_artifact_that_wandb_sync_sends(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = publish_policy(bundle, "wandb:me/pruning/mine")
    run = Path(command.removeprefix("wandb sync "))
    assert run.parent == tmp_path / "cache" / "publishing" / "wandb"
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.splitlines()
    (artifact,) = [record["artifact"] for record in map(json.loads, lines) if record["type"] == "artifact"]
    (started,) = [record["run"] for record in map(json.loads, lines) if record["type"] == "run"]
    assert (started["entity"], started["project"], started["job_type"]) == ("me", "pruning", "publish")
    assert (artifact["name"], artifact["type"]) == ("mine", "policy")
    contents = {file["path"]: Path(file["local_path"]) for file in artifact["manifest"]["contents"]}
    assert {name: path.read_bytes() for name, path in contents.items()} == {
        name: (bundle / name).read_bytes() for name in FILES
    }
    metadata = json.loads(artifact["metadata"])
    assert metadata["algorithm"] == "TD3"
    assert metadata["budgets"] == {"macs": [0.2, 0.8], "params": [0.3, 0.9]}
    assert not (tmp_path / "home" / ".local").exists()


class FakeArtifact:
    """Stands for an artifact on a server: a folder."""

    name, version = "n:v3", "v3"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_entry(self, name: str) -> Any:
        if not (self.folder / name).is_file():
            raise KeyError(name)

        def download(root: str) -> None:
            Path(root).mkdir(parents=True, exist_ok=True)
            (Path(root) / name).write_bytes((self.folder / name).read_bytes())

        return SimpleNamespace(download=download)


def fake_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[str, str]]:
    """Somebody is logged in to a server whose only artifact is the folder. Returns what it will have been asked."""
    asked: list[tuple[str, str]] = []

    def artifact(name: str, type: str) -> FakeArtifact:
        asked.append((name, type))
        return FakeArtifact(folder)

    monkeypatch.setattr(wandb, "login", lambda **options: True)
    monkeypatch.setattr(wandb, "Api", lambda **options: SimpleNamespace(artifact=artifact))
    return asked


def test_from_a_fake_server_three_files_are_downloaded_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "server"
    server.mkdir()
    for name in FILES:
        (server / name).write_bytes((bundle / name).read_bytes())
    (server / "evil.pkl").write_bytes(b"")
    asked = fake_server(monkeypatch, server)
    folder = fetch_policy("wandb:me/p/n:latest")
    assert folder == tmp_path / "cache" / "policies" / "me" / "p" / "n" / "v3"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert load_policy(folder).algorithm == "TD3"
    assert fetch_policy("wandb:me/p/n:v3") == folder  # a version by its number: nobody is asked
    assert asked == [("me/p/n:latest", "policy")]


def test_what_a_fake_server_has_is_not_kept_where_it_is_no_policy(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "server"
    server.mkdir()
    fake_server(monkeypatch, server)
    with pytest.raises(ValueError, match=r"'n:v3'.*policy.json"):
        fetch_policy("wandb:me/p/n:latest")
    for name in FILES:
        (server / name).write_bytes((bundle / name).read_bytes()[:-20])
    with pytest.raises(ValueError, match="is not JSON"):
        fetch_policy("wandb:me/p/n:latest")
    assert not list((tmp_path / "cache" / "policies" / "me" / "p" / "n").iterdir())


def test_from_a_fake_hub_only_three_files_are_asked_for(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(bundle)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert fetch_policy("hf:me/policy@v1") == bundle
    assert sorted(asked.pop("allow_patterns")) == FILES
    assert asked == {"repository": "me/policy", "revision": "v1"}
    fetch_policy("hf:me/policy")
    assert asked["revision"] is None


def test_to_a_fake_hub_only_three_files_are_sent(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, **options: done.append((name, options)))

    def upload_folder(**options: Any) -> Any:
        done.append(("upload", options))
        return SimpleNamespace(oid="0" * 40)

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    assert publish_policy(bundle, "hf:me/policy") == f"hf:me/policy@{'0' * 40}"
    assert done[0] == ("me/policy", {"exist_ok": True})
    assert sorted(done[1][1]["allow_patterns"]) == FILES
    assert (done[1][1]["repo_id"], done[1][1]["folder_path"]) == ("me/policy", bundle)


def test_what_cannot_be_a_repository_is_refused() -> None:
    with pytest.raises(ValueError, match="USER/REPO"):
        fetch_policy("hf:a/b/c")


def test_to_the_hub_one_has_to_be_logged_in(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PermissionError, match=r"hf:me/policy.*hf auth login"):
        publish_policy(bundle, "hf:me/policy")


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hf:me/policy.*huggingface_hub.*'autoprune\[hub\]'"):
        fetch_policy("hf:me/policy")


REFUSALS = """
import sys
from pathlib import Path
from autoprune.exchange.policies import fetch_policy, publish_policy
folder, source, target = sys.argv[1:]
for call in (lambda: fetch_policy(source), lambda: publish_policy(Path(folder), target)):
    try:
        call()
    except (ConnectionError, PermissionError) as error:
        print(str(error).replace("\\n", " "))
"""


IMPATIENT = """
from autoprune import tracking
from autoprune.exchange import artifacts
tracking.INIT_TIMEOUT_S = artifacts.TIMEOUT_S = 2
"""


def refusals(folder: Path, source: str, target: str, *, first: str = "", **environment: str) -> list[str]:
    """What a fresh process is told that fetches and publishes: addresses and logins stay with who has read them."""
    done = run_python(first + REFUSALS, str(folder), source, target, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_a_connection_the_hub_is_not_reached(bundle: Path) -> None:
    fetched, published = refusals(bundle, "hf:me/policy", "hf:me/policy", HF_ENDPOINT=NOWHERE, HF_TOKEN=KEY)
    assert fetched.startswith("no policy is at hf:me/policy: the Hugging Face Hub can't be reached")
    assert published.startswith("the policy is not at hf:me/policy: the Hugging Face Hub can't be reached")


@pytest.mark.slow  # W&B's client tries again until it is out of patience
def test_without_a_connection_the_server_is_not_reached(bundle: Path) -> None:
    server = {"WANDB_BASE_URL": NOWHERE, "WANDB_API_KEY": KEY}
    fetched, published = refusals(bundle, "wandb:me/p/n:v0", "wandb:me/p/n", first=IMPATIENT, **server)
    assert fetched.startswith("Weights & Biases gave no policy 'me/p/n:v0', or can't be reached")
    assert published.startswith("Weights & Biases did not take the policy for 'me/p/n', or can't be reached")


@pytest.mark.slow
def test_a_servers_refusal_is_an_error(bundle: Path) -> None:
    with wandb_server(takes_artifacts=False) as server:
        told = refusals(bundle, "shipped", "wandb:me/p/n", WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert "CreateArtifact" in server.operations
    assert [
        line.startswith("Weights & Biases refused the policy for 'me/p/n'") and REFUSAL in line for line in told
    ] == [True]


@pytest.mark.parametrize("name", ["mine.zip", "mine"])
def test_what_stable_baselines_saved_is_refused_as_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"mine\.zip is a file.*model\.save"):
        fetch_policy(f"{tmp_path / name}")
