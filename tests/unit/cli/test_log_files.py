"""What children print becomes JSON lines in rotated files."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

from hgfleet.adapters.log_files import LogCollector, LogFile, Rotation
from tests.support.waiting import wait_until


def test_lines_that_are_no_json_are_wrapped_and_others_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", Rotation(10_000, 1))
    log.write(b'{"event": "a"}\nTraceback')
    log.write(b" of something\n\xff\n")
    log.close()

    lines = [json.loads(line) for line in (tmp_path / "web.log").read_text().splitlines()]
    assert lines[0] == {"event": "a"}
    assert [line.get("text") for line in lines[1:]] == ["Traceback of something", "\ufffd"]
    assert lines[1]["process"] == "web"


def test_a_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", Rotation(10_000, 1))
    log.write(b"died in mid")
    log.close()

    assert json.loads((tmp_path / "web.log").read_text())["text"] == "died in mid"


def test_files_are_rotated_by_size_and_only_so_many_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", Rotation(file_size_bytes=100, files_kept=2))
    for number in range(20):
        log.write(b'{"number": %d, "padding": "%s"}\n' % (number, b"x" * 60))
    log.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["web.log", "web.log.1", "web.log.2"]
    assert all(path.stat().st_size < 300 for path in tmp_path.iterdir())
    assert json.loads((tmp_path / "web.log").read_text().splitlines()[-1])["number"] == 19


def test_a_full_disk_loses_lines_but_neither_a_half_one_nor_the_writer(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", Rotation(10_000_000, 1))
    log.write(b'{"n": 1}\n')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # EFBIG stands for ENOSPC here
    try:
        log.write(b'{"n": 2, "text": "too long for what is left"}\n{"n": 3, "text": "as is this one"}\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write(b'{"n": 4}\n')
    log.close()

    lines = [json.loads(line) for line in (tmp_path / "web.log").read_text().splitlines()]
    assert [line.get("n") for line in lines] == [1, None, 4]
    assert lines[1]["text"] == "2 lines were lost"


def test_a_collector_reads_several_children_until_they_end(tmp_path: Path) -> None:
    collector = LogCollector(tmp_path, Rotation(10_000, 1))
    writers = {name: collector.open(name) for name in ("one", "two")}
    for name, writer in writers.items():
        os.write(writer, f'{{"from": "{name}"}}\n'.encode())

    wait_until(lambda: "one" in (tmp_path / "one.log").read_text(), what="the line is written at once")
    os.write(writers["two"], b"the end")
    for writer in writers.values():
        os.close(writer)
    collector.close()

    assert "the end" in (tmp_path / "two.log").read_text()
