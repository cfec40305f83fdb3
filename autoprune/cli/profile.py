"""`autoprune profile`: measures the latency tables of a task on this machine."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from autoprune.cli.command_settings import ProfileSettings
from autoprune.cli.session import Session, run_command

KEPT = "What is measured is kept: the same command goes on from here."


def profile(config: DictConfig) -> None:
    """Measures what is not measured yet, and prints how well predictions fit. Errors are sentences."""
    run_command(partial(_profile, config), interrupted=lambda: KEPT)


def _profile(config: DictConfig) -> None:
    session = Session.begin(config, ProfileSettings, Path(), [], command="autoprune profile")

    from autoprune.device.measured_device import MeasuredDevice
    from autoprune.device.profiler import FusedLayerProfiler, NetworkProfiler, random_plans
    from autoprune.device.widths import widths_of
    from autoprune.report.profile_tables import print_profile
    from autoprune.report.progress import StageProgress, announced
    from autoprune.structure.graph import find_structure

    settings, device = session.settings, session.part("device")
    if not isinstance(device, MeasuredDevice):
        raise ValueError(
            f"{getattr(device, 'name', device)} is not measured: its figures are in its file, and it needs no profile; "
            "profile device=this_cpu or device=this_gpu"
        )
    task = session.task()
    with announced("looking for groups and for layers to time"):
        structure = find_structure(task.model, task.example_input, keep=task.keep, prune=task.prune)
        widths = widths_of(task.model, structure, task.example_input, forward=task.forward)
    print(f"{task.name} on {device.name}: {len(widths.layers)} layers; tables in {device.store.folder}")
    for what, times in widths.left_out.items():
        print(f"{what}, {times}×, is in no layer; what it takes is in the correction by whole networks")
    with StageProgress() as progress:

        def report(done: int, of: int, what: str) -> None:
            progress.update(done, of=of, phase="profile", note=what)

        FusedLayerProfiler(device, widths, on_progress=report).run()
        networks = NetworkProfiler(device, task, structure, widths, on_progress=report)
        networks.calibrate(settings["plans"])
        plans = random_plans(structure, settings["checked"], seed=1)
        timings = networks.timings(plans)
    latency = device.latency(task, widths)
    print_profile(structure, latency, plans, 1e3 * timings.minimum, 1e3 * timings.median)
