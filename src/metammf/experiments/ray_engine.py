"""Ranking shared among processes by Ray Data: users in blocks, an actor pool, one copy of the vectors a machine.

Extra ``ray``. Blocks are whole batches of the single process, so that lists and scores come out bit-equal to its own on
the same number of threads a process.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch

from metammf.errors import ConfigError, MetaMMFError, MissingExtraError, RunError
from metammf.experiments.feed_files import Part, write_part
from metammf.ranking.topk import rank, users_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from torch import Tensor

    from metammf.ranking.feeds import Feeds
    from metammf.ranking.topk import ItemScorer

_BLOCKS_PER_WORKER = 8
_SPARE_STORE = 256 << 20
# Nothing is told to anybody, and what Ray has to say comes as an error or not at all: read when Ray is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class _Work(Protocol):
    """What is sent to every worker once, and then called with the number of a block."""

    def __call__(self, block: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class _WriteParts:
    feeds: Feeds
    parts: Sequence[Part]

    def __call__(self, block: int) -> Mapping[str, Any]:
        part = self.parts[block]
        return {"users": np.array([part.stop - part.start]), "rows": np.array([write_part(self.feeds, part)])}


@dataclass(frozen=True)
class _RankUsers:
    scorer: ItemScorer
    users: NDArray[np.int64]
    k: int
    seen: sparse.csr_array | None
    candidates: ArrayLike | None
    batch_size: int
    size: int

    def __call__(self, block: int) -> Mapping[str, Any]:
        start = block * self.size
        users = self.users[start : start + self.size]
        items, scores = rank(
            self.scorer, users, self.k, seen=self.seen, candidates=self.candidates, batch_size=self.batch_size
        )
        return {"row": np.arange(start, start + len(users)), "items": items, "scores": scores}


class RayEngine:
    """Ranks on a pool of Ray actors; use it in a `with` block, which ends what it started.

    Where ``RAY_ADDRESS`` names a cluster, the pool is there, and folders must be on a disk that all its machines share;
    else Ray is started on this machine and answers to nobody else.

    Args:
        workers: Actors. Default: as many as this machine's processors feed.
        threads: Threads of each.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: `workers` or `threads` is below 1.
    """

    def __init__(self, workers: int | None = None, *, threads: int = 1) -> None:
        for name, value in (("workers", workers), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        for setting, off in _QUIET.items():
            os.environ.setdefault(setting, off)
        try:
            import ray.data
        except ImportError as error:
            raise MissingExtraError("ray[data]", "ray", "ranking by Ray") from error
        self._ray = ray
        self.threads = threads
        self.workers = workers or max(1, (os.cpu_count() or 1) // threads)
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            self._ray.shutdown()
            self._started = False

    def write(self, feeds: Feeds, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        """Write parts of recommendations in any order; yield for some at a time their users and their rows."""
        for done in self._map(_WriteParts(feeds, parts), len(parts)):
            yield int(done["users"].sum()), int(done["rows"].sum())

    def rank(
        self,
        scorer: ItemScorer,
        users: ArrayLike,
        k: int,
        *,
        seen: sparse.csr_array | None = None,
        candidates: ArrayLike | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rank all items for many users, as `metammf.ranking.topk.rank` does: items (n, k) and scores (n, k)."""
        users = np.asarray(users, dtype=np.int64)
        items, scores = np.empty((len(users), k), dtype=np.int64), np.empty((len(users), k), dtype=np.float32)
        batch_size = batch_size or users_at_once(scorer.num_items)
        size = batch_size * -(-len(users) // (batch_size * self.workers * _BLOCKS_PER_WORKER))
        work = _RankUsers(scorer, users, k, seen, candidates, batch_size, size)
        done = 0
        for found in self._map(work, -(-len(users) // max(1, size))):
            items[found["row"]], scores[found["row"]] = found["items"], found["scores"]
            done += len(found["row"])
            if progress is not None:
                progress(done, len(users))
        return items, scores

    def _map(self, work: _Work, blocks: int) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Run the work on the numbers of all blocks, in any order."""
        if not blocks:
            return
        packed = _pack(work)
        self._start(sum(buffer.nbytes for buffer in packed[1]))
        data = self._ray.data
        shared = self._ray.put(packed)  # a name of its own keeps it alive for an actor that is started again
        try:
            numbers = data.range(blocks, override_num_blocks=blocks)
            done = numbers.map_batches(
                _Worker,
                batch_size=1,
                batch_format="numpy",
                compute=data.ActorPoolStrategy(size=min(self.workers, blocks)),
                num_cpus=self.threads,
                fn_constructor_args=(shared, self.threads),
            )
            yield from done.iter_batches(batch_size=None, batch_format="numpy")
        except self._ray.exceptions.RayError as error:
            raise _cause(error) from error

    def _start(self, shared: int) -> None:
        if self._ray.is_initialized():
            return
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error comes as an exception
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if os.environ.get("RAY_ADDRESS"):
            self._ray.init(**quiet)
        else:
            self._ray.init(
                address="local",
                num_cpus=self.workers * self.threads + 1,  # one for what names the blocks
                object_store_memory=2 * shared + _SPARE_STORE,
                include_dashboard=False,
                **quiet,
            )
        self._ray.data.DataContext.get_current().raise_original_map_exception = True
        self._started = True


class _Worker:
    """An actor of the pool: takes the work once, and then blocks."""

    def __init__(self, packed: Any, threads: int) -> None:
        import ray

        torch.set_num_threads(threads)
        self.work: _Work = _unpack(ray.get(packed))

    def __call__(self, numbers: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
        return self.work(int(numbers["id"][0]))


class _Packer(pickle.Pickler):
    """Lays tensors out as arrays, which Ray shares between the processes of a machine without a copy."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.layout == torch.strided:
            return _tensor, (value.detach().numpy(),)
        return NotImplemented


def _tensor(array: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # shared memory is for reading alone; nobody writes to it
        return torch.from_numpy(array)


def _pack(work: _Work) -> tuple[bytes, list[NDArray[np.uint8]]]:
    """Return the work as bytes, and apart from them its arrays."""
    stream = io.BytesIO()
    buffers: list[NDArray[np.uint8]] = []
    packer = _Packer(stream, protocol=5, buffer_callback=lambda one: buffers.append(np.frombuffer(one.raw(), np.uint8)))
    packer.dump(work)
    return stream.getvalue(), buffers


def _unpack(packed: tuple[bytes, list[NDArray[np.uint8]]]) -> Any:
    return pickle.loads(packed[0], buffers=packed[1])  # noqa: S301 - made by this process's own driver


def _cause(error: BaseException) -> MetaMMFError:
    """Return the error of ours that a worker raised, or one that tells of Ray's."""
    cause = getattr(error, "cause", None)
    told = str(error if cause is None else cause).strip().splitlines() or [type(error).__name__]
    if isinstance(cause, MetaMMFError):
        cause.args = (told[0],)  # behind which Ray adds advice on its own settings
        return cause
    return RunError(f"Ray could not finish: {told[-1]} ({type(error).__name__})")
