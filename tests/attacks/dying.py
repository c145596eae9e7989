"""A build that dies at every call that touches the disk; run as a script, because it forks.

``python -m tests.attacks.dying DEATH OPERATION FOLDER`` asserts the law after every death: the output is
absent or whole, and the next build of it succeeds; once the process is gone, it leaves nothing else.
Prints the number of deaths.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from anyport.bundle import Staging, open_bundle, pack, seal_bundle, unpack
from anyport.errors import AnyportError
from tests.bundle.examples import fill_folder, make_bundle, make_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

TOUCHES = {
    "c_call": frozenset(
        {
            "close",
            "flock",
            "fsync",
            "lstat",
            "mkdir",
            "open",
            "rename",
            "replace",
            "rmdir",
            "scandir",
            "seek",
            "unlink",
            "write",
        }
    ),
    "c_return": frozenset({"mkdir", "open", "rename"}),  # before the caller knows of it
}


def build(place: Path, *, force: bool) -> None:
    facts = msgspec.structs.replace(make_manifest().model, version="2.0.0")
    with Staging.open(place / "out", force=force) as staging:
        fill_folder(staging.folder)
        seal_bundle(staging.folder, msgspec.structs.replace(make_manifest(), model=facts))
        staging.commit()


def pack_it(place: Path, *, force: bool) -> None:
    pack(place / "source.port", place / "out", force=force)


def unpack_it(place: Path, *, force: bool) -> None:
    unpack(place / "source.zip", place / "out", force=force)


OPERATIONS: dict[str, Callable[..., None]] = {
    "build": build,
    "build-again": build,
    "pack": pack_it,
    "unpack": unpack_it,
}


def prepare(template: Path, operation: str) -> None:
    template.mkdir()
    make_bundle(template / "source.port")
    pack(template / "source.port", template / "source.zip")
    if operation == "build-again":
        shutil.copytree(template / "source.port", template / "out")


def check_whole(path: Path) -> str:
    """Check every byte of a bundle and return its version."""
    with open_bundle(path) as bundle:
        bundle.check()
        return bundle.manifest.model.version


def check_law(place: Path, operation: str) -> None:
    """Check what a death left, and that the next build works and clears it away."""
    is_there = (place / "out").exists()
    if is_there:
        check_whole(place / "out")
    elif operation == "build-again":
        words = str(refusal(lambda: check_whole(place / "out")))
        assert "a build died while replacing it; the bundle before is in" in words, words
    OPERATIONS[operation](place, force=is_there or operation == "build-again")
    wanted = "2.0.0" if operation.startswith("build") else "1.0.0"
    assert check_whole(place / "out") == wanted


def refusal(work: Callable[[], object]) -> AnyportError | None:
    """Return the error that the work ends in; ``None`` if it goes through."""
    try:
        work()
    except AnyportError as err:
        return err
    return None


def check_nothing_left(place: Path) -> None:
    left = sorted(path.name for path in place.iterdir())
    assert left == ["out", "source.port", "source.zip"], left


def trap(deed: Callable[[], None], number: int) -> None:
    """Do something just before the given call, or just after one that makes or moves something."""
    seen = 0

    def watch(_: FrameType, event: str, function: object) -> None:
        nonlocal seen
        if event in TOUCHES and getattr(function, "__name__", "") in TOUCHES[event]:
            seen += 1
            if seen == number:
                sys.setprofile(None)
                deed()

    sys.setprofile(watch)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def in_child(work: Callable[[], bool]) -> int:
    """Run work in a forked child; 0: it says that it went through; 1: that it died; -9: it was killed."""
    child = os.fork()
    if child == 0:
        try:
            code = 0 if work() else 1
        except BaseException as err:  # noqa: BLE001 - the child must not return into the test
            sys.stderr.write(f"{type(err).__name__}: {err}\n")
            code = 2
        os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code != 2, "the law is broken: see above"
    return code


def killed(place: Path, operation: str, number: int) -> int:
    def work() -> bool:
        trap(kill, number)
        OPERATIONS[operation](place, force=operation == "build-again")
        return True

    return in_child(work)


def interrupted(place: Path, operation: str, number: int) -> int:
    def work() -> bool:
        trap(interrupt, number)
        try:
            OPERATIONS[operation](place, force=operation == "build-again")
        except (KeyboardInterrupt, OSError):  # shutil.rmtree closes a descriptor twice when it is interrupted
            # in the same process, as in a notebook; a lock torn from its owner lives as long as that
            check_law(place, operation)
            return False
        finally:
            sys.setprofile(None)
        return True

    return in_child(work)


def disk_full(place: Path, operation: str, number: int) -> int:
    """Die at a file that would have more than ``number - 1`` times 100 bytes."""

    def work() -> bool:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * (number - 1), hard))
        error = refusal(lambda: OPERATIONS[operation](place, force=operation == "build-again"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        if error is None:
            return True
        assert "the limit on the size of a file is reached" in error.what, error
        assert not list(place.glob(".*")), "something is left"
        check_law(place, operation)
        check_nothing_left(place)
        return False

    return in_child(work)


DEATHS = {"disk-full": disk_full, "interrupted": interrupted, "killed": killed}


def main(death: str, operation: str, folder: str) -> None:
    template, place = Path(folder) / "template", Path(folder) / "place"
    prepare(template, operation)
    number = 1
    while True:
        shutil.copytree(template, place)
        code = DEATHS[death](place, operation, number)
        if code == 0:
            break
        check_law(place, operation)
        check_nothing_left(place)
        shutil.rmtree(place)
        number += 1
    sys.stdout.write(f"{number - 1}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
