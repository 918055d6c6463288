"""ltstore doctor: what this machine can do, and why not."""

from __future__ import annotations

from ltstore_cli import _render
from ltstore_cli._options import Json


def doctor(json: Json = False) -> None:
    """Check what this machine can do: packages, GPU, FAISS, Numba, encoders, and why not.

    Example: `ltstore doctor`
    """
    from ltstore.workflow.doctor import check_machine

    checks = check_machine()
    if json:
        _render.json_out([check.to_json() for check in checks])
    else:
        _render.table(
            ("check", "state", "detail"),
            [(check.name, check.state, check.detail) for check in checks],
            left=("check", "state", "detail"),
        )
