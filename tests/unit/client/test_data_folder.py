"""Who holds a data folder, and what is found there after a crash."""

import os
import shutil
import subprocess
import sys

import psutil
import pytest
from everloop.cli import main
from everloop.embedded.children import Child, Program, remove_leftover
from everloop.embedded.usage import family
from everloop.errors import EverloopError
from everloop.stack.folder import STACK_VARIABLE, DataFolder, ProcessRecord, StackRecord

RECORD = StackRecord(
    pid=os.getpid(),
    ready=True,
    addresses={"kafka": "127.0.0.1:1"},
    processes={"kafka": ProcessRecord(1, 0, "kafka.log")},
)


def test_a_second_holder_is_refused_by_the_first_ones_pid(tmp_path):
    """Two brokers on one log would destroy it."""
    first = DataFolder(tmp_path)
    first.hold()
    first.write(RECORD)
    with pytest.raises(EverloopError, match=rf"already running in .* \(pid {os.getpid()}\)"):
        DataFolder(tmp_path).hold()
    first.release()
    DataFolder(tmp_path).hold()


def test_a_record_without_a_holder_is_no_running_stack(tmp_path):
    """After kill -9 the file is still there; `everloop status` must not believe it."""
    folder = DataFolder(tmp_path)
    folder.hold()
    folder.write(RECORD)
    assert DataFolder(tmp_path).read() == RECORD
    assert folder._lock is not None
    folder._lock.close()
    assert DataFolder(tmp_path).read() is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """ "Not a directory" alone would not say which option is wrong."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EverloopError, match="cannot be used") as caught:
        DataFolder(tmp_path / "file" / "data").hold()
    assert "--data-dir" in caught.value.mend


@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"]])
def test_up_names_a_folder_that_cannot_be_made(tmp_path, monkeypatch, capsys, arguments):
    """A wrong --data-dir is no defect of ours."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["everloop", *arguments, "--data-dir", str(tmp_path / "file" / "data")])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "cannot be used" in told
    assert "--data-dir" in told


def test_a_second_detached_stack_is_refused(tmp_path, monkeypatch, capsys):
    """ "Everything is ready" would hide that the ports and options asked for are not those that run."""
    first = DataFolder(tmp_path)
    first.hold()
    first.write(RECORD)
    monkeypatch.setattr(sys, "argv", ["everloop", "up", "-d", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    first.release()
    assert f"already running in {tmp_path} (pid {os.getpid()})" in capsys.readouterr().err


def test_a_full_disk_is_named_before_anything_starts(tmp_path, monkeypatch):
    """PostgreSQL's own words, half a minute later, would be the third thing to go wrong."""
    full = shutil._ntuple_diskusage(10**9, 10**9, 7 << 20)
    monkeypatch.setattr("everloop.stack.folder.shutil.disk_usage", lambda _: full)
    with pytest.raises(EverloopError, match="has 7 MiB left; a start needs 64") as caught:
        DataFolder(tmp_path).require_space()
    assert "Free space" in caught.value.mend


def test_processes_of_an_earlier_stack_are_ended(tmp_path):
    """A trainer's own child that survived a crash would train beside the new one."""
    environment = {**os.environ, STACK_VARIABLE: str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    assert process.pid in DataFolder(tmp_path).end_leftovers()
    assert not psutil.pid_exists(process.pid)


def test_a_pid_that_another_program_has_now_is_left_alone(tmp_path):
    """Pids come round again: a restart must not kill a stranger."""
    pid_file = tmp_path / "x.pid"
    pid_file.write_text(f'{{"pid": {os.getpid()}, "started": 1.0}}')
    assert remove_leftover(pid_file) is False
    assert not pid_file.exists()


def test_a_child_ends_with_its_descendants(tmp_path):
    """A stopped service must not leave the process that it had started."""
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    child = Child(Program("parent", [sys.executable, "-c", code], tmp_path / "log", tmp_path / "pid"))
    while len(family(child.pid)) < 2:
        pass
    members = family(child.pid)
    child.stop(5)
    assert not any(member.is_running() for member in members)
