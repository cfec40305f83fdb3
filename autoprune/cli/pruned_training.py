"""`autoprune train-pruned` and `autoprune tickets`: networks that are pruned while they train."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.command_settings import TicketsSettings, TrainPrunedSettings
from autoprune.cli.parts import chosen_name
from autoprune.cli.session import Session, run_command, same_command_goes_on
from autoprune.cli.sweep import differences

if TYPE_CHECKING:
    from torch import nn

    from autoprune.runs import RunFolder
    from autoprune.task.task import Task
    from autoprune.tracking import Tracker

SAME = ("tracking", "threads", "hydra")  # settings that a run which goes on may have otherwise
Work = Callable[[Session, "Task", "RunFolder", "Tracker"], dict[str, Any]]


def train_pruned(config: DictConfig) -> None:
    """One training under a schedule."""
    _command(config, TrainPrunedSettings, "train-pruned", _train_pruned)


def tickets(config: DictConfig) -> None:
    """Rounds of iterative magnitude pruning, and their controls."""
    _command(config, TicketsSettings, "tickets", _tickets)


def _command(config: DictConfig, section: Any, command: str, work: Work) -> None:
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    run_command(
        partial(_run, config, section, folder, overrides, command, work),
        interrupted=lambda: same_command_goes_on(folder),
        failed=lambda: same_command_goes_on(folder) if (folder / "run.json").exists() else "",
    )


def _run(config: DictConfig, section: Any, folder: Path, overrides: list[str], command: str, work: Work) -> None:
    """The frame of both: settings, task, the run's folder, tracker, result, report."""
    session = Session.begin(config, section, folder, overrides, command=f"autoprune {command}")

    from autoprune.report.training_page import headline, write_training_page
    from autoprune.runs import RunFolder

    session.prepare_process()
    run = RunFolder(folder)
    if run.has("run.json"):
        _check_same(run, session)
        if run.has("result.json"):
            print(f"{folder} is complete already: {headline([run.read_json('result.json')])}.")
            return
    task = session.task()
    task.require_labels("training while pruning")
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    before = run.read_json("run.json") if run.has("run.json") else None
    if before is None:
        run = session.new_run()
    record = before or {**session.record(task), "command": command}
    group = sweep or f"{task.name} {command}"
    names = {"group": group, "job_type": command, "config": dict(session.settings)}
    with session.tracked(**names, run_id=record.get("tracker")) as tracker:
        run.write_json("run.json", {**record, "tracker": tracker.run_id})
        result: dict[str, Any] = {
            "kind": "pruned_training",
            "command": command,
            "task": task.name,
            "judged": task.judged,
        }
        result |= work(session, task, run, tracker)
        run.write_json("result.json", result)
        report = write_training_page(run)
        tracker.summary(
            {
                "result/density": result["density"],
                "result/training_macs": result["training"]["macs"],
                "result/accuracy_after": result["points"][-1]["test_accuracy"],
                "result/accuracy_dense": result["dense"]["test_accuracy"],
            }
        )
        tracker.page("report", report)
        tracker.artifact("result", folder / "result.json", kind="result")
        tracker.artifact("network", folder / "network", kind="model")
    print(f"{headline([result])}.\nreport: {report}")


def _check_same(run: "RunFolder", session: Session) -> None:
    """Raises ValueError where the folder holds a run of other settings."""
    before: Mapping[str, Any] = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    now: Mapping[str, Any] = yaml.safe_load(session.written)
    one, other = ({key: value for key, value in each.items() if key not in SAME} for each in (before, now))
    if others := differences(one, other):
        raise ValueError(
            f"{run.path} holds a run of other settings: {', '.join(others[:4])}; go on with those, or give this run "
            "another folder with hydra.run.dir"
        )


