"""`autoprune generate RUN "prompt"`: what a run's language model writes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from autoprune.cli.arguments import read_arguments
from autoprune.cli.foreign import TARGET, trusted_config
from autoprune.cli.session import announced_in_terminal, run_command
from autoprune.cli.validation import Section
from autoprune.ranges import Count

USAGE = """usage: autoprune generate RUN "PROMPT" [tokens=40] [dense=true]

What a pruned language model goes on to say, by at most so many tokens. dense=true: and what the dense one does, which
the run's configuration names; where its function is not autoprune's own, task._target_=MODULE.FUNCTION says that you
trust it."""


class GenerateSettings(Section):
    """What is written KEY=VALUE."""

    tokens: Count = 40
    dense: bool = False


def generate(arguments: Sequence[str]) -> None:
    """Prints the continuation that the run's network writes, and the dense one's if asked. Errors are sentences."""
    run_command(lambda: _generate(arguments))


def _generate(arguments: Sequence[str]) -> None:
    request = GenerateRequest.parse(arguments)
    with announced_in_terminal("reading the network and writing"):
        answers = request.answers()
    for title, text in answers:
        print(f"{title}: {request.prompt}{text}" if title else f"{request.prompt}{text}")


def tokenizer_folder(run: Path) -> Path:
    """Where a run of a language model keeps its tokenizer."""
    from autoprune.export.network import RUN_FOLDER, TOKENIZER_FOLDER

    return Path(run) / RUN_FOLDER / TOKENIZER_FOLDER


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What is to be continued."""

    run: Path
    """Of a language model."""
    prompt: str
    """The text that is continued."""
    tokens: int
    """Written at most."""
    dense: bool
    """Whether the dense network is asked as well."""
    trusted: tuple[str, ...] = ()
    """Targets of the run's task that are not autoprune's own, as overrides."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises ValueError for what it cannot be asked."""
        if len(arguments) < 2:
            raise ValueError(f"generate needs a run and a prompt\n{USAGE}")
        run, prompt, *options = arguments
        trusted = [option for option in options if option.partition("=")[0].endswith(f".{TARGET}")]
        others, settings = read_arguments(
            [option for option in options if option not in trusted], GenerateSettings, command="autoprune generate"
        )
        if others:
            raise ValueError(f"generate does not know {others[0]!r}; a prompt of several words is quoted\n{USAGE}")
        if not prompt.strip():
            raise ValueError("the prompt is empty: there is nothing to continue")
        return cls(Path(run), prompt, settings["tokens"], settings["dense"], tuple(trusted))

    def answers(self) -> list[tuple[str, str]]:
        """(whose, continuation); a single one needs no title."""
        from autoprune.export.network import load_run, network_folder, read_record
        from autoprune.runs import RunFolder
        from autoprune.task.language_measures import continuation, load_tokenizer

        record = RunFolder.open(self.run).read_json("run.json")
        silent = (
            f"{self.run} is a run of the task {record.get('task')!r}, which is no language model that writes; "
            "generate is for runs of tasks such as smollm2"
        )
        if read_record(network_folder(self.run))["architecture"] is None:  # one's own, which Python alone can load
            raise ValueError(silent)
        network, folder = load_run(self.run), tokenizer_folder(self.run)
        if not getattr(network, "can_generate", bool)():
            raise ValueError(silent)
        tokenizer = load_tokenizer(folder)
        pruned = continuation(network, tokenizer, self.prompt, tokens=self.tokens)
        if not self.dense:
            return [("", pruned)]
        dense = continuation(_dense_network(self.run, self.trusted), tokenizer, self.prompt, tokens=self.tokens)
        return [("pruned", pruned), ("dense", dense)]


def _dense_network(run: Path, trusted: Sequence[str]) -> Any:
    """The network of the task that the run's configuration names."""
    from autoprune.cli.parts import task_of

    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} has no config.yaml that names its task, so there is no dense network to ask")
    command = f'autoprune generate {run} "PROMPT" dense=true'
    settings = trusted_config(run / "config.yaml", trusted, command=command, sections=("task", "data"))
    if trusted:
        sys.path.insert(0, str(Path.cwd()))  # where the person's own modules are
    return task_of(settings["task"], settings.get("data")).model
