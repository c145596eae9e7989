"""Make the bundle that ``anyport demo`` runs: src/anyport/demo/digits.port, one zip, and its sample picture.

Run it again when examples/digits or the format of bundles changes:

    python scripts/make_demo_bundle.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from anyport.build import BuildPlan, BuildSettings, build, read_description
from anyport.bundle import pack

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "examples" / "digits"
DEMO: Final = ROOT / "src" / "anyport" / "demo"
SOURCE_DATE_EPOCH: Final = 1_795_219_200  # 2026-11-21: the same bytes whenever it is made
MAX_BYTES: Final = 1_000_000


def main() -> None:
    """Build, prove and pack."""
    command = ("anyport", "build", "examples/digits", "-o", "digits.port")
    settings = BuildSettings(source_date_epoch=SOURCE_DATE_EPOCH, command=command)
    DEMO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        description = read_description(EXAMPLE / "anyport.toml")
        plan = BuildPlan(description, EXAMPLE, Path(folder) / "digits.port", settings)
        result = build(plan, lambda step, text: print(f"  {step:<9} {text}"))
        packed = pack(result.path, DEMO / "digits.port", force=True)
    shutil.copyfile(EXAMPLE / "seven.png", DEMO / "seven.png")
    size_bytes = packed.stat().st_size
    if size_bytes > MAX_BYTES:
        raise SystemExit(f"the demo bundle has {size_bytes} bytes, at most {MAX_BYTES} may ship")
    print(f"  shipped   {packed.relative_to(ROOT)}   {size_bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
