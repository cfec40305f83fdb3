"""A sweep's jobs: what is complete is not done again, what was cut off goes on, and a failure is its own."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.session import same_command_goes_on, sentence_of

FAILED = "failed.json"
SHOWN = 4  # differing keys in an error; a different agent brings a dozen with it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One job of a sweep, in its folder. `failed.json` stands there if and only if its last attempt failed."""

    folder: Path
    """Where it writes."""
    config: DictConfig
    """Its composed settings."""
    overrides: list[str]
    """What a person set, as KEY=VALUE."""

    def result(self, search: Callable[..., float]) -> float | None:
        """What the folder's complete run says, or else what search(resumed=…) returns; None where it failed.

        None leaves basic sweeps going, and tells Optuna's sweeper that this trial has no value.
        """
        try:
            value = self.value()
            (self.folder / FAILED).unlink(missing_ok=True)
            if value is None:
                return search(resumed=self.begun())
        except Exception as error:
            self._write_down(error)
            return None
        log.info("%s is complete already", self.folder)
        return value

    def value(self) -> float | None:
        """The value of the run that is complete here; None where there is none.

        Raises ValueError where the folder holds a run of another configuration, complete or not.
        """
        from autoprune.runs import RunFolder

        if not self.begun():
            return None
        run = RunFolder.open(self.folder)
        before, now = OmegaConf.load(self.folder / "config.yaml"), OmegaConf.to_yaml(self.config, resolve=True)
        others = differences(_plain(before), _plain(OmegaConf.create(now)))
        if others:
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            raise ValueError(
                f"{self.folder} holds a run of another configuration: {', '.join(others[:SHOWN])}{more}. Give this "
                "sweep a folder of its own with hydra.sweep.dir, or remove that run"
            )
        if not run.has("result.json"):
            return None
        return value_of(run.read_json("result.json"))

    def begun(self) -> bool:
        return (self.folder / "run.json").is_file()

    def _write_down(self, error: Exception) -> None:
        from autoprune.runs import RunFolder

        record = {
            "error": sentence_of(error),
            "kind": type(error).__name__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "overrides": self.overrides,
            "traceback": "".join(traceback.format_exception(error)),
        }
        RunFolder(self.folder).write_json(FAILED, record)
        log.error("this job failed: %s\n(%s shows where; the sweep goes on)", record["error"], self.folder / FAILED)


def value_of(result: Mapping[str, Any]) -> float:
    """What a job comes to: the `score` of its search's own network, after recovery, on held-out search data.

    Of the search's own and not of the chosen network, which may be a baseline's; and never of the test data, to which
    settings that a sweeper finds would be fitted.
    """
    searched = result["networks"]["searched"]
    if "recovered_score" not in searched:
        raise ValueError("its result.json is of an earlier version, which kept no such score; make the run again")
    return float(searched["recovered_score"])


class SweepEnd(Callback):
    """A sweep over budgets ends with the page of its front; one some of whose jobs failed with a list of them.

    And with a status that is not zero then.
    """

    begun: ClassVar[list[Path]] = []
    """The folder of the sweep that this process runs, for what is said where it is interrupted between its jobs."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.begun[:] = [Path(config.hydra.sweep.dir)]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        sweep = Path(config.hydra.sweep.dir)
        write_front(sweep)
        failed = dict(failures(sweep))
        if failed:
            lines = [f"  {job}: {error}" for job, error in failed.items()]
            sys.exit(
                "\n".join([f"error: {len(failed)} of the jobs in {sweep} failed:", *lines, "", resume_hint(sweep)])
            )


def write_front(sweep: Path) -> None:
    """Writes front.html into the sweep's folder, where its runs are under several budgets."""
    from autoprune.report.front_page import headline, write_front_page
    from autoprune.report.latency_front import NoFrontError, fronts

    try:
        budget_fronts = fronts([sweep])
    except NoFrontError:
        return
    print(f"{headline(budget_fronts)}.\nfront: {write_front_page(budget_fronts, sweep)}")


def failures(sweep: Path) -> Iterator[tuple[str, str]]:
    """(folder inside the sweep's, error) of the jobs whose last attempt failed."""
    from autoprune.runs import RunFolder

    for file in sorted(sweep.rglob(FAILED)):
        yield str(file.parent.relative_to(sweep)), RunFolder(file.parent).read_json(FAILED)["error"]


def resume_hint(sweep: Path) -> str:
    return same_command_goes_on(sweep, "hydra.sweep.dir")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, inside: str = "") -> list[str]:
    """Which keys of two configurations differ, dotted, and how; a key that one of them lacks is "absent" there.

    Args:
        before: The settings of what stands there.
        now: Those that are asked for now.
        inside: The key that settings stand below.
    """
    differing: list[str] = []
    for key in [*before, *(key for key in now if key not in before)]:
        one, other = before.get(key, "absent"), now.get(key, "absent")
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            differing += differences(one, other, inside=f"{inside}{key}.")
        elif one != other:
            differing.append(f"{inside}{key} is {_text_of(one)} there, {_text_of(other)} here")
    return differing


def _text_of(value: Any) -> str:
    return "a group" if isinstance(value, Mapping) else "null" if value is None else str(value)


def _plain(config: Any) -> Mapping[str, Any]:
    plain: Any = OmegaConf.to_container(config)
    return plain  # type: ignore[no-any-return]
