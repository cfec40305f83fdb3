"""Fashion-MNIST (Xiao et al., arXiv 1708.07747; MIT licence) as four disjoint roles: a shipped subset, or all of it."""

import gzip
import lzma
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from autoprune.task.task import Role, Roles

MEAN, STD = 0.2860, 0.3530  # of the training images, scaled to [0, 1]
TRAIN_IMAGES = 60_000  # ids below are the training file's rows, ids from here on the test file's
SPLIT_SEED = 20261122  # fixes which training images are calibration and search; the zoo never trained on those
CALIBRATION, SEARCH = 1_000, 5_000  # images held out of the training file
SUBSET = {"train": 8_000, "calibration": 1_000, "search": 3_000, "test": 3_500}  # 5.8 MB with xz
SUBSET_FILE = Path(__file__).parent.parent / "zoo" / "fashion_mnist_subset.safetensors.xz"

Bytes = NDArray[np.uint8]


def fashion_subset() -> Roles:
    """The shipped 15,500 images: enough to search and recover on with no network."""
    with lzma.open(SUBSET_FILE) as file:
        arrays = safetensors.numpy.load(file.read())
    return Roles(
        **{role: _role(arrays[f"{role}.images"], arrays[f"{role}.labels"], arrays[f"{role}.ids"]) for role in SUBSET}
    )


def fashion_full(*, folder: str | None = None) -> Roles:
    """All 70,000 images, from a folder of the four gzipped IDX files, else through the `datasets` library."""
    images, labels = _read_idx(Path(folder)) if folder else _read_datasets()
    ids = role_ids(len(images))
    return Roles(**{role: _role(images[rows], labels[rows], rows) for role, rows in ids.items()})


def write_subset(folder: str) -> None:
    """Writes the shipped subset from a folder of the IDX files (`scripts/train_zoo` calls this)."""
    images, labels = _read_idx(Path(folder))
    arrays: dict[str, NDArray[np.generic]] = {}
    for role, rows in role_ids(len(images)).items():
        rows = rows[: SUBSET[role]]
        arrays |= {f"{role}.images": images[rows], f"{role}.labels": labels[rows], f"{role}.ids": rows}
    with lzma.open(SUBSET_FILE, "wb", preset=9 | lzma.PRESET_EXTREME) as file:
        file.write(safetensors.numpy.save(arrays))


def role_ids(images: int) -> Mapping[str, NDArray[np.int64]]:
    """Which of `images` rows (training file, then test file) belong to which role, in a fixed shuffled order."""
    rng = np.random.default_rng(SPLIT_SEED)
    train, test = rng.permutation(TRAIN_IMAGES), rng.permutation(np.arange(TRAIN_IMAGES, images))
    calibration, search, train = np.split(train, [CALIBRATION, CALIBRATION + SEARCH])
    return {"train": train, "calibration": calibration, "search": search, "test": test}


def _role(images: Bytes, labels: Bytes, ids: NDArray[np.int64]) -> Role:
    pixels = torch.from_numpy(images).float().div_(255).sub_(MEAN).div_(STD)
    return Role(
        inputs=pixels.unsqueeze(1),
        targets=torch.from_numpy(labels.astype(np.int64)),
        ids=tuple(f"fashion-mnist:{i}" for i in ids.tolist()),
    )


def _read_idx(folder: Path) -> tuple[Bytes, Bytes]:
    """Images [70000, 28, 28] and labels [70000] of the four files, training first."""
    names = [f"{part}-{kind}.gz" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"data=fashion_full needs four gzipped IDX files in {folder}; missing: {missing}")
    parts = []
    for name in names:
        with gzip.open(folder / name) as file:
            raw = file.read()
        header = 4 + 4 * raw[3]  # magic number, then one 32-bit size per axis
        values = np.frombuffer(raw, np.uint8, offset=header)
        parts.append(values.reshape(-1, 28, 28) if "images" in name else values)
    return np.concatenate(parts[0::2]), np.concatenate(parts[1::2])


def _read_datasets() -> tuple[Bytes, Bytes]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            "data=fashion_full without data.folder reads through the `datasets` library: "
            "`pip install 'autoprune[vision]'`, or give data.folder=FOLDER of the four gzipped IDX files"
        ) from error
    splits = load_dataset("zalando-datasets/fashion_mnist")
    images = [np.stack([np.asarray(image) for image in splits[name]["image"]]) for name in ("train", "test")]
    labels = [np.asarray(splits[name]["label"], np.uint8) for name in ("train", "test")]
    return np.concatenate(images), np.concatenate(labels)
