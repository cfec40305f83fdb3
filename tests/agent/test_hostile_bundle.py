"""A bundle comes from anywhere: what was damaged is noticed, and nothing that is in it runs."""

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.agent.bundle import load_policy, load_training, save_policy
from autoprune.agent.policy_file import sealed
from autoprune.agent.trained_policy import TrainedPolicy
from tests.agent.policies import TRAINING, learned_policy

RECORD, WEIGHTS, CARD = "policy.json", "policy.safetensors", "README.md"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save_policy(learned_policy("TD3"), folder, training=TRAINING)
    return folder


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return copied(whole, tmp_path / "bundle")


def copied(whole: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in (RECORD, WEIGHTS, CARD):
        (folder / name).write_bytes((whole / name).read_bytes())
    return folder


def same(one: TrainedPolicy, other: TrainedPolicy) -> bool:
    first, second = one.network.state_dict(), other.network.state_dict()
    return (
        (one.algorithm, one.architecture) == (other.algorithm, other.architecture)
        and one.network.observation_space == other.network.observation_space
        and one.network.action_space == other.network.action_space
        and first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
    )


@st.composite
def edits(draw: st.DrawFn) -> Any:
    """A function that changes a byte, puts some in, or takes some out; the places are spread over the file."""
    place, many = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 8))
    new = draw(st.binary(max_size=8))

    def edit(content: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + new + content[at + many :]

    return edit


def check_refused_or_same(whole: Path, folder: Path) -> None:
    try:
        policy, training = load_policy(folder), load_training(folder)
    except ValueError as error:
        refusal = str(error)
    else:
        assert same(policy, load_policy(whole))
        assert training == TRAINING
        return
    assert str(folder) in refusal  # which says what it is about


@given(edit=edits(), name=st.sampled_from([RECORD, WEIGHTS]))
def test_an_edited_bundle_is_refused_or_the_same(
    edit: Any, name: str, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = copied(whole, tmp_path_factory.getbasetemp() / "edited")
    (folder / name).write_bytes(edit((folder / name).read_bytes()))
    check_refused_or_same(whole, folder)


@given(left=st.floats(0, 1, exclude_max=True), name=st.sampled_from([RECORD, WEIGHTS]))
def test_a_bundle_cut_short_is_refused(
    left: float, name: str, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = copied(whole, tmp_path_factory.getbasetemp() / "short")
    content = (folder / name).read_bytes().rstrip()
    (folder / name).write_bytes(content[: int(left * len(content))])
    with pytest.raises(ValueError, match=r"is not JSON|does not hold this policy's weights"):
        load_policy(folder)


@given(edit=edits())
def test_weights_whose_edit_was_sealed_are_refused_or_load(
    edit: Any, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who seals what they changed is believed as to the numbers, and as to nothing else."""
    folder = copied(whole, tmp_path_factory.getbasetemp() / "sealed")
    (folder / WEIGHTS).write_bytes(edit((folder / WEIGHTS).read_bytes()))
    seal(folder)
    try:
        policy = load_policy(folder)
    except ValueError:
        return
    assert all(weight.isfinite().all() for weight in policy.network.state_dict().values())


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe{}", b"[]", b"null", b'{"schema": NaN}', b"9" * 5000])
def test_json_that_is_no_record_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / RECORD).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not JSON|no policy's record"):
        load_policy(bundle)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def payload(tmp_path: Path) -> tuple[bytes, Path]:
    """A pickle, and the file that it makes where it is executed; that it would is known."""
    marker = tmp_path / "executed"
    content = pickle.dumps(Payload(marker))
    pickle.loads(content)
    assert marker.exists()
    marker.unlink()
    return content, marker


@pytest.mark.parametrize(
    "name",
    [
        "policy.pkl",
        "weights.pickle",
        "model.pt",
        "model.pth",
        "pytorch_model.BIN",
        "a.zip",
        "evil.py",
        "x.so",
        "in/a.pkl",
    ],
)
def test_what_could_run_is_refused_by_name(bundle: Path, payload: tuple[bytes, Path], name: str) -> None:
    content, marker = payload
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(content)
    for load in (load_policy, load_training):
        with pytest.raises(ValueError, match=rf"{name} in.*Delete that file"):
            load(bundle)
    assert not marker.exists()


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_never_executed(
    bundle: Path, payload: tuple[bytes, Path], form: str
) -> None:
    content, marker = payload
    if form == "pickle":
        (bundle / WEIGHTS).write_bytes(content)
    else:
        with zipfile.ZipFile(bundle / WEIGHTS, "w") as archive:  # as torch.save would
            archive.writestr("archive/data.pkl", content)
    with pytest.raises(ValueError, match="SHA-256"):
        load_policy(bundle)
    seal(bundle)
    with pytest.raises(ValueError, match="does not hold this policy's weights"):
        load_policy(bundle)
    assert not marker.exists()


def test_a_pickle_in_place_of_the_record_is_never_executed(bundle: Path, payload: tuple[bytes, Path]) -> None:
    content, marker = payload
    (bundle / RECORD).write_bytes(content)
    with pytest.raises(ValueError, match="is not JSON"):
        load_policy(bundle)
    assert not marker.exists()


def test_other_files_are_no_harm(bundle: Path, whole: Path) -> None:
    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert same(load_policy(bundle), load_policy(whole))


def test_files_may_be_links(whole: Path, tmp_path: Path) -> None:
    """As they are in the cache of the Hugging Face Hub."""
    folder = tmp_path / "snapshot"
    (tmp_path / "blobs").mkdir()
    folder.mkdir()
    for name in (RECORD, WEIGHTS, CARD):
        content = (whole / name).read_bytes()
        blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (folder / name).symlink_to(blob)
    assert same(load_policy(folder), load_policy(whole))


def seal(folder: Path) -> None:
    """The record fits what is there, whatever it is."""
    record = sealed(json.loads((folder / RECORD).read_text()), weights=(folder / WEIGHTS).read_bytes())
    (folder / RECORD).write_text(json.dumps(record))
