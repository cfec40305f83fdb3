"""Damaged and hostile files end in an error, and in no more memory than the file and its stated sizes allow."""

import contextlib
import hashlib
import tracemalloc
import zlib

import numpy as np
import pytest

from autoprune.coding.apz_file import HEADER, MAGIC, ApzFile, apz_bytes
from autoprune.coding.byte_reader import DamagedBytes, varint
from tests.coding.tensors_to_code import small_file

FILE = small_file()
MOST_MEMORY = 4 * 2**20  # bytes: the file has 1 kB and its tensors 6 kB


def read(data: bytes) -> int:
    """How many entries all tensors have."""
    return sum(tensor.decode().bits.size for tensor in ApzFile.parse(data).tensors.values())


def sealed(data: bytes, **header: int) -> bytes:
    """The file with a header that was changed, and the right size and checksum of what it is now."""
    names = ("version", "size", "decoded", "record", "packed", "tensors")
    fields = dict(zip(names, HEADER.unpack_from(data)[1:7], strict=True)) | {"size": len(data)} | header
    begun = HEADER.pack(MAGIC, *fields.values(), bytes(32)) + data[HEADER.size :]
    digest = hashlib.sha256(begun[: HEADER.size - 32] + begun[HEADER.size :]).digest()
    return HEADER.pack(MAGIC, *fields.values(), digest) + data[HEADER.size :]


def test_the_file_is_read_back() -> None:
    assert read(FILE) == 30 * 40 + 6 * 20 + 30
    assert ApzFile.parse(FILE).record == b'{"schema": 1}'
    assert sealed(FILE) == FILE


def test_every_damaged_byte_is_an_error() -> None:
    for place in range(len(FILE)):
        altered = bytearray(FILE)
        altered[place] ^= 1 << place % 8
        with pytest.raises(DamagedBytes):
            read(bytes(altered))


def test_every_truncation_and_anything_behind_it_is_an_error() -> None:
    for length in range(0, len(FILE), 7):
        with pytest.raises(DamagedBytes):
            read(FILE[:length])
        with pytest.raises(DamagedBytes):  # with a header that says so
            read(sealed(FILE[:length]) if length >= HEADER.size else FILE[:length])
    for data in (FILE + b"\x00", sealed(FILE + b"\x00")):
        with pytest.raises(DamagedBytes):
            read(data)


def hostile(rng: np.random.Generator, kind: int) -> bytes:
    """The file with up to three changes inside, and a header and checksum that are right."""
    altered = bytearray(FILE)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(HEADER.size, len(altered)))
        match kind:
            case 0:
                altered[place] = int(rng.integers(256))
            case 1:
                altered[place : place + 9] = b"\xff" * 8 + b"\x7f"  # the largest number that there is
            case 2:
                del altered[place : place + int(rng.integers(1, 40))]
            case _:
                altered[place:place] = rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8).tobytes()
    return sealed(bytes(altered))


def test_six_hundred_hostile_files_end_in_errors() -> None:
    """All others changed a value into another valid one."""
    rng, refused = np.random.default_rng(0), 0
    for trial in range(600):
        try:
            read(hostile(rng, trial % 4))
        except DamagedBytes:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("trials", [20, pytest.param(600, marks=pytest.mark.slow)])
def test_hostile_files_take_no_more_memory_than_good_ones(trials: int) -> None:
    rng = np.random.default_rng(trials)
    tracemalloc.start()
    try:
        for trial in range(trials):
            with contextlib.suppress(DamagedBytes):
                read(hostile(rng, trial % 4))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"decoded": 2**40}, "not as large as its header says"),
        ({"record": 2**31}, "at most 67108864"),
        ({"record": 5}, "not of the 5 bytes"),
        ({"packed": 3}, "damaged|not of the"),
        ({"tensors": 2}, "bytes follow"),
        ({"tensors": 4}, "are needed"),
        ({"tensors": 2**32 - 1}, "are needed"),
    ],
)
def test_wrong_headers_say_what_is_wrong(header: dict[str, int], message: str) -> None:
    with pytest.raises(DamagedBytes, match=message):
        read(sealed(FILE, **header))


def test_a_bomb_of_zeros_is_not_unpacked() -> None:
    """A record that grows a thousandfold, and a tensor that claims 2^39 entries."""
    packed = zlib.compress(bytes(50 * 2**20), 9)
    claim = b"\x01w\x08\x01" + varint(2**39) + varint(2) + b"\x00\x00"
    blank = HEADER.pack(MAGIC, 1, 0, 0, 0, 0, 0, bytes(32))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedBytes, match="not of the 100 bytes"):
            read(sealed(blank + packed, record=100, packed=len(packed)))
        record = zlib.compress(b"{}", 9)
        file = ApzFile.parse(sealed(blank + record + claim, record=2, packed=len(record), tensors=1, decoded=2**39))
        assert file.tensors["w"].head.decoded_bytes == 2**39  # what a reader compares with its network
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="1 to 1024 bytes"):
        apz_bytes(b"{}", {"": next(iter(ApzFile.parse(FILE).tensors.values())).decode()})
    twice = FILE.replace(b"\x06scaled", b"\x06sparse")
    with pytest.raises(DamagedBytes, match="the tensor 'sparse' twice"):
        read(sealed(twice))
    with pytest.raises(DamagedBytes, match="not UTF-8"):
        read(sealed(FILE.replace(b"\x06scaled", b"\x06s\xffaled")))
