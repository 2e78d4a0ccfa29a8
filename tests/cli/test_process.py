"""The command line as a process: import time, pipes, signals, terminals, completion."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sau_scan.cli.completion import SHELLS, completion
from sau_scan.reports import render_json
from tests.reports import samples

ROOT = Path(__file__).resolve().parents[2]
MODEL = str(ROOT / "rules")  # any folder: the scan is replaced
# A scan that waits, and one that shows progress; run as the console script would be.
FAKE = """
import signal, sys, time, types
from sau_scan import cli
from tests.reports import samples
# A runner in the background may have passed on that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def detect(model, options, progress):
    progress.plan("3 candidates\\x1b[2J")
    progress.stage("denoise", 10)
    progress.advance(4)
    {body}
    progress.done("done\\x1b[2J")
    return samples.BACKDOORED
module = types.ModuleType("sau_scan.scan")
module.detect = detect
sys.modules["sau_scan.scan"] = module
sys.argv = ["sau-scan", *{words!r}]
cli.main()
"""


def _python(code: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **options)  # type: ignore[call-overload]


def test_what_is_no_folder_is_told_without_torch() -> None:
    code = (
        "import sys\nfrom sau_scan.cli import main\nsys.argv = ['sau-scan', 'detect', 'nowhere']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 3, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    with _python(code, stderr=subprocess.PIPE) as process:
        _, told = process.communicate()
    assert process.returncode == 0
    assert "nowhere does not exist" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_stdout_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(render_json(samples.BACKDOORED), "utf-8")
    words = ["sau-scan", "report", str(tmp_path / "r.json")]
    code = f"import sys\nfrom sau_scan.cli import main\nsys.argv = {words!r}\nmain()"
    with Path("/dev/full").open("w") as full, _python(code, stdout=full, stderr=subprocess.PIPE) as process:
        _, told = process.communicate()
    assert process.returncode == 3
    assert "The disk is full; the standard output was not written." in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [["--help"], ["detect", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_no_finding(words: list[str]) -> None:
    code = f"import sys\nfrom sau_scan.cli import main\nsys.argv = ['sau-scan', *{words!r}]\nmain()"
    with Path("/dev/full").open("w") as full, _python(code, stdout=full, stderr=subprocess.PIPE) as process:
        _, told = process.communicate()
    assert process.returncode == 3
    assert "Traceback" not in told
    assert "exit 3" in told


@pytest.mark.parametrize(
    "words", [["--help"], ["detect", "--help"], ["fix", "--help"], ["rules", "list"], ["--version"]]
)
def test_help_does_not_import_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom sau_scan.cli import main\n"
        f"sys.argv = ['sau-scan', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    with _python(code, stdout=subprocess.PIPE) as process:
        process.communicate()
    assert process.returncode == 0


def test_completion_offers_commands_without_torch() -> None:
    code = (
        "import os, sys\n"
        "os.environ.update(_SAU_SCAN_COMPLETE='complete_bash', COMP_WORDS='sau-scan de', COMP_CWORD='1')\n"
        "from sau_scan.cli import main\nsys.argv = ['sau-scan']\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    with _python(code, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate()
    assert out.split() == ["detect", "demo"]


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_the_generated_ones(shell: str) -> None:
    assert (ROOT / "completions" / SHELLS[shell]).read_text() == completion(shell), "run `make generated`"


def test_bash_accepts_its_completion() -> None:
    assert subprocess.run(["bash", "-n", ROOT / "completions" / SHELLS["bash"]], check=False).returncode == 0


def test_a_closed_pipe_changes_nothing_but_the_reading(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = ["detect", MODEL, "-o", str(tmp_path / "r.json"), "--format", "json"]
    with _python(FAKE.format(body="pass", words=words), stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        _, err = process.communicate()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert (tmp_path / "r.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_and_its_code(tmp_path: Path, number: signal.Signals, code: int) -> None:
    body = f"open({str(tmp_path / 'ready')!r}, 'w').close(); time.sleep(120)"
    words = ["detect", MODEL, "-o", str(tmp_path / "r.json"), "-q"]
    with _python(FAKE.format(body=body, words=words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert err.strip().splitlines()[1:] == [f"exit {code}"]
    assert not (tmp_path / "r.json").exists()


def _on_a_terminal(code: str, environment: dict[str, str]) -> str:
    """What a terminal of 80 columns is sent on stdout and stderr together."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(slave)
        sent = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            sent += chunk
        process.wait()
    os.close(master)
    return sent.decode("utf-8")


def test_a_terminal_gets_bars_and_colour_but_no_foreign_escapes() -> None:
    code = FAKE.format(body="time.sleep(0.5)", words=["detect", MODEL])
    sent = _on_a_terminal(code, {"NO_COLOR": ""})
    assert "denoise" in sent
    assert "━" in sent
    assert "4 of 10" in sent
    assert "\\x1b[2J" in sent
    assert "\x1b[2J" not in sent
    assert "▀" in sent


def test_no_color_is_honoured() -> None:
    sent = _on_a_terminal(FAKE.format(body="pass", words=["detect", MODEL, "-q"]), {"NO_COLOR": "1"})
    assert "BACKDOORED" in sent
    assert "\x1b[3" not in sent.replace("\x1b[3m", "")
    assert "38;" not in sent


def test_no_bar_where_there_is_no_terminal() -> None:
    code = FAKE.format(body="pass", words=["detect", MODEL])
    with _python(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    assert "━" not in err
    assert "plan       3 candidates\\x1b[2J" in err
    assert "\x1b" not in out + err


def test_python_m_sau_scan_is_the_same_command(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(render_json(samples.CLEAN))
    done = subprocess.run(
        [sys.executable, "-m", "sau_scan", "report", file], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "CLEAN" in done.stdout


def test_a_second_signal_does_not_stop_the_clearing_up(tmp_path: Path) -> None:
    """As CI runners send them: SIGINT, and SIGTERM soon after."""
    room, ready, clearing = tmp_path / "room", tmp_path / "ready", tmp_path / "clearing"
    body = (
        f"import pathlib; room = pathlib.Path({str(room)!r}); room.mkdir()\n"
        f"    try:\n        open({str(ready)!r}, 'w').close(); time.sleep(120)\n"
        f"    finally:\n        open({str(clearing)!r}, 'w').close(); time.sleep(1); room.rmdir()"
    )
    with _python(FAKE.format(body=body, words=["detect", MODEL, "-q"]), stderr=subprocess.PIPE) as process:
        for number, sign in ((signal.SIGINT, ready), (signal.SIGTERM, clearing)):
            deadline = time.monotonic() + 60
            while not sign.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not room.exists()


def test_a_signal_that_a_library_turns_into_something_else_is_still_one() -> None:
    body = (
        "import os\n    try:\n        os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "    except BaseException:\n        raise RecursionError('half imported') from None"
    )
    with _python(FAKE.format(body=body, words=["detect", MODEL, "-q"]), stderr=subprocess.PIPE) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "internal error" not in err
