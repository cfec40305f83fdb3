"""What commands have in common: a configuration's parts as objects, and errors as sentences."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf


def run_command(job: Callable[[], float], *, interrupted: Callable[[], str]) -> float:
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


def instantiate_part(settings: Mapping[str, Any], name: str) -> Any:
    """The object that the configuration describes under this name; None where there is nothing.

    Raises ValueError where a key is missing, or where nothing has a key of that name: this is said before anything is
    paid for, and not when what is made is first called.
    """
    for problem in _problems(settings.get(name), name):
        raise ValueError(problem)
    return instantiate(settings.get(name), _convert_="all")


def spec_of(settings: Mapping[str, Any], **others: Any) -> Any:
    """The ProblemSpec that the settings describe.

    Args:
        settings: a command's; what they do not name has its default.
        others: fields that they do not decide.
    """
    from autoprune.problem.spec import ProblemSpec, StructureSettings

    fields: dict[str, Any] = {"budget": settings.get("budget"), "structure": StructureSettings(**settings["structure"])}
    names = ("importance", "repair", "score", "reward", "evaluation", "costs", "device")
    fields |= {name: instantiate_part(settings, name) for name in names if settings.get(name) is not None}
    return ProblemSpec(**fields | others)


def _problems(node: Any, name: str) -> Iterator[str]:
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        yield from _problems(value, f"{name}.{key}")
    if "_target_" not in node or "_args_" in node:
        return
    given = {key for key in node if not key.startswith("_")}
    try:
        takes = inspect.signature(get_object(node["_target_"])).parameters
    except (ImportError, TypeError, ValueError):
        return  # Hydra says what there is to say of a target that cannot be found, and some have no signature
    target = str(node["_target_"]).rpartition(".")[2]
    named = [key for key, one in takes.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    unknown = sorted(given - set(named))
    if unknown and not any(one.kind == one.VAR_KEYWORD for one in takes.values()):
        yield f"{name} has the key {unknown[0]!r}, which {target} does not know; it knows {named}"
    missing = [key for key in named if takes[key].default is inspect.Parameter.empty and key not in given]
    if missing and not node.get("_partial_"):  # a partial is given the others when it is called
        listed = " and ".join(missing)
        yield (
            f"{name} lacks {listed}, without which there is no {target}; write {'it' if len(missing) == 1 else 'them'} "
            f"into the file that {name.partition('.')[0]}= chooses, or on the command line: "
            f"+{name}.{missing[0]}=VALUE"
        )


def task_of(settings: dict[str, Any], data: Mapping[str, Any] | None) -> Any:
    """The task that conf/task names. `keep` is autoprune's own key; everything else goes to the task's function."""
    from autoprune.task.task import Task

    keep = frozenset(settings.pop("keep", None) or ())
    task = instantiate_part({"task": settings}, "task")
    if not isinstance(task, Task):
        raise ValueError(
            f"task._target_={settings['_target_']} must return an autoprune.Task, got {type(task).__name__}"
        )
    if data is not None:
        task = task.with_data(instantiate_part({"data": data}, "data"))
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
    from autoprune.machine_cache import cache_dir

    folders = {"shared": cache_dir(), "run": run, None: None}
    if store not in folders:
        raise ValueError(
            f"evaluation.store must be shared, run or null, got {store!r}; AUTOPRUNE_CACHE moves the shared one"
        )
    return folders[store]
