import errno
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from autoprune.runs import RunFolder, machine, versions
from tests.commands import start_python


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_create_makes_missing_folders_and_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert RunFolder.create(tmp_path / "a").path == tmp_path / "a"
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert RunFolder.create(tmp_path / "b" / "c").path.is_dir()


def test_create_refuses_a_folder_that_holds_a_run(folder: RunFolder) -> None:
    folder.write_json("run.json", {})
    with pytest.raises(FileExistsError, match="holds a run already"):
        RunFolder.create(folder.path)


def test_open_says_what_is_missing_and_what_a_run_folder_is(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*autoprune search"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no run\.json.*autoprune search"):
        RunFolder.open(folder.path)
    (folder.path / ".hydra").mkdir()  # a command was killed while it prepared its task
    with pytest.raises(FileNotFoundError, match=r"before the first evaluation.*Give the same command again"):
        RunFolder.open(folder.path)
    folder.write_json("run.json", {})
    assert RunFolder.open(folder.path) == folder


def test_json_comes_back_as_it_was(folder: RunFolder) -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "ü"}}
    folder.write_json("x.json", value)
    assert folder.read_json("x.json") == value
    assert folder.has("x.json")
    assert not folder.has("y.json")


def test_numpy_is_written_as_numbers(folder: RunFolder) -> None:
    folder.write_json("x.json", {"a": np.int64(3), "b": np.float32(0.5), "c": np.array([[1, 2]]), "d": np.bool_(True)})
    assert folder.read_json("x.json") == {"a": 3, "b": 0.5, "c": [[1, 2]], "d": True}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), np.float64("-inf")])
def test_what_json_has_no_number_for_becomes_null(folder: RunFolder, bad: float) -> None:
    folder.write_json("x.json", {"a": [bad, 1.0]})
    folder.append("x.jsonl", {"a": bad})
    folder.append("x.jsonl", {"a": np.array([bad, 2.0])})
    assert folder.read_json("x.json") == {"a": [None, 1.0]}
    assert folder.read_lines("x.jsonl") == [{"a": None}, {"a": [None, 2.0]}]
    for file in folder.path.iterdir():  # a strict reader agrees
        for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(line, parse_constant=pytest.fail)


def test_a_value_that_is_not_json_leaves_the_old_file(folder: RunFolder) -> None:
    folder.write_json("x.json", {"a": 1})
    with pytest.raises(TypeError):
        folder.write_json("x.json", {"a": object()})
    assert folder.read_json("x.json") == {"a": 1}
    assert [file.name for file in folder.path.iterdir()] == ["x.json"]


def test_damaged_and_missing_json_are_named(folder: RunFolder) -> None:
    (folder.path / "x.json").write_text('{"a": 1')
    with pytest.raises(ValueError, match=r"x\.json is damaged"):
        folder.read_json("x.json")
    (folder.path / "x.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"x\.json is damaged"):
        folder.read_json("x.json")
    with pytest.raises(FileNotFoundError, match=r"has no y\.json"):
        folder.read_json("y.json")


def test_lines_come_back_in_order_and_none_where_there_is_no_file(folder: RunFolder) -> None:
    assert folder.read_lines("h.jsonl") == []
    for i in range(50):
        folder.append("h.jsonl", {"i": i, "text": "a\nb"})
    assert [line["i"] for line in folder.read_lines("h.jsonl")] == list(range(50))


@pytest.mark.parametrize("tail", ['{"i": 2', '{"i": 2}', "{", '{"text": "\u00fc'.encode()[:-1].decode("latin1")])
def test_an_unfinished_last_line_is_left_out_and_goes_when_the_run_goes_on(folder: RunFolder, tail: str) -> None:
    file = folder.path / "h.jsonl"
    folder.append("h.jsonl", {"i": 1})
    with file.open("a", encoding="latin1") as stream:
        stream.write(tail)
    assert folder.read_lines("h.jsonl") == [{"i": 1}]
    folder.append("h.jsonl", {"i": 3})
    assert folder.read_lines("h.jsonl") == [{"i": 1}, {"i": 3}]


def test_an_unfinished_line_longer_than_one_read_goes_too(folder: RunFolder) -> None:
    folder.append("h.jsonl", {"i": 1})
    with (folder.path / "h.jsonl").open("a") as stream:
        stream.write("x" * 200_000)
    folder.append("h.jsonl", {"i": 2})
    assert folder.read_lines("h.jsonl") == [{"i": 1}, {"i": 2}]
    (folder.path / "g.jsonl").write_text("y" * 70_000)  # no newline at all
    folder.append("g.jsonl", {"i": 1})
    assert folder.read_lines("g.jsonl") == [{"i": 1}]


@pytest.mark.parametrize("middle", ["{oops", "3"])
def test_damage_elsewhere_is_an_error_that_names_the_line(folder: RunFolder, middle: str) -> None:
    (folder.path / "h.jsonl").write_text('{"i": 1}\n' + middle + '\n{"i": 3}\n')
    with pytest.raises(ValueError, match=r"h\.jsonl is damaged: line 2"):
        folder.read_lines("h.jsonl")


def test_a_killed_process_loses_no_line_that_it_appended(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from autoprune.runs import RunFolder\n"
        "folder = RunFolder.create(Path(sys.argv[1]))\n"
        "for i in range(200): folder.append('h.jsonl', {'i': i})\n"
        "print('written', flush=True); time.sleep(60)"
    )
    process = start_python(program, str(tmp_path))
    while process.poll() is None and "written" not in process.output():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(RunFolder(tmp_path).read_lines("h.jsonl")) == 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_what_was_not_written_and_what_is_safe(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_json("result.json", {"a": 1})
    monkeypatch.setattr("secrets.token_hex", lambda _: "00")
    (folder.path / ".result.json.00.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"disk is full.*result\.json.*untouched") as caught:
        folder.write_json("result.json", {"a": 2})
    assert caught.value.errno == errno.ENOSPC
    assert folder.read_json("result.json") == {"a": 1}
    (folder.path / "h.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"disk is full.*h\.jsonl.*every complete line"):
        folder.append("h.jsonl", {"a": 1})


def test_machine_and_versions_can_be_written_down(folder: RunFolder) -> None:
    folder.write_json("run.json", {"machine": machine(), "versions": versions()})
    record = folder.read_json("run.json")
    assert record["machine"]["processor"]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["threads"] >= 1
    assert record["versions"]["torch"].startswith("2.")
    assert record["versions"]["python"].startswith("3.")
