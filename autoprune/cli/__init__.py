"""The command line: `autoprune search [OVERRIDES]`, `autoprune show RUN`, … The only room that knows Hydra."""

import sys
from pathlib import Path

import hydra

from autoprune.cli.compare import compare
from autoprune.cli.fidelity import fidelity
from autoprune.cli.front import front
from autoprune.cli.generate import generate
from autoprune.cli.parts import conf_dir as conf_dir
from autoprune.cli.profile import profile
from autoprune.cli.search import resume, search
from autoprune.cli.train import train

USAGE = """usage: autoprune search [-m] [OVERRIDE ...]   learn a plan, prune, recover, export, report
       autoprune search resume=RUN           go on with a run that was cut off
       autoprune search policy=POLICY ...    learn on from a policy that learned on other networks
       autoprune apply policy=POLICY ...     what such a policy makes of a network, in seconds
       autoprune train [OVERRIDE ...]        make one, on many networks and budgets
       autoprune fidelity [OVERRIDE ...]     does the score that a search sees rank plans as recovery will?
       autoprune profile [OVERRIDE ...]      how fast a task's layers are on this machine, at every width
       autoprune compare RUN ... | sweep=DIR which agent is better, and at how many seeds can that be said?
       autoprune front RUN|SWEEP ...         accuracy against measured latency, from runs under several budgets
       autoprune show RUN                    a finished run's table again
       autoprune generate RUN "PROMPT"       what a pruned language model goes on to say

The overrides are Hydra's: autoprune search task=fashion_mobilenet agent=sac budget=macs:0.3 seed=3
What can be chosen: autoprune search --help"""


JOBS = {
    "search": (search, "config"),
    "apply": (search, "apply"),  # a search whose agent learns nothing more
    "train": (train, "train"),
    "fidelity": (fidelity, "fidelity"),
    "profile": (profile, "profile"),
}


def main() -> None:
    """The console script."""
    match sys.argv[1:]:
        case ["search", *overrides] if any(override.startswith("resume=") for override in overrides):
            resume(overrides)
        case [command, *overrides] if command in JOBS:
            sys.path.insert(0, str(Path.cwd()))  # task._target_=my_module.my_task finds the user's own modules
            if command == "search" and _chosen("policy", overrides) and not _chosen("agent", overrides):
                overrides = ["agent=transferable", *overrides]  # the one that a policy is for
            sys.argv[1:] = overrides
            job, name = JOBS[command]
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)()
        case ["compare", *arguments]:
            compare(arguments)
        case ["front", *arguments]:
            front(arguments)
        case ["show", run]:
            _show(run)
        case ["generate", *arguments]:
            generate(arguments)
        case ["--version"]:
            from autoprune import __version__

            print(f"autoprune {__version__}")
        case [] | ["-h" | "--help"]:
            print(USAGE)
        case arguments:
            sys.exit(f"autoprune does not know {' '.join(arguments)!r}\n{USAGE}")


def _chosen(name: str, overrides: list[str]) -> bool:
    return any(override.startswith(f"{name}=") and override != f"{name}=null" for override in overrides)


def _show(run: str) -> None:
    from autoprune.report.terminal import print_result
    from autoprune.runs import RunFolder

    try:
        print_result(RunFolder.open(Path(run)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
