from pathlib import Path

import pytest

from autoprune.files import atomic_write


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(path, durable=True) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("writes", [True, False])
def test_nothing_stays_of_what_failed(tmp_path: Path, writes: bool) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as partial:
            if writes:
                partial.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "whole") as partial:
        partial.mkdir()
        (partial / "a").touch()
    assert [file.name for file in (tmp_path / "whole").iterdir()] == ["a"]

    def fail() -> None:
        with atomic_write(tmp_path / "half") as partial:
            partial.mkdir()
            (partial / "a").touch()
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["whole"]


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as one, atomic_write(tmp_path / "file") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one", "who ends last"


def test_an_error_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"

    def fail() -> None:
        with atomic_write(path) as partial:
            partial.mkdir()
            partial.write_text("a folder")

    with pytest.raises(IsADirectoryError) as caught:
        fail()
    assert caught.value.filename == str(path)
