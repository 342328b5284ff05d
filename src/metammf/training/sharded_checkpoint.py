"""Checkpoints of sharded tables: each process writes its rows, a process alone or any number of them can go on.

::

    NAME.shards.json        format, fingerprint, progress, and the folder that holds the tensors, its files and their sizes
    NAME.shards-00007/      `torch.distributed.checkpoint` in safetensors, no pickle; the end of epoch 7

The folder before is removed once the JSON file, replaced at one go, names the new one.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from metammf.errors import DataError, RunError
from metammf.files import bring_to_disk, read_json, write_json
from metammf.training.checkpoint import Checkpoint, flattened, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

    from metammf.training.checkpoint import Progress
    from metammf.training.parallel import Parallel
    from metammf.training.sharding import ShardedTable

FORMAT = "metammf-sharded-checkpoint-1"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RuntimeError)


def header_path(path: Path) -> Path:
    """Return where the header of shards lies that stand for a checkpoint file at `path`."""
    return path.with_name(f"{path.stem}.shards.json")


def save_shards(
    path: Path,
    fingerprint: str,
    progress: Progress,
    model: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    *,
    sharded: Mapping[str, ShardedTable],
    places: Mapping[int, ShardedTable],
    parallel: Parallel,
) -> None:
    """Write a checkpoint; all processes must call this together.

    Args:
        path: The checkpoint file that the shards stand for.
        fingerprint: Names config, data and seed; loading under another is refused.
        progress: Where training stands.
        model: The model's state, of sharded tables this process's rows.
        best: The state of the best epoch, likewise; may be empty.
        optimizer: The optimizer's state dict, likewise.
        sharded: The tables, by the name of their weight.
        places: The same by their number among the optimizer's parameters.
        parallel: This process.

    Raises:
        RunError: it cannot be written.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.device_mesh import init_device_mesh

    header = header_path(path)
    folder = header.with_name(f"{path.stem}.shards-{progress.epoch:05}")
    tensors = {name: value.detach() for name, value in flattened(model, best, optimizer).items()}
    mesh = init_device_mesh(next(iter(tensors.values())).device.type, (parallel.size,))
    for name, value in tensors.items():
        table = _table_of(name, sharded, places)
        if table is not None and value.ndim:
            tensors[name] = _as_dtensor(value.contiguous(), table, mesh)
    if parallel.leads:
        shutil.rmtree(folder, ignore_errors=True)
    parallel.wait()
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except (OSError, CheckpointException) as error:
        raise RunError(f"{folder}: cannot be written ({error})") from error
    if parallel.leads:
        bring_to_disk(folder)
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "folder": folder.name,
            "files": _sizes(folder),
            # As text of their own, since what has not been looked at yet is -inf, which our JSON files do not hold.
            "progress": json.dumps(asdict(progress)),
            "param_groups": json.dumps(optimizer["param_groups"]),
        }
        write_json(header, about)
        for old in header.parent.glob(f"{path.stem}.shards-*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)


def load_shards(path: Path, fingerprint: str) -> Checkpoint | None:
    """Read a checkpoint back with whole tables, in any process by itself; None where there is none.

    Raises:
        RunError: it is damaged, or was written under another config, seed or data.
    """
    header = header_path(path)
    if not header.is_file():
        return None
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        about = read_json(header)
        if about["format"] != FORMAT:
            raise RunError(f"{header}: expected the form {FORMAT}, got {about['format']!r}")
        if about["fingerprint"] != fingerprint:
            raise RunError(f"{header}: the checkpoint was written under another config, seed or data set")
        folder = header.with_name(Path(about["folder"]).name)
        if _sizes(folder) != about["files"]:
            raise RunError(f"{folder}: the checkpoint is damaged (its files are not those that were written)")
        reader = HuggingFaceStorageReader(str(folder))
        tensors = {
            name: torch.empty(one.size, dtype=one.properties.dtype)
            for name, one in reader.read_metadata().state_dict_metadata.items()
            if isinstance(one, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is meant to be
            load(dict(tensors), storage_reader=reader, no_dist=True)
        return parsed(about, tensors)
    except RunError:
        raise
    except (SafetensorError, CheckpointException, DataError, OSError, *_MALFORMED) as error:
        raise RunError(f"{header}: the checkpoint is damaged ({error}); train into a new folder") from error


def has_shards(path: Path, fingerprint: str) -> bool:
    """Whether whole shards of this run stand for a checkpoint at `path`."""
    try:
        about = read_json(header_path(path))
        folder = path.with_name(Path(about["folder"]).name)
        return (about["format"], about["fingerprint"], about["files"]) == (FORMAT, fingerprint, _sizes(folder))
    except (DataError, OSError, *_MALFORMED):
        return False


def remove_shards(path: Path) -> None:
    """Remove the shards that stood for a checkpoint file which has been written since."""
    header_path(path).unlink(missing_ok=True)
    for folder in path.parent.glob(f"{path.stem}.shards-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*"))}


def _table_of(
    name: str, sharded: Mapping[str, ShardedTable], places: Mapping[int, ShardedTable]
) -> ShardedTable | None:
    kind, _, rest = name.partition("/")
    return places.get(int(rest.partition("/")[0])) if kind == "optimizer" else sharded.get(rest)


def _as_dtensor(rows: Tensor, table: ShardedTable, mesh: DeviceMesh) -> Tensor:
    from torch.distributed.tensor import DTensor, Shard

    shape = torch.Size((table.num_embeddings, *rows.shape[1:]))
    return DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=shape, stride=rows.stride())
