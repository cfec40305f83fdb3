"""`autoprune generate RUN "prompt"`: what a run's language model writes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

USAGE = 'usage: autoprune generate RUN "prompt" [tokens=40] [dense=true]'


def generate(arguments: Sequence[str]) -> None:
    """Prints the continuation that the run's network writes, and the dense one's if asked. Errors are sentences."""
    try:
        request = GenerateRequest.parse(arguments)
        for title, text in request.answers():
            print(f"{title}: {request.prompt}{text}" if title else f"{request.prompt}{text}")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def tokenizer_folder(run: Path) -> Path:
    """Where a run of a language model keeps its tokenizer."""
    from autoprune.export.network import RUN_FOLDER, TOKENIZER_FOLDER

    return Path(run) / RUN_FOLDER / TOKENIZER_FOLDER


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What is to be continued, by at most how many tokens, and whether by the dense network as well."""

    run: Path
    prompt: str
    tokens: int = 40
    dense: bool = False

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Raises ValueError for what it cannot be asked."""
        if len(arguments) < 2:
            raise ValueError(f"generate needs a run and a prompt\n{USAGE}")
        run, prompt, *options = arguments
        settings: dict[str, Any] = {}
        for option in options:
            name, _, value = option.partition("=")
            match name:
                case "tokens" if value.lstrip("-").isdecimal():
                    settings["tokens"] = int(value)
                case "dense" if value in ("true", "false"):
                    settings["dense"] = value == "true"
                case _:
                    raise ValueError(f"generate does not know {option!r}; a prompt of several words is quoted\n{USAGE}")
        if settings.get("tokens", 1) < 1:
            raise ValueError(f"tokens must be at least 1, got {settings['tokens']}")
        if not prompt.strip():
            raise ValueError("the prompt is empty: there is nothing to continue")
        return cls(Path(run), prompt, **settings)

    def answers(self) -> list[tuple[str, str]]:
        """(whose, continuation); a single one needs no title."""
        from autoprune.export.network import load_run
        from autoprune.runs import RunFolder
        from autoprune.task.language_measures import continuation, load_tokenizer

        record = RunFolder.open(self.run).read_json("run.json")
        network, folder = load_run(self.run), tokenizer_folder(self.run)
        if not getattr(network, "can_generate", bool)():
            raise ValueError(
                f"{self.run} is a run of the task {record.get('task')!r}, which is no language model that writes; "
                "generate is for runs of tasks such as smollm2"
            )
        tokenizer = load_tokenizer(folder)
        pruned = continuation(network, tokenizer, self.prompt, tokens=self.tokens)
        if not self.dense:
            return [("", pruned)]
        dense = continuation(_dense_network(self.run), tokenizer, self.prompt, tokens=self.tokens)
        return [("pruned", pruned), ("dense", dense)]


def _dense_network(run: Path) -> Any:
    """The network of the task that the run's configuration names."""
    from omegaconf import OmegaConf

    from autoprune.cli.parts import task_of

    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} has no config.yaml that names its task, so there is no dense network to ask")
    sys.path.insert(0, str(Path.cwd()))  # a task of the user's own
    settings: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=True)
    return task_of(settings["task"], settings.get("data")).model
