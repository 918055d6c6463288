"""A limit on addresses (ulimit -v): one line at the start, or linear algebra that has what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept to on Linux")

LIMITED = """
import mmap, resource, sys
import numpy as np
import scipy.linalg
from ltstore.cores import reserve_addresses

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20, resource.RLIM_INFINITY))
reserve_addresses()
square, held = np.eye(300), []
for size in (1 << 24, 1 << 20):  # what is left is taken
    try:
        while True:
            held.append(mmap.mmap(-1, size))
    except OSError:
        pass
del held[-4:]  # a few MiB for what scipy itself allocates
square @ square
assert np.allclose(scipy.linalg.eigh(square, eigvals_only=True), 1)
print("computed")
"""
COMMAND = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)) << 20, resource.RLIM_INFINITY))
from ltstore_cli.app import main
main()
"""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_buffers_are_had_before_the_addresses_run_out() -> None:
    done = run(LIMITED, "8000")
    assert (done.returncode, done.stdout) == (0, "computed\n"), done.stderr


def test_a_limit_that_is_too_low_is_one_line() -> None:
    done = run(COMMAND, "200", "info", "no.zarr")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: out of memory (addresses are limited to 200 MiB (ulimit -v), ")
