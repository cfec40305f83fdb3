"""Reading bytes that may be damaged or hostile: everything that is taken has to be there."""

from dataclasses import dataclass

LONGEST = 9  # bytes of a varint, 63 bits


class DamagedBytes(ValueError):
    """What was read is not what an encoder writes."""


@dataclass(slots=True)
class ByteReader:
    """A position in bytes that moves forward with what is taken.

    >>> reader = ByteReader(b"\\x85\\x01ab")
    >>> reader.varint(), reader.take(2), reader.left
    (133, b'ab', 0)
    """

    data: bytes
    """All of them."""
    at: int = 0
    """Where the next one is taken."""

    @property
    def left(self) -> int:
        """Bytes that were not taken."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """Returns the next `count` bytes. Raises DamagedBytes where there are fewer."""
        if not 0 <= count <= self.left:
            raise DamagedBytes(f"{count} bytes are needed at byte {self.at}, and {self.left} are left")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def byte(self) -> int:
        """Returns the next byte."""
        return self.take(1)[0]

    def varint(self, most: int = 2**63 - 1) -> int:
        """Returns a whole number of 7 bits a byte, the lowest first; the highest bit says that another byte follows.

        Args:
            most: The largest one that makes sense here.

        Raises:
            DamagedBytes: It is larger, longer than 9 bytes, or has more bytes than it needs.
        """
        value = 0
        for bit in range(LONGEST):
            byte = self.byte()
            value |= (byte & 127) << 7 * bit
            if byte < 128:
                if bit and not byte:
                    raise DamagedBytes(f"the number before byte {self.at} is longer than it needs to be")
                if value > most:
                    raise DamagedBytes(f"a number before byte {self.at} is {value}, and at most {most} here")
                return value
        raise DamagedBytes(f"the number before byte {self.at} is longer than {LONGEST} bytes")

    def end(self) -> None:
        """Raises DamagedBytes where bytes are left."""
        if self.left:
            raise DamagedBytes(f"{self.left} bytes follow where nothing should")


def varint(value: int) -> bytes:
    """Returns the bytes that `ByteReader.varint` reads.

    Args:
        value: In [0, 2^63).
    """
    if not 0 <= value < 2**63:
        raise ValueError(f"a varint holds 0 to 2^63 - 1, got {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def several(values: "list[int]") -> bytes:
    """Returns the varints of all values, one after the other."""
    return b"".join(map(varint, values))
