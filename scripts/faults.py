"""Trains a small generated world once undisturbed, then again and again with a fault at a random moment, and resumes.

    python scripts/faults.py [--kills 30] [--damages 2] [--seed 0] [--jobs 2]

A fault is survived where the resumed run ends at the bit-equal weights and losses of the undisturbed one, no epoch is lost
whose end was logged (one, where the newest checkpoint itself was damaged), nothing half-written stands under a final name,
and what the command said, and its exit status, were right. Prints a table by kind; the exit status is 1 where one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS = 12
SETTINGS = {
    "model.hidden_dims": "[32]",
    "model.embedding_dim": "128",
    "training.epochs": str(EPOCHS),
    "training.patience": "none",
    "training.batch_size": "512",
    "training.metric": "recall@20",
}
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
LIMIT_S = 300


class NotSurvivedError(Exception):
    """What went wrong."""


class MissedError(Exception):
    """The run ended before its fault came: another moment is drawn."""


@dataclass
class Ended:
    """How a command ended."""

    status: int
    told: str


@dataclass
class Bench:
    """The undisturbed run, and what is needed to start others like it.

    Args:
        folder: Where everything lies.
        rng: Draws the faults; each fault has its own.
        seconds: What the undisturbed run took, start-up included.
        tensors: What came out of it.
        losses: Of its epochs.
        notes: Counts of what the faults met.
    """

    folder: Path
    rng: random.Random = field(default_factory=random.Random)
    seconds: float = 0.0
    tensors: dict[str, bytes] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Write the world, train it undisturbed, and kill another run in its midst, for the faults that damage files."""
        world = ("data", "generate", "world", "--users", "300", "--items", "200", "--interactions", "4000")
        self.expect(self.run(*world), 0)
        start = time.monotonic()
        self.expect(self.train("undisturbed"), 0)
        self.seconds = time.monotonic() - start
        self.tensors, self.losses = tensors(self.folder / "undisturbed"), losses(self.folder / "undisturbed")
        midst = self.folder / "midst"
        process = self.start(*self.words(midst.name))
        while process.poll() is None and logged(midst) < EPOCHS // 2:
            time.sleep(0.002)
        process.kill()
        require(end(process).status == -signal.SIGKILL, "the run to be damaged ended before it was killed")

    def start(self, *words: str, limit: int | None = None) -> subprocess.Popen[str]:
        """Start a command in a process of its own; `limit`: no file may grow beyond so many bytes."""
        process = subprocess.Popen(
            [sys.executable, "-m", "metammf", *words],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if limit is not None:  # long before it writes: torch takes a second to import
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        return process

    def run(self, *words: str, limit: int | None = None) -> Ended:
        """Run a command to its end."""
        return end(self.start(*words, limit=limit))

    def words(self, run: str, *options: str) -> list[str]:
        """The command that trains into the folder `run`."""
        settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
        return ["train", "world", "--recipe", "metammf-mf", *settings, "--threads", "1", "--out", run, *options]

    def train(self, run: str, *options: str, limit: int | None = None) -> Ended:
        """Train into the folder `run`."""
        return self.run(*self.words(run, *options), limit=limit)

    def expect(self, ended: Ended, status: int, *told: str) -> None:
        """Hold how a command ended against what it should have."""
        require(ended.status == status, f"exit status {ended.status}, not {status}: {ended.told[-400:]}")
        for words in told:
            require(words in ended.told, f"the message does not say {words!r}: {ended.told[-400:]}")
        require("Traceback" not in ended.told, f"a traceback: {ended.told[-400:]}")

    def finish(self, run: str, *, lost: int = 0) -> Ended:
        """Look at what a fault left, resume to the end, and compare with the undisturbed run."""
        path = self.folder / run
        check_files(path)
        require(kept(path) >= logged(path) - lost, f"{logged(path)} epochs were logged and {kept(path)} are kept")
        ended = self.train(run, "--resume")
        self.expect(ended, 0)
        require(tensors(path) == self.tensors, "the weights differ from those of the undisturbed run")
        require(losses(path) == self.losses, "the losses differ from those of the undisturbed run")
        left = [entry.name for entry in path.iterdir() if entry.name.endswith((".part", ".old"))]
        require(not left, f"left behind: {', '.join(left)}")
        return ended


def require(holds: bool, otherwise: str) -> None:
    """Raise what is wrong."""
    if not holds:
        raise NotSurvivedError(otherwise)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process."""
    _, told = process.communicate(timeout=LIMIT_S)
    return Ended(process.returncode, " ".join(told.split()))


def tensors(run: Path) -> dict[str, bytes]:
    """Return the bytes of each tensor of a run's recommender."""
    with safe_open(run / "recommender" / "tensors.safetensors", framework="np") as stream:
        return {name: np.asarray(stream.get_tensor(name)).tobytes() for name in stream.keys()}  # noqa: SIM118


def losses(run: Path) -> list[float]:
    """Return the loss of each epoch."""
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def finished(run: Path) -> bool:
    """Whether training had come to its end, whatever became of the process then."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((run / "run.json").read_text())["state"] == "finished"
    return False


def logged(run: Path) -> int:
    """Return how many epochs the log tells of."""
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def kept(run: Path) -> int:
    """Return how many epochs the last checkpoint that can be read holds; 0 where there is none."""
    for name in (CHECKPOINT, PREVIOUS):
        with contextlib.suppress(Exception), safe_open(run / name, framework="np") as stream:
            return len(json.loads(stream.metadata()["progress"])["history"])
    return 0


def check_files(run: Path) -> None:
    """Refuse a half-written file under a final name."""
    try:
        for path in [*run.rglob("*.json"), *run.rglob("*.jsonl")]:
            for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                json.loads(text)
        for path in run.rglob("*.safetensors"):
            with safe_open(path, framework="np"):
                pass
    except (ValueError, SafetensorError) as error:
        raise NotSurvivedError(f"{path} is half-written: {error}") from error


# Faults: each takes the bench and a run's name, does its worst, and returns what `finish` may lose -------------------------


def _hit(bench: Bench, run: str, number: int, wait: Callable[[subprocess.Popen[str]], None]) -> Ended:
    process = bench.start(*bench.words(run))
    try:
        wait(process)
        if process.poll() is not None:
            raise MissedError
        process.send_signal(number)
        ended = end(process)
    finally:
        process.kill()
    if ended.status == 0 or finished(bench.folder / run):
        raise MissedError
    bench.notes["left a part file behind"] += any((bench.folder / run).glob(".*.part"))
    return ended


def _sleep(bench: Bench, least: float = 0.0) -> Callable[[subprocess.Popen[str]], None]:
    moment = bench.rng.uniform(least, bench.seconds)
    return lambda _process: time.sleep(moment)


def _until_written(bench: Bench, run: str) -> Callable[[subprocess.Popen[str]], None]:
    """Wait for the moment when a checkpoint is being written, after a random number of epochs, and a bit more."""
    epoch, more = bench.rng.randrange(EPOCHS - 1), bench.rng.uniform(0, 0.004)
    path = bench.folder / run

    def wait(process: subprocess.Popen[str]) -> None:
        while process.poll() is None and logged(path) < epoch:
            time.sleep(0.002)
        while process.poll() is None and not (path.is_dir() and any(path.glob(f".{CHECKPOINT}.*.part"))):
            pass
        time.sleep(more)

    return wait


def kill(bench: Bench, run: str) -> int:
    """SIGKILL at a moment drawn evenly from the whole run, its start included."""
    require(_hit(bench, run, signal.SIGKILL, _sleep(bench)).status == -signal.SIGKILL, "it was not killed")
    return 0


def kill_in_write(bench: Bench, run: str) -> int:
    """SIGKILL while a checkpoint is being written."""
    require(_hit(bench, run, signal.SIGKILL, _until_written(bench, run)).status == -signal.SIGKILL, "it was not killed")
    return 0


def _tidily(bench: Bench, run: str, number: int, status: int, word: str) -> int:
    path = bench.folder / run

    def wait(process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not (path / "run.json").is_file():  # training has begun
            time.sleep(0.002)
        time.sleep(bench.rng.uniform(0, 0.7 * bench.seconds))

    bench.expect(_hit(bench, run, number, wait), status, word, "--resume")
    require(not any(path.glob(".*.part")), "a part file was left behind")
    return 0


def interrupt(bench: Bench, run: str) -> int:
    """SIGINT, as Ctrl-C sends it."""
    return _tidily(bench, run, signal.SIGINT, 130, "interrupted")


def terminate(bench: Bench, run: str) -> int:
    """SIGTERM, as a scheduler sends it."""
    return _tidily(bench, run, signal.SIGTERM, 143, "terminated")


def limited_files(bench: Bench, run: str) -> int:
    """No file may grow beyond a part of a checkpoint."""
    whole = (bench.folder / "undisturbed" / CHECKPOINT).stat().st_size
    ended = bench.train(run, limit=bench.rng.randrange(8_000, whole))
    bench.expect(ended, 2, "File too large", "make room", "--resume")
    require(not any((bench.folder / run).glob(".*.part")), "a part file was left behind")
    return 0


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Callable[[], object]]:
    """Mount a disk of `size` bytes at `path`, and give the call that enlarges it."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"size={size}", "tmpfs", path], check=True, capture_output=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", path], check=True, capture_output=True)
    finally:
        subprocess.run(["umount", path], check=True)


