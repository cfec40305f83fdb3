"""The file format `.apz`: a network's shape as JSON and its tensors, coded. docs/format.md has it byte by byte."""

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, varint
from autoprune.coding.coded_tensor import TensorBits, TensorHead, read_body, read_head, write_body, write_head

MAGIC = b"\x89apz\r\n\x1a\n"  # as PNG's: a transfer as text or of seven bits damages it
VERSION = 1
HEADER = struct.Struct("<8sHQQIII32s")  # magic, version, file, decoded, record, packed record, tensors, SHA-256
LONGEST_NAME = 1024
LONGEST_RECORD = 2**26  # bytes of JSON


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """A tensor of a file that was not decoded yet."""

    head: TensorHead
    """Its dtype and shape."""
    body: bytes
    """Its values, coded."""

    def decode(self) -> TensorBits:
        """Returns the tensor. Raises DamagedBytes where the bytes are not what an encoder writes."""
        return read_body(self.body, self.head)


@dataclass(frozen=True, slots=True)
class ApzFile:
    """A file whose header, sizes and checksum are right, and of which no tensor was decoded."""

    record: bytes
    """The network's shape, as JSON."""
    tensors: Mapping[str, CodedTensor]
    """By name, in the file's order."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Returns what the file holds; takes memory for the file and for the JSON that its header states.

        Args:
            data: All bytes of the file.

        Raises:
            DamagedBytes: The file is truncated, altered, or no `.apz` file.
        """
        if len(data) < HEADER.size or data[: len(MAGIC)] != MAGIC:
            raise DamagedBytes("it does not begin as an .apz file does")
        _, version, size, decoded, record_size, packed_size, count, digest = HEADER.unpack_from(data)
        if version != VERSION:
            raise DamagedBytes(f"it has version {version}, and this autoprune reads version {VERSION}")
        if size != len(data):
            raise DamagedBytes(f"it has {len(data)} bytes, and its header says {size}")
        if digest != _digest(data):
            raise DamagedBytes("its SHA-256 is not that of its header")
        reader = ByteReader(data, HEADER.size)
        record = _unpacked(reader.take(packed_size), record_size)
        tensors: dict[str, CodedTensor] = {}
        for _ in range(count):
            name = _read_name(reader)
            if name in tensors:
                raise DamagedBytes(f"it has the tensor {name!r} twice")
            head = read_head(reader)
            tensors[name] = CodedTensor(head, reader.take(reader.varint(reader.left)))
        reader.end()
        if decoded != sum(tensor.head.decoded_bytes for tensor in tensors.values()):
            raise DamagedBytes("its tensors are not as large as its header says")
        return cls(record, tensors)


def apz_bytes(record: bytes, tensors: Mapping[str, TensorBits]) -> bytes:
    """Returns the bytes of a file.

    Args:
        record: The network's shape, as JSON.
        tensors: By name, of at most 1,024 bytes each.
    """
    return assemble(record, {name: encoded(tensor) for name, tensor in tensors.items()})


def encoded(tensor: TensorBits) -> CodedTensor:
    """Returns the tensor in its shortest form."""
    return CodedTensor(TensorHead(tensor.dtype, tuple(tensor.bits.shape)), write_body(tensor))


def assemble(record: bytes, tensors: Mapping[str, CodedTensor]) -> bytes:
    """Returns the bytes of a file of tensors that are coded already.

    Args:
        record: What is said of the network, as JSON in UTF-8.
        tensors: Name → coded tensor, in the order of the file.
    """
    if len(record) > LONGEST_RECORD:
        raise ValueError(f"the record of the network's shape has at most {LONGEST_RECORD} bytes, got {len(record)}")
    packed = zlib.compress(record, 9)
    parts = [packed]
    for name, tensor in tensors.items():
        text = name.encode()
        if not 0 < len(text) <= LONGEST_NAME:
            raise ValueError(f"a tensor's name has 1 to {LONGEST_NAME} bytes, got {name!r:.100}")
        parts += [varint(len(text)), text, write_head(tensor.head), varint(len(tensor.body)), tensor.body]
    content = b"".join(parts)
    decoded = sum(tensor.head.decoded_bytes for tensor in tensors.values())
    size = HEADER.size + len(content)
    head = (MAGIC, VERSION, size, decoded, len(record), len(packed), len(tensors))
    data = HEADER.pack(*head, bytes(32)) + content
    return HEADER.pack(*head, _digest(data)) + content


def _digest(data: bytes) -> bytes:
    """SHA-256 of the file with zeros in the digest's place."""
    hashed = hashlib.sha256(data[: HEADER.size - 32])
    hashed.update(memoryview(data)[HEADER.size :])
    return hashed.digest()


def _unpacked(packed: bytes, size: int) -> bytes:
    if size > LONGEST_RECORD:
        raise DamagedBytes(f"its record of the network's shape has {size} bytes, and at most {LONGEST_RECORD}")
    unpacker = zlib.decompressobj()
    try:
        record = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise DamagedBytes(f"its record of the network's shape is damaged: {error}") from error
    if len(record) != size or not unpacker.eof or unpacker.unused_data:
        raise DamagedBytes(f"its record of the network's shape is not of the {size} bytes that its header says")
    return record


def _read_name(reader: ByteReader) -> str:
    text = reader.take(reader.varint(LONGEST_NAME))
    try:
        name = text.decode()
    except UnicodeDecodeError as error:
        raise DamagedBytes(f"the name of a tensor is not UTF-8: {error}") from error
    if not name:
        raise DamagedBytes("a tensor without a name")
    return name
