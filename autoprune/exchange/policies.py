"""Where policies come from and go to: folders, the package, Weights & Biases, the Hugging Face Hub."""

from dataclasses import asdict
from pathlib import Path

from autoprune.agent.bundle import load_policy, load_training
from autoprune.exchange import artifacts, hub

SHIPPED = Path(__file__).parent.parent / "zoo" / "policies"
DEFAULT = "transferable"  # what `shipped` alone is
FORMS = "a folder, shipped, shipped:NAME, wandb:ENTITY/PROJECT/NAME:VERSION or hf:USER/REPO[@REVISION]"
TARGETS = "wandb:ENTITY/PROJECT/NAME or hf:USER/REPO"


def fetch_policy(source: str) -> Path:
    """Returns the folder of the policy, which was downloaded unless it was before; it is not loaded yet.

    Args:
        source: A folder, `shipped`, `shipped:NAME`, `wandb:ENTITY/PROJECT/NAME:VERSION` or `hf:USER/REPO[@REVISION]`.

    Raises:
        ValueError: There is no such policy.
        ConnectionError: The server does not answer.
        PermissionError: A login is needed, or the server refuses.
        ImportError: A package is needed.
    """
    kind, _, name = source.partition(":")
    match kind:
        case "shipped":
            return _shipped(name or DEFAULT)
        case "wandb":
            return artifacts.fetch(name)
        case "hf":
            return hub.fetch(name)
    folder = Path(source).expanduser()
    archive = folder if folder.is_file() else folder.with_name(f"{folder.name}.zip")
    if not folder.is_dir() and archive.suffix == ".zip" and archive.is_file():
        raise ValueError(
            f"{archive} is a file: if it is what Stable-Baselines3's model.save wrote, it holds pickles, which are not "
            f"read, and no record of what the policy observes. A policy is given as {FORMS}; "
            "`autoprune train` writes one"
        )
    if not folder.is_dir():
        raise ValueError(f"there is no folder {source!r}; a policy is given as {FORMS}")
    return folder


def publish_policy(folder: Path, target: str) -> str:
    """The policy is there; returns what fetches it, or with WANDB_MODE=offline the command that sends it.

    Args:
        folder: A policy's, which is loaded first: what would be refused is not handed on.
        target: `wandb:ENTITY/PROJECT/NAME` or `hf:USER/REPO`.

    Raises:
        ValueError: The policy can't be loaded, or the target has another form. The rest is as in fetch_policy.
    """
    kind, _, name = target.partition(":")
    if kind not in ("wandb", "hf"):
        raise ValueError(f"a policy is published to {TARGETS}, got {target!r}")
    policy = load_policy(folder)
    if kind == "hf":
        return hub.publish(folder, name)
    facts = {"algorithm": policy.algorithm, "architecture": dict(policy.architecture)}
    return artifacts.publish(folder, name, metadata=facts | asdict(load_training(folder)))


def _shipped(name: str) -> Path:
    names = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []
    if name not in names:
        raise ValueError(f"autoprune brings no policy {name!r} along, but {names}; a policy is given as {FORMS}")
    return SHIPPED / name