def full_disk(bench: Bench, run: str) -> int:
    """A disk with room for one to three checkpoints; three are there at once while the third is written."""
    whole = (bench.folder / "undisturbed" / CHECKPOINT).stat().st_size
    disk = bench.folder / f"disk-of-{run}"
    with small_disk(disk, int(whole * bench.rng.uniform(0.3, 2.8))) as enlarge:
        there = disk / "run"
        bench.expect(bench.train(str(there)), 2, "No space left on device", "make room", "--resume")
        require(not any(there.glob(".*.part")), "a part file was left behind")
        check_files(there)
        enlarge()
        if bench.rng.random() < 0.5:
            bench.expect(bench.train(str(there), "--resume"), 0)
        shutil.copytree(there, bench.folder / run)
    disk.rmdir()
    return 0


def mounts() -> bool:
    """Whether a small disk can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _interrupted(bench: Bench, run: str) -> Path:
    """Copy the run that was killed in its midst."""
    return Path(shutil.copytree(bench.folder / "midst", bench.folder / run))


def _cut(bench: Bench, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: bench.rng.randrange(len(content))])


def _flip(bench: Bench, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(bench.rng.choice([1, 1, 8])):
        # Half of them in the header, which is short and says much.
        end_of_header = 8 + int.from_bytes(content[:8], "little")
        place = bench.rng.randrange(bench.rng.choice([len(content), min(end_of_header, len(content))]))
        content[place] ^= 1 << bench.rng.randrange(8)
    path.write_bytes(content)


def _damaged(bench: Bench, run: str, damage: Callable[[Bench, Path], None]) -> int:
    path = _interrupted(bench, run)
    before = logged(path)
    damage(bench, path / CHECKPOINT)
    ended = bench.train(run, "--resume")
    bench.expect(ended, 0, "the checkpoint is damaged", "going on from the one before")
    found = re.search(r"the end of epoch (\d+)", ended.told)
    require(found is not None and int(found[1]) >= before - 1, f"{before} epochs were logged: {ended.told}")
    return 0


def cut_checkpoint(bench: Bench, run: str) -> int:
    """The newest checkpoint is cut short at a random byte."""
    return _damaged(bench, run, _cut)


def flipped_checkpoint(bench: Bench, run: str) -> int:
    """One to eight bits of the newest checkpoint are flipped."""
    return _damaged(bench, run, _flip)


def no_checkpoint_is_whole(bench: Bench, run: str) -> int:
    """Both checkpoints are cut short: the message says to train into a new folder."""
    path = _interrupted(bench, run)
    for name in (CHECKPOINT, PREVIOUS):
        _cut(bench, path / name)
    bench.expect(bench.train(run, "--resume"), 2, "damaged", "train into a new folder")
    shutil.rmtree(path)
    return 0


def cut_run_file(bench: Bench, run: str) -> int:
    """run.json is cut short: it is written anew, since the checkpoint is of this run."""
    path = _interrupted(bench, run)
    _cut(bench, path / "run.json")
    bench.expect(bench.run("evaluate", run), 2, "damaged", "--resume")
    bench.expect(bench.train(run, "--resume"), 0, "damaged")
    return 0


def cut_recommender(bench: Bench, run: str) -> int:
    """A file of the finished recommender is cut short or flipped: it is made again."""
    path = bench.folder / run
    shutil.copytree(bench.folder / "undisturbed", path)
    file = path / "recommender" / bench.rng.choice(["tensors.safetensors", "users.parquet", "items.parquet"])
    bench.rng.choice([_cut, _flip])(bench, file)
    bench.expect(bench.run("evaluate", run), 2, "damaged", "--resume")
    bench.expect(bench.train(run, "--resume"), 0, "made again")
    return 0


def two_at_once(bench: Bench, run: str) -> int:
    """Two commands on one folder: one trains, the other is refused, or comes late and finds it finished."""
    first = bench.start(*bench.words(run, "--resume"))
    second = bench.start(*bench.words(run, "--resume"))
    try:
        ended = sorted((end(first), end(second)), key=lambda one: one.status)
    finally:
        for process in (first, second):
            process.kill()
    bench.expect(ended[0], 0)
    if ended[1].status:
        bench.expect(ended[1], 2, "in use by another process", "name another folder")
        bench.notes["second command refused"] += 1
    return 0


KILLS = (kill, kill_in_write, terminate, interrupt)
DAMAGES = (
    limited_files,
    full_disk,
    cut_checkpoint,
    flipped_checkpoint,
    no_checkpoint_is_whole,
    cut_run_file,
    cut_recommender,
    two_at_once,
)


def inflict(bench: Bench, fault: Callable[[Bench, str], int], run: str) -> None:
    """Do one fault to a fresh run and resume it; a fault that comes too late is drawn again.

    Raises:
        NotSurvivedError: what went wrong.
    """
    for _ in range(20):
        try:
            lost = fault(bench, run)
        except MissedError:
            shutil.rmtree(bench.folder / run, ignore_errors=True)
            continue
        bench.finish(run, lost=lost)
        shutil.rmtree(bench.folder / run)
        return
    raise NotSurvivedError("the fault came too late twenty times over")


def main(arguments: list[str] | None = None) -> int:
    """Inflict all faults and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many signals at random moments")
    parser.add_argument("--damages", type=int, default=2, help="how many times each other fault")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    options = parser.parse_args(arguments)
    faults: list[Callable[[Bench, str], int]] = [KILLS[number % len(KILLS)] for number in range(options.kills)]
    others = [fault for fault in DAMAGES if fault is not full_disk or mounts()]
    faults += [fault for fault in others for _ in range(options.damages)]
    with tempfile.TemporaryDirectory(prefix="metammf-faults-") as folder:
        bench = Bench(Path(folder))
        bench.prepare()
        print(f"undisturbed: {bench.seconds:.1f} s, {EPOCHS} epochs, {len(bench.tensors)} tensors", flush=True)
        survived = _all(bench, faults, options.seed, options.jobs)
        size = (bench.folder / "undisturbed" / CHECKPOINT).stat().st_size
    print(f"\n{'fault':<26}{'inflicted':>10}{'survived':>10}")
    inflicted = Counter(fault.__name__ for fault in faults)
    for name, count in inflicted.items():
        print(f"{name.replace('_', ' '):<26}{count:>10}{survived[name]:>10}")
    print(f"{'all':<26}{len(faults):>10}{survived.total():>10}")
    for note, count in bench.notes.items():
        print(f"{note}: {count}")
    print(
        f"a checkpoint: {size / 2**20:.2f} MiB" + ("" if full_disk in others else "; no small disk can be mounted here")
    )
    return int(survived.total() < len(faults))


def _all(bench: Bench, faults: list[Callable[[Bench, str], int]], seed: int, jobs: int) -> Counter[str]:
    def survives(number: int) -> str | None:
        fault, own = faults[number], replace(bench, rng=random.Random(f"{seed} {number}"))
        try:
            inflict(own, fault, f"run-{number}")
        except NotSurvivedError as error:
            print(f"NOT SURVIVED: {fault.__name__}, number {number}: {error}", flush=True)
            return None
        return fault.__name__

    with ThreadPoolExecutor(jobs) as pool:
        return Counter(filter(None, pool.map(survives, range(len(faults)))))


if __name__ == "__main__":
    sys.exit(main())
