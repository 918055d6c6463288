"""Which share of the time GPUs work, as the driver counts it."""

from __future__ import annotations


def gpu_use(device: str) -> float | None:
    """Return the share of the last sample period (1/6 to 1 s) in which kernels ran on the GPUs of a device text.

    Parameters
    ----------
    device : str
        As `ltstore.types.Encoder.device`: "cpu", "cuda:0", "cuda:0,cuda:1".

    Returns
    -------
    float in [0, 1], or None
        Mean over the GPUs; None for a CPU, and where the driver does not tell (nvidia-ml-py is not installed, MIG).

    Notes
    -----
    Tens of microseconds. A GPU that runs one small kernel after another counts as working: it is no share of its peak.
    """
    names = [name for name in device.split(",") if name.startswith("cuda")]
    if not names:
        return None
    import torch

    try:
        return float(sum(map(torch.cuda.utilization, names)) / (100 * len(names)))
    except Exception:  # noqa: BLE001 - NVML has errors of its own, of a package that may be missing
        return None
