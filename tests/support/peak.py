"""What something costs in memory, and what it raises, in a process of its own that may not take 8 GiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MIB = 1 << 20

_PROGRAM = """
import sys, resource, logging
from pathlib import Path
{imports}
from ltstore.errors import LtstoreError
logging.disable()
path = Path(sys.argv[1])
hwm = lambda: next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) << 10
before = hwm()
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    {what}
except LtstoreError as err: error = f'{{type(err).__name__}}: {{err}}'
else: error = ''
print(hwm() - before, error)
"""


def peak_bytes(path: Path, what: str, imports: str) -> tuple[int, str]:
    """Do `what` with `path` after `imports`; return how far the memory grew, and the error of ltstore's that it raised.

    Any other error fails.
    """
    program = _PROGRAM.format(what=what, imports=imports)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    grown, _, error = done.stdout.strip().partition(" ")
    return int(grown), error
