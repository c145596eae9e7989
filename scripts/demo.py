"""`make demo`: build and prove the product editor; edit a card with its bundle, without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import environment
from environment import ROOT

if TYPE_CHECKING:
    from environment import Environment

BUNDLE = "build/editor.port"
PICTURE = "src/anyport/demo/card.png"
EDITED = "build/edited.png"
INSTRUCTION = "把白色T恤换成黑色"  # make the white T-shirt black


def main() -> None:
    """Run the demo; a failing command ends it with that command's exit code."""
    environment.ensure(environment.BUILD)
    print("1. With PyTorch: build the bundle, and prove it against the model.\n")
    (ROOT / BUNDLE).parent.mkdir(exist_ok=True)
    _anyport(environment.BUILD, "build", "examples/product_editor", "-o", BUNDLE, "--force")
    environment.ensure(environment.RUN)
    print("2. Without PyTorch: prove it again, and run it.\n")
    _refuse_torch(environment.RUN)
    _anyport(environment.RUN, "verify", BUNDLE)
    edit = ("run", BUNDLE, PICTURE, "--instruction", INSTRUCTION, "-o", EDITED, "--force")
    _anyport(environment.RUN, *edit)


def _anyport(where: Environment, *words: str) -> None:
    print(f"$ {where.folder}/bin/anyport {' '.join(words)}", flush=True)
    done = subprocess.run(
        [str(where.program("anyport")), *words], stdin=subprocess.DEVNULL, check=False, cwd=ROOT
    )
    if done.returncode:
        sys.exit(done.returncode)
    print(flush=True)


def _refuse_torch(where: Environment) -> None:
    probe = "import importlib.util as u; print(*(n for n in ('onnx', 'torch') if u.find_spec(n)))"
    command = [str(where.program("python")), "-c", probe]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if found:
        sys.exit(f"{where.folder} has {found} installed, so it proves nothing: remove it and try again")


if __name__ == "__main__":
    main()
