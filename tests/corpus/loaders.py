"""How ordinary programs load files: proof that the hostile half of the corpus is hostile.

Each entry is a Python program that loads the file ``PATH``. They run in processes of their own, only in the test of the
corpus itself, and all that the samples do there is to create one empty file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.corpus.sample import Sample

_TORCH = "import torch; torch.load({}, weights_only=False{})"
LOADERS = {
    "pickle": "import pickle; pickle.load(open(PATH, 'rb'))",
    "every-pickle": "import pickle\nwith open(PATH, 'rb') as file:\n while file.peek(1): pickle.load(file)",
    "torch": _TORCH.format("PATH", ""),
    "torch-handle": _TORCH.format("open(PATH, 'rb')", ""),
    "torch-other-entry": _TORCH.format("PATH", ", pickle_file='config.p'"),
    "zip-extracted": "import glob, pickle, zipfile\nzipfile.ZipFile(PATH).extractall(OUT)\n"
    "for found in glob.glob(OUT + '/**/data.pkl', recursive=True): pickle.load(open(found, 'rb'))",
    "zip": "import pickle, zipfile\nfile = zipfile.ZipFile(PATH)\n"
    "for info in file.infolist():\n try: pickle.loads(file.read(info))\n except Exception: pass",
    "zip-in-zip": "import io, pickle, zipfile\nfile = zipfile.ZipFile(PATH)\n"
    "for info in file.infolist():\n inner = zipfile.ZipFile(io.BytesIO(file.read(info)))\n"
    " for one in inner.infolist(): pickle.loads(inner.read(one))",
    "7z": "import glob, pickle, py7zr\npy7zr.SevenZipFile(PATH).extractall(OUT)\n"
    "for found in glob.glob(OUT + '/**/*', recursive=True): pickle.load(open(found, 'rb'))",
    "joblib": "import joblib; joblib.load(PATH)",
    "numpy": "import numpy; numpy.load(PATH, allow_pickle=True)",
    "npz": "import numpy; [*numpy.load(PATH, allow_pickle=True).values()]",
    "tar": "import pickle, tarfile\nfile = tarfile.open(PATH)\n"
    "for member in file.getmembers(): pickle.load(file.extractfile(member))",
    "after-marker": "import pickle; pickle.loads(open(PATH, 'rb').read().split(b'--model--', 1)[1])",
    "folder-pickle": "import pickle; pickle.load(open(PATH + '/model.pkl', 'rb'))",
    "folder-torch": _TORCH.format("PATH + '/unet/diffusion_pytorch_model.bin'", ""),
    "folder-code": "import runpy; runpy.run_path(PATH + '/pipeline.py')",
    "chat-template": "import jinja2, json\n"
    "jinja2.Template(json.load(open(PATH + '/tokenizer/tokenizer_config.json'))['chat_template']).render()",
}

# Imports what the programs need once, then runs each in a child that is a copy of itself.
_RUNNER = """
import json, os, signal, sys
import joblib, numpy, torch
for line in sys.stdin:
    name, PATH, OUT, program = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.setsid()
        os.chdir(os.path.dirname(PATH))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        try:
            exec(program, {"PATH": PATH, "OUT": OUT, "__name__": "__main__"})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


def run_loaders(samples: Iterable[tuple[Sample, Path]]) -> None:
    """Load each sample at its path as its loader does, in processes of their own."""
    lines = (
        json.dumps([sample.id, str(path), str(path.parent / "out"), LOADERS[sample.load]]) for sample, path in samples
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUNNER],
        input="\n".join(lines),
        text=True,
        check=True,
        capture_output=True,
        timeout=600,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
    )


def appears(canary: Path, seconds: float = 5.0) -> bool:
    """Whether the canary exists; some samples start a process and do not wait for it."""
    deadline = time.monotonic() + seconds
    while not canary.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return canary.exists()
