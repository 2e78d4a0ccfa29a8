"""Scanners of model files as programs that take paths on stdin and give one line of JSON for each on stdout.

Each runs in a process of its own and with a time limit: what hangs on a file is stopped, and started anew for the next.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 60.0
_LOOP = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    try:
        answer = scan(json.loads(line))
    except Exception as error:
        answer = {"flagged": False, "error": type(error).__name__}
    print(json.dumps(answer), file=out, flush=True)
"""
PICKLESCAN = """
import os
from picklescan.scanner import scan_directory_path, scan_file_path
def scan(path):
    result = (scan_directory_path if os.path.isdir(path) else scan_file_path)(path)
    return {"flagged": result.issues_count > 0, "error": "unreadable" if result.scan_err else ""}
"""
MODELSCAN = """
from modelscan.modelscan import ModelScan
def scan(path):
    result = ModelScan().scan(path)
    return {"flagged": result["summary"]["total_issues"] > 0, "error": "unreadable" if result["errors"] else ""}
"""
SAU_SCAN = """
from sau_scan.findings import Skipped
from sau_scan.static import vet_file
from tests.corpus.verdicts import worst
def scan(path):
    results = vet_file(path)
    return {"rank": worst(results), "skipped": any(isinstance(result, Skipped) for result in results), "error": ""}
"""


@dataclass
class Scanner:
    """A scanner in a process that is kept from one path to the next."""

    name: str
    python: Path
    program: str
    seconds: float = 0.0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def scan(self, path: Path) -> dict[str, object]:
        """What the scanner says of a file or folder; ``error`` where it gave up or was stopped."""
        process = self._running()
        started = time.perf_counter()
        line = self._answer(process, path)
        self.seconds += time.perf_counter() - started
        if line:
            return dict(json.loads(line))
        stopped = process.poll() is None
        self.close()
        return {"flagged": False, "rank": -1, "skipped": False, "error": "too slow" if stopped else "crashed"}

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [self.python, "-c", self.program + _LOOP],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _answer(self, process: subprocess.Popen[str], path: Path) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(SECONDS) else ""

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
