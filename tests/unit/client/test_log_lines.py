"""The merged log in the terminal."""

import io
import json
import time

from everloop.cli.log_lines import LogFollower, line_text
from rich.console import Console


def test_a_json_line_becomes_readable():
    """Raw JSON of six services at once is unreadable."""
    line = json.dumps(
        {
            "time": "2026-01-02T03:04:05.678Z",
            "level": "warning",
            "message": "behind",
            "records": 7,
            "trace_id": "x",
        }
    )
    assert line_text("ingest", line).plain == "ingest   03:04:05 WARNING behind records=7"


def test_any_other_line_stays_as_it_is():
    """A JVM's or an interpreter's last words must not be lost."""
    assert line_text("kafka", "java.lang.OutOfMemoryError: [x]").plain.endswith(
        "java.lang.OutOfMemoryError: [x]"
    )


def test_only_new_whole_lines_are_printed(tmp_path):
    """Yesterday's log is not today's news, and half a JSON line cannot be shown."""
    log = tmp_path / "ingest.log"
    log.write_text("old\n")
    console = Console(file=io.StringIO())
    with LogFollower(tmp_path, console):
        with log.open("a") as file:
            file.write("new [bold]\nhal")
        time.sleep(0.6)
    assert console.file.getvalue() == "ingest   new [bold]\n"


def test_an_output_that_takes_nothing_ends_no_following(tmp_path):
    """`up.log` on a full disk: what comes once there is space again must be shown."""

    class Full(io.StringIO):
        full = True

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    console, log = Console(file=Full()), tmp_path / "ingest.log"
    with LogFollower(tmp_path, console):
        log.write_text("lost\n")
        time.sleep(0.6)
        console.file.full = False
        with log.open("a") as file:
            file.write("seen\n")
    assert "seen" in console.file.getvalue()


def test_a_rotated_log_is_read_from_its_beginning(tmp_path):
    """A restart rotates a large log: the new one's first lines say why."""
    log = tmp_path / "ingest.log"
    log.write_text("a long old line\n")
    console = Console(file=io.StringIO())
    with LogFollower(tmp_path, console):
        log.write_text("new\n")
        time.sleep(0.6)
    assert console.file.getvalue() == "ingest   new\n"


def test_the_brokers_chatter_stays_in_its_file(tmp_path):
    """Two hundred INFO lines of a start hide the one that matters."""
    console = Console(file=io.StringIO(), width=200)
    with LogFollower(tmp_path, console):
        of_every_start = "t [b] WARN kafka.server.DefaultAutoTopicCreationManager - failed"
        (tmp_path / "kafka.log").write_text(
            f"t [main] INFO x - started\n{of_every_start}\nt [main] ERROR x - disk full\n"
        )
        time.sleep(0.6)
    assert console.file.getvalue() == "kafka    t [main] ERROR x - disk full\n"
