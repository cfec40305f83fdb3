"""The command line: `autoprune search [OVERRIDES]`, `autoprune show RUN`. The only file that knows Hydra."""

import ctypes
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

USAGE = """usage: autoprune search [-m] [OVERRIDE ...]   learn a plan, prune, recover, export, report
       autoprune show RUN                    a finished run's table again

The overrides are Hydra's: autoprune search task=fashion_mobilenet agent=sac budget=macs:0.3 seed=3
What can be chosen: autoprune search --help"""


def main() -> None:
    """The console script."""
    match sys.argv[1:]:
        case ["search", *overrides]:
            sys.path.insert(0, str(Path.cwd()))  # task._target_=my_module.my_task finds the user's own modules
            sys.argv[1:] = overrides
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(search)()
        case ["show", run]:
            _show(run)
        case ["--version"]:
            from autoprune import __version__

            print(f"autoprune {__version__}")
        case [] | ["-h" | "--help"]:
            print(USAGE)
        case arguments:
            sys.exit(f"autoprune does not know {' '.join(arguments)!r}\n{USAGE}")


def conf_dir() -> Path:
    """The configuration's folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it; autoprune is not fully installed")


def search(config: DictConfig) -> float:
    """One job. Returns the chosen network's accuracy after recovery, which is what a sweeper maximises."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    _reuse_freed_memory()
    try:
        return _search(config, folder)
    except KeyboardInterrupt:
        evaluations = _lines(folder / "history.jsonl")
        _report_so_far(folder)
        sys.exit(
            f"\nInterrupted. {folder} holds everything so far: {evaluations} evaluations in history.jsonl, the "
            f"configuration in config.yaml, a report so far in report.html. `autoprune show {folder}` shows it; start "
            "again with the same command and another folder."
        )
    except InstantiationException as error:
        sys.exit(f"error: {error.__cause__ or error}")
    except (ValueError, FloatingPointError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {error}\n(HYDRA_FULL_ERROR=1 shows where)")


def _search(config: DictConfig, folder: Path) -> float:
    import torch

    from autoprune.evaluation.prepare import prepare
    from autoprune.pipeline import Job
    from autoprune.records import describe_budget
    from autoprune.report.page import write_report
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder, machine, versions
    from autoprune.seeding import torch_generator

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    launch = HydraConfig.get()
    torch.set_num_threads(settings["threads"] or os.cpu_count() or 1)
    torch.manual_seed(settings["seed"])  # autoprune passes its generators around; third parties may draw from this one
    parts = {name: instantiate(settings[name], _convert_="all") for name in PARTS}
    task = _task(settings["task"], settings.get("data"))
    prepared = prepare(
        task,
        budget=settings["budget"],
        generator=torch_generator(settings["seed"], "importance"),
        **{name: parts[name] for name in ("importance", "repair", "score", "reward")},
        **settings["structure"],
        **settings["evaluation"],
    )
    agent = launch.runtime.choices["agent"]
    run = RunFolder.create(folder)
    run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    record = {
        "name": folder.name,
        "task": task.name,
        "agent": agent,
        "seed": settings["seed"],
        "budget": describe_budget(prepared),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(),
        "data": task.data.digests,
        "overrides": list(launch.overrides.task),
    }
    swept = launch.mode == RunMode.MULTIRUN
    group = Path(launch.sweep.dir).name if swept else task.name
    tracker = parts["tracking"](
        folder, name=folder.name, group=group, job_type="search", config={**settings, "run": record}
    )
    run.write_json("run.json", record)
    failed = True
    try:
        job = Job(
            prepared,
            search=parts["agent"],
            recover=parts["recover"],
            agent=agent,
            evaluations=settings["evaluations"],
            seed=settings["seed"],
            run=run,
            tracker=tracker,
        )
        result = job.execute()
        tracker.page("report", write_report(run))
        failed = False
    finally:
        tracker.close(failed=failed)
    print_result(run)
    print(f"report: {folder / 'report.html'}")
    return float(result["networks"][result["chosen"]]["after"]["accuracy"])


PARTS = ("importance", "repair", "score", "reward", "agent", "recover", "tracking")


def _task(settings: dict[str, Any], data: Mapping[str, Any] | None) -> Any:
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


def _show(run: str) -> None:
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder

    try:
        print_result(RunFolder.open(Path(run)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _report_so_far(folder: Path) -> None:
    from autoprune.report.page import write_report
    from autoprune.runs import RunFolder

    if (folder / "run.json").exists():
        write_report(RunFolder.open(folder))


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _reuse_freed_memory() -> None:
    """Keeps glibc from returning big activations to the system at every call, which halves fp32 throughput."""
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    for option, value in ((mmap_threshold, 2**30), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
        libc.mallopt(option, value)
