"""A configuration's parts as objects."""

import contextlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.utils import instantiate

from autoprune.ranges import nearest

if TYPE_CHECKING:
    from autoprune.problem.spec import ProblemSpec
    from autoprune.task.task import Task

Settings = Mapping[str, Any]


def instantiate_part(settings: Settings, name: str) -> Any:
    """The object that the settings describe under this name; None where they describe nothing.

    Args:
        settings: The composed configuration.
        name: The key of the part, such as "agent".
    """
    return instantiate(settings.get(name), _convert_="all")


def spec_of(settings: Settings, **others: Any) -> "ProblemSpec":
    """The ProblemSpec that the settings describe.

    Args:
        settings: a command's; what they do not name has its default.
        others: Fields that they do not decide.
    """
    from autoprune.problem.spec import ProblemSpec, StructureSettings

    fields: dict[str, Any] = {"budget": settings.get("budget"), "structure": StructureSettings(**settings["structure"])}
    names = ("importance", "repair", "score", "reward", "evaluation", "costs", "device")
    fields |= {name: instantiate_part(settings, name) for name in names if settings.get(name) is not None}
    return ProblemSpec(**fields | others)


def task_of(settings: Settings, data: Settings | None) -> "Task":
    """The task that the settings describe.

    Args:
        settings: Of conf/task. `keep` is autoprune's own key, and so is `device` where the task's function takes none;
            everything else goes to that function.
        data: Of conf/data; None: the task's own data.

    Raises:
        ValueError: Where the function returns something else.
    """
    from autoprune.task.placement import checked_device
    from autoprune.task.task import Task

    device = settings.get("device")
    if device is not None:
        checked_device(device)  # before anything is loaded
    function = named_target(settings["_target_"], key="task._target_")
    own = {"keep", "device"} - set(inspect.signature(function).parameters)
    with _own_code(str(settings["_target_"])):
        task = instantiate_part({"task": {key: value for key, value in settings.items() if key not in own}}, "task")
    if not isinstance(task, Task):
        raise ValueError(
            f"task._target_={settings['_target_']} must return an autoprune.Task, got {type(task).__name__}"
        )
    if data is not None:
        task = task.with_data(instantiate_part({"data": data}, "data"))
    task = task if device is None else task.on(device)
    return task.keeping(frozenset(settings.get("keep") or ()))


def named_target(name: str, *, key: str) -> Any:
    """The function or class of that name. Raises ValueError with what its module raised, in one line.

    Args:
        name: Its qualified name.
        key: The setting that names it, such as "task._target_".
    """
    try:
        with _own_code(f"the module of {name}"):
            return pkgutil.resolve_name(name)
    except Exception as error:  # of the user's module
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{key}={name} cannot be imported: {why}{_hidden(name)}") from error


def _hidden(name: str) -> str:
    """Where a module of that name comes before the one in the working folder: which it is."""
    top = name.partition(".")[0]
    loaded, own = getattr(sys.modules.get(top), "__file__", None) or "", Path.cwd() / f"{top}.py"
    if not own.is_file() or top not in sys.modules or Path(loaded) == own:
        return ""
    return f"; {top} is {loaded or 'part of Python'}, which hides {own}: give that another name"


@contextlib.contextmanager
def _own_code(what: str) -> Iterator[None]:
    """Code of a person's own sees no arguments of this command, and does not end it."""
    arguments, sys.argv[1:] = sys.argv[1:], []
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(
            f'{what} ends the process (sys.exit({error.code})); put what a script does under if __name__ == "__main__"'
        ) from error
    finally:
        sys.argv[1:] = arguments


def named_task(name: str) -> "Task":
    """The task of conf/task with its own settings. Raises ValueError where there is none of that name."""
    folder = conf_dir() / "task"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise ValueError(
            f"there is no task {name!r}{nearest(name, names)}; conf/task has {names}, and a table with _target_ is "
            "another one"
        )
    return task_of(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")), None)


def chosen_name(group: str, *, choice: str, target: str) -> str:
    """What a run calls a part: the name of its file in conf/, or, where the target is another one, the target's.

    Args:
        group: The folder of conf/.
        choice: The file of that folder, without .yaml.
        target: What its `_target_` is.

    >>> chosen_name("task", choice="fashion_resnet20", target="my_module.my_task")
    'my_task'
    """
    file = conf_dir() / group / f"{choice}.yaml"
    own = not file.is_file() or yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"] == target
    return choice if own else target.rpartition(".")[2]


def conf_dir() -> Path:
    """The configuration's folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it; autoprune is not fully installed")
