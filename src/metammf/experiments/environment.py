"""What a run ran on: versions, machine, threads. Recorded; the source alone is read back, to say what is of which version."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("metammf", "torch", "numpy", "scipy", "polars", "pydantic", "safetensors", "optuna")


def environment(device: str, precision: str, processes: int = 1) -> dict[str, Any]:
    """Return plain values that describe this process and machine."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "precision": precision,
        "packages": {name: _version(name) for name in _PACKAGES},
        "source": source_hash(),
    }


@functools.cache
def source_hash() -> str:
    """Return one SHA-256 for the code of this package, which changes more often than its version."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def short_source(source: str | None) -> str:
    """Return the head of a `source_hash`, as it is shown; a word where none was noted."""
    return "not noted" if source is None else source[:12]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 - not a file of ours
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
