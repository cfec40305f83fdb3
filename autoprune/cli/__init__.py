"""The command line: `autoprune search [OVERRIDES]`, `autoprune show RUN`, … The only room that knows Hydra."""

import contextlib
import functools
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from autoprune.cli import compare as compare_command
from autoprune.cli import export as export_command
from autoprune.cli import front as front_command
from autoprune.cli import generate as generate_command
from autoprune.cli.command_help import command_help
from autoprune.cli.command_settings import (
    FidelitySettings,
    ProfileSettings,
    SearchSettings,
    TicketsSettings,
    TrainPrunedSettings,
    TrainSettings,
)
from autoprune.cli.composition import check_choices, sentence_of
from autoprune.cli.fidelity import fidelity
from autoprune.cli.parts import chosen_name
from autoprune.cli.parts import conf_dir as conf_dir
from autoprune.cli.profile import profile
from autoprune.cli.pruned_training import tickets, train_pruned
from autoprune.cli.renamed import refuse_old_names
from autoprune.cli.search import resume, search
from autoprune.cli.session import end_interrupted, run_command
from autoprune.cli.sweep import SweepEnd, resume_hint
from autoprune.cli.train import train
from autoprune.cli.validation import Section
from autoprune.interrupts import raised
from autoprune.ranges import nearest

USAGE = """usage: autoprune search [-m] [OVERRIDE ...]   learn a plan, prune, recover, export, report
       autoprune search resume=RUN           go on with a run that was cut off
       autoprune search policy=POLICY ...    learn on from a policy that learned on other networks
       autoprune apply policy=POLICY ...     what such a policy makes of a network, in seconds
       autoprune train [OVERRIDE ...]        make one, on many networks and budgets
       autoprune train-pruned [OVERRIDE ...] prune a network while it trains, by a schedule
       autoprune tickets [OVERRIDE ...]      lottery tickets, and the controls that they are held against
       autoprune fidelity [OVERRIDE ...]     does the score that a search sees rank plans as recovery will?
       autoprune profile [OVERRIDE ...]      how fast a task's layers are on this machine, at every width
       autoprune compare RUN ... | sweep=DIR which agent is better, and at how many seeds can that be said?
       autoprune front RUN|SWEEP ...         accuracy against measured latency, from runs under several budgets
       autoprune show RUN                    a finished run's table again
       autoprune export RUN format=FORMAT    a finished run's network in another format: apz, hf or gguf
       autoprune generate RUN "PROMPT"       what a pruned language model goes on to say

The overrides are Hydra's: autoprune search task=fashion_mobilenet agent=sac budget=macs:0.3 seed=3
What a command can be told: autoprune COMMAND --help
Tab completion in bash: eval "$(autoprune -sc install=bash)"; autoprune search --hydra-help names other shells"""

SHOW_USAGE = """usage: autoprune show RUN

A finished run's table again, or what an interrupted one came to."""

T = TypeVar("T")


class Composed(NamedTuple):
    """A command whose settings Hydra composes."""

    job: Callable[..., Any]
    """Takes the composed settings."""
    name: str
    """Of its file in conf/."""
    section: type[Section]
    """What may be set."""


JOBS = {
    "search": Composed(search, "config", SearchSettings),
    "apply": Composed(search, "apply", SearchSettings),  # a search whose agent learns nothing more
    "train": Composed(train, "train", TrainSettings),
    "train-pruned": Composed(train_pruned, "train_pruned", TrainPrunedSettings),
    "tickets": Composed(tickets, "tickets", TicketsSettings),
    "fidelity": Composed(fidelity, "fidelity", FidelitySettings),
    "profile": Composed(profile, "profile", ProfileSettings),
}


def main() -> None:
    """The console script."""
    _make_streams_usable()
    try:
        with raised():
            _run()
            sys.stdout.flush()
    except KeyboardInterrupt as error:  # before a command could say what there is
        end_interrupted(error)
    except BrokenPipeError:  # of `| head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes at its end
        sys.exit(1)


