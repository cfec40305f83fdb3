"""What commands have in common: a configuration's parts as objects, and errors as sentences."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf


def answering(job: Callable[[], float], *, interrupted: Callable[[], str]) -> float:
    """The job's result; what goes wrong is said in a sentence. interrupted: what to say after Ctrl-C."""
    try:
        return job()
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. {interrupted()}")
    except InstantiationException as error:
        sys.exit(f"error: {error.__cause__ or error}")
    except (ValueError, FloatingPointError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {error}\n(HYDRA_FULL_ERROR=1 shows where)")


def task_of(settings: dict[str, Any], data: Mapping[str, Any] | None) -> Any:
    """The task that conf/task names. `keep` is autoprune's own key; everything else goes to the task's function."""
    from autoprune.task.task import Task

    keep = frozenset(settings.pop("keep", None) or ())
    task = instantiate(settings, _convert_="all")
    if not isinstance(task, Task):
        raise ValueError(
            f"task._target_={settings['_target_']} must return an autoprune.Task, got {type(task).__name__}"
        )
    if data is not None:
        task = task.with_data(instantiate(data, _convert_="all"))
    return task.keeping(keep)


def named_task(name: str) -> Any:
    """The task of conf/task with its own settings. Raises ValueError where there is none of that name."""
    folder = conf_dir() / "task"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"there is no task {name!r}; conf/task has {names}, and a table with _target_ is another one")
    return task_of(OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"), resolve=True), None)  # type: ignore[arg-type]


def conf_dir() -> Path:
    """The configuration's folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it; autoprune is not fully installed")


def store_folder(store: object, run: Path) -> Path | None:
    """Where `evaluation.store` says that judged plans are kept."""
    from autoprune.measured import cache_dir

    folders = {"shared": cache_dir(), "run": run, None: None}
    if store not in folders:
        raise ValueError(
            f"evaluation.store must be shared, run or null, got {store!r}; AUTOPRUNE_CACHE moves the shared one"
        )
    return folders[store]