def _train_pruned(session: Session, task: "Task", run: "RunFolder", tracker: "Tracker") -> dict[str, Any]:
    from autoprune.report.progress import StageProgress
    from autoprune.schedule.decision import PruningGoal
    from autoprune.schedule.engine import CHECKPOINT, train_pruned

    settings = session.settings
    goal = PruningGoal(
        density=_density(settings["budget"]),
        steps=float(settings["training"].removesuffix("x")) * settings["steps"],
        counted=settings["counted"],
        granularity=settings["granularity"],
        start=settings["start"],
        keep=frozenset(settings["keep"]),
    )
    name = ", ".join(part for part in (_chosen(settings, "schedule"), _chosen(settings, "quantize")) if part != "none")

    def note(record: dict[str, Any]) -> None:
        run.append("history.jsonl", record)
        logged = {f"schedule/{key}": record[key] for key in ("density", "loss", "macs", "overlap", "regrow")}
        tracker.log(logged, axis="schedule/step", step=record["step"])
        done = min(1000, round(1000 * record["spent"] / goal.steps))
        progress.update(done, of=1000, phase=name, note=f"density {record['density']:.4g}")

    (run.path / "history.jsonl").unlink(missing_ok=True)  # the checkpoint says it all again
    with StageProgress() as progress:
        progress.update(0, of=1000, phase=name, note="the first interval")
        trained = train_pruned(
            task, session.part("schedule"), goal,
            recipe=session.part("recipe"), seed=settings["seed"], folder=run.path, on_interval=note,
        )  # fmt: skip
    run.write_lines("history.jsonl", trained.history)
    if trained.removed_last > 0.01 * trained.weights:
        print(
            f"the training budget ended before the schedule had reached its density: {trained.removed_last} weights "
            "were removed after the last step; a larger training= or an earlier end of the schedule leaves none over"
        )
    _tell_uncounted(trained.uncounted)
    dense, pruned = _measured(task, task.model), _measured(task, trained.network)
    network, on_disk = _on_disk(session, task, trained.network, run)
    sparse = _measured(task, network)
    _export(task, network, run)
    if on_disk is not None:
        print(f"on the disk: {on_disk['bytes']:,} bytes as .apz, {on_disk['ratio']:.1f} times smaller than fp32")
    result = {
        "schedule": name,
        "seed": settings["seed"],
        "granularity": settings["granularity"],
        "density": trained.density,
        "weights": trained.weights,
        "total": round(trained.weights / trained.density),
        "removed_last": trained.removed_last,
        "uncounted": dict(trained.uncounted),
        "training": {"steps": trained.steps, "budget": goal.steps, "spent": trained.spent, "macs": trained.macs},
        "dense": dense,
        "pruned": pruned,
        "points": [{"series": name, "density": trained.density, "macs": trained.macs, **sparse}],
        "on_disk": on_disk,
        "history": list(trained.history),
    }
    (run.path / CHECKPOINT).unlink(missing_ok=True)
    return result


def _tickets(session: Session, task: "Task", run: "RunFolder", tracker: "Tracker") -> dict[str, Any]:
    from autoprune.report.progress import StageProgress
    from autoprune.schedule.lottery_tickets import ROUND, TicketSearch, TicketSettings
    from autoprune.schedule.weight_masks import uncounted_weights

    settings = session.settings
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value := settings[name], list) else value for name in TicketSettings.__slots__
    }
    wanted, rows = TicketSettings(**given), list[dict[str, Any]]()

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        logged = {f"schedule/{row['kind']}_accuracy": row["search_accuracy"], "schedule/density": row["density"]}
        tracker.log(logged, axis="schedule/step", step=len(rows))
        progress.update(len(rows), of=of, phase=row["kind"], note=f"density {row['density']:.4g}")

    controls = len(wanted.controls) * len(wanted.control_rounds or range(wanted.rounds))
    of = 1 + wanted.rounds + controls
    with StageProgress() as progress:
        progress.update(0, of=of, phase="dense", note="")
        search = TicketSearch(
            task, wanted, session.part("recipe"), settings["seed"], run.path, frozenset(settings["keep"]), note
        )
        last = search.run()
    uncounted = uncounted_weights(last.model, last.masking.layers)
    _tell_uncounted(uncounted)
    _export(task, last.model.eval(), run)
    by_kind = {(row["kind"], row["round"]): row for row in search.rows}
    dense = by_kind["dense", 0]
    points = [{**row, "series": row["kind"]} for row in search.rows if row["kind"] != "dense"]
    points.sort(key=lambda point: (point["series"] == "ticket", point["round"]))  # the last one is what is exported
    (run.path / ROUND).unlink(missing_ok=True)
    clock = last.training.clock
    return {
        "schedule": f"tickets, rewind {wanted.rewind}",
        "seed": settings["seed"],
        "granularity": "weight",
        "density": last.density,
        "weights": last.masking.kept(last.training.masks),
        "total": last.masking.total,
        "uncounted": uncounted,
        "training": {"steps": clock.step, "budget": last.goal.steps, "spent": clock.spent, "macs": clock.macs},
        "dense": {key: dense[key] for key in ("test_accuracy", "search_accuracy", "search_loss")},
        "points": points,
        "history": [],
    }