def _make_streams_usable() -> None:
    """What stdout and stderr cannot show is a question mark, and a closed one takes everything: neither ends a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run() -> None:
    match sys.argv[1:]:
        case [] | ["-h" | "--help" | "help"]:
            print(USAGE)
        case ["--version" | "-V"] | [_, "--version"]:
            from autoprune import __version__

            print(f"autoprune {__version__}")
        case ["-sc" | "--shell-completion", *arguments]:
            _complete(arguments)
        case [command, *arguments] if command in READERS:
            read, usage = READERS[command]
            if {"-h", "--help"} & set(arguments):
                print(usage)
            else:
                read(arguments)
        case [command, *arguments] if command in JOBS and {"-h", "--help"} & set(arguments):
            print(command_help(command, JOBS[command].name))
        case ["search", *overrides] if any(override.startswith("resume=") for override in overrides):
            resume(overrides)
        case [command, *overrides] if command in JOBS:
            _compose(command, overrides)
        case [command, *_]:
            sys.exit(f"error: autoprune does not know {command!r}{nearest(command, [*JOBS, *READERS])}\n{USAGE}")


def _compose(command: str, overrides: list[str]) -> None:
    """Runs a command on the settings that Hydra composes, once or as a sweep. Errors are sentences."""
    sys.path.insert(0, str(Path.cwd()))  # task._target_=my_module.my_task finds the user's own modules
    if command == "search" and _chosen("policy", overrides) and not _chosen("agent", overrides):
        overrides = ["agent=transferable", *overrides]  # the one that a policy is for
    job, name, section = JOBS[command]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing some of them

    def run() -> None:
        refuse_old_names(overrides)
        check_choices(overrides)
        sys.argv[1:] = overrides
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(_tidied(job))()
        except HydraException as error:
            settings = [own for own in overrides if own[:1] == "~" or ("=" in own and own[:1] != "-")]
            raise ValueError(sentence_of(error, settings, name, section)) from error
        except OSError as error:  # of Hydra's; a job's own are sentences already
            raise ValueError(
                f"the folder of hydra.run.dir or hydra.sweep.dir cannot be used: {error}; set it to one that can be "
                "written"
            ) from error

    SweepEnd.begun.clear()
    run_command(run, interrupted=lambda: "".join(map(resume_hint, SweepEnd.begun)))


def _tidied(job: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """The job, of which no folder is left where it ends before it has written anything."""

    @functools.wraps(job)
    def tidied(config: DictConfig) -> T:
        try:
            return job(config)
        except SystemExit:
            _discard_unused_folder()
            raise

    return tidied


def _discard_unused_folder() -> None:
    """What Hydra wrote for a job that ended before it wrote anything itself is gone: nobody can go on from there."""
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:  # whose jobs say in their folders why they failed
        return
    folder = Path(settings.runtime.output_dir)
    hydras = [folder / str(settings.output_subdir), folder / f"{settings.job.name}.log"]
    with contextlib.suppress(OSError):
        if set(folder.iterdir()) <= set(hydras):
            shutil.rmtree(hydras[0], ignore_errors=True)
            hydras[1].unlink(missing_ok=True)
            folder.rmdir()


def _complete(arguments: list[str]) -> None:
    """Hydra's completion, behind the command that the line begins with; before it, the commands."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if arguments and arguments[0].startswith("query=") and (len(words) < 3 or words[1] not in JOBS):
        begun = words[1] if len(words) == 2 else None
        print(" ".join(name for name in [*JOBS, *READERS] if begun is not None and name.startswith(begun)))
        return
    command = words[1] if len(words) > 2 else "search"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    _compose(command, ["-sc", *arguments])


def _chosen(name: str, overrides: Sequence[str]) -> bool:
    return any(override.startswith(f"{name}=") and override != f"{name}=null" for override in overrides)


def _show(arguments: Sequence[str]) -> None:
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder

    def show() -> None:
        if len(arguments) != 1:
            raise ValueError(f"show needs one run\n{SHOW_USAGE}")
        print_result(RunFolder.open(Path(arguments[0])))

    run_command(show)


READERS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {  # commands that read run folders
    "compare": (compare_command.compare, compare_command.USAGE),
    "front": (front_command.front, front_command.USAGE),
    "show": (_show, SHOW_USAGE),
    "export": (export_command.export, export_command.USAGE),
    "generate": (generate_command.generate, generate_command.USAGE),
}


def _chosen_name(group: str, _root_: Any) -> str:
    target = str(OmegaConf.select(_root_, f"{group}._target_"))
    return chosen_name(group, choice=str(_root_.hydra.runtime.choices.get(group)), target=target)


# Jobs' folders are named by it, in every process that Hydra starts one in.
OmegaConf.register_new_resolver("chosen_name", _chosen_name, replace=True)
