"""SIGKILL, Ctrl-C and a full disk at every call that touches the disk; `tests.attacks.dying` has the law."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyport.bundle import Staging, open_bundle
from tests.attacks.dying import DEATHS, OPERATIONS, build

ROOT = Path(__file__).parents[2]
AT_LEAST = {"disk-full": 5, "interrupted": 50, "killed": 50}  # fewer would mean that the trap does not see


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("death", sorted(DEATHS))
def test_the_output_is_absent_or_whole(tmp_path: Path, death: str, operation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.dying", death, operation, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= AT_LEAST[death]


def test_a_living_build_of_another_process_is_left_alone(tmp_path: Path) -> None:
    words = (
        "import sys; from pathlib import Path; from anyport.bundle import Staging\n"
        "staging = Staging.open(Path(sys.argv[1])); (staging.folder / 'half').write_text('x')\n"
        "print('ready', flush=True); input()"
    )
    command = [sys.executable, "-c", words, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "ready\n"
        [hidden] = tmp_path.iterdir()
        build(tmp_path, force=False)
        assert (hidden / "new" / "half").is_file()
        living.kill()
        living.wait()
    assert hidden.is_dir()
    build(tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with open_bundle(tmp_path / "out") as bundle:
        bundle.check()


def test_builds_of_different_outputs_do_not_meet(tmp_path: Path) -> None:
    with Staging.open(tmp_path / "out.port") as other:
        build(tmp_path, force=False)
        assert other.folder.is_dir()