def _measured(task: "Task", network: "nn.Module") -> dict[str, float]:
    """How good a network is on the test role, and on the search role."""
    from autoprune.task.task import outputs_of

    values: dict[str, float] = {}
    for name, role in (("search", task.data.search), ("test", task.data.test)):
        outputs = outputs_of(network.eval(), role.inputs, task.forward)
        values[f"{name}_accuracy"] = float(task.metric(outputs, role.targets))
        values[f"{name}_loss"] = float(task.loss(outputs, role.targets))
    return values


def _export(task: "Task", network: "nn.Module", run: "RunFolder") -> None:
    """The network stands in the run's folder, as every pruned one does, and as ONNX where the task wants it."""
    from autoprune.export.network import save_network
    from autoprune.export.onnx import export_onnx_into

    save_network(network, run.path / "network", architecture=task.architecture)
    if task.onnx:
        export_onnx_into(run.path, network, task.example_input, forward=task.forward)


def _on_disk(
    session: Session, task: "Task", pruned: "nn.Module", run: "RunFolder"
) -> "tuple[nn.Module, dict[str, Any] | None]":
    """The network after quantization, and what its `.apz` file takes, which the run has where there are shared values.

    None where the network has lost channels and its values are its own, and where coding would take minutes.
    """
    from autoprune.deep_compression import FP32, layer_sizes
    from autoprune.export.apz import LARGEST_CODED, apz_size, save_apz
    from autoprune.final_networks import quantizes
    from autoprune.seeding import torch_generator

    settings, quantize = session.settings, session.part("quantize")
    network, coded = pruned, quantizes(quantize)
    if coded:
        network = quantize(pruned, task, generator=torch_generator(settings["seed"], "quantize"))
    sizes = sum(parameter.numel() for parameter in task.model.parameters())
    if not coded and (settings["granularity"] == "channel" or sizes > LARGEST_CODED):
        return network, None
    if coded:
        (run.path / "network").mkdir(exist_ok=True)
        taken = save_apz(network, run.path / "network" / "network.apz", architecture=task.architecture)
    else:
        taken = apz_size(network, architecture=task.architecture)["apz"]
    layers = [layer.as_json() for layer in layer_sizes(network)]
    dense_bytes = FP32 * sizes
    return network, {"bytes": taken, "dense_bytes": dense_bytes, "ratio": dense_bytes / taken, "layers": layers}


def _tell_uncounted(uncounted: Mapping[str, int]) -> None:
    """Says which weights no density counts."""
    if uncounted:
        listed = ", ".join(f"{name} ({count})" for name, count in list(uncounted.items())[:4])
        more = f" and {len(uncounted) - 4} more" if len(uncounted) > 4 else ""
        print(f"densities count convolutions, linear, recurrent and attention layers, and not {listed}{more}")


def _density(budget: str | None) -> float | None:
    return None if budget is None else float(budget.partition(":")[2])


def _chosen(settings: Mapping[str, Any], group: str) -> str:
    """What was chosen of a group of the configuration."""
    target = str(OmegaConf.select(OmegaConf.create(dict(settings)), f"{group}._target_"))
    return chosen_name(group, choice=str(HydraConfig.get().runtime.choices.get(group)), target=target)
