"""Trains the product editor from nothing: `python examples/product_editor/train.py runs/editor`.

Tokens, the VAE, latents of the families, the editor, the pipeline's folder: what is there already is kept, so
that the same command goes on where it was stopped. `log.jsonl` of the VAE and of the editor can be plotted.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CURVES: Final = (
    *("recolour", "remove", "replace", "background", "tag_add", "tag_change", "tag_remove"),
    *("six kinds", "right one of two"),
)


def main() -> None:
    """Take the steps that are not done."""
    parser = argparse.ArgumentParser(description="Train the product editor from nothing, or go on.")
    parser.add_argument("folder", type=Path, help="of the run: 1.5 GB")
    parser.add_argument("--vae-minutes", type=float, default=9)
    parser.add_argument("--families", type=int, default=60, help="files of 250 families each")
    parser.add_argument("--steps", type=int, default=4500, help="of the editor, 64 samples each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", help="cuda or cpu: cuda where there is one, if absent")
    parser.add_argument("--plot", action="store_true", help="only draw curve.png from the logs")
    words = parser.parse_args()
    run = words.folder
    if words.plot:
        plot(run)
        return
    tokens, vae, latents, editor = (str(run / name) for name in ("tokenizer", "vae", "latents", "editor"))
    device = ("--device", words.device) if words.device else ()
    threads = ("--threads", str(words.threads), *device)
    if not (run / "tokenizer" / "tokenizer.json").is_file():
        _step("tokens.py", tokens)
    if not (run / "vae" / "config.json").is_file():
        _step("train_vae.py", vae, "--minutes", str(words.vae_minutes), *threads)
    _step("latents.py", vae, latents, "--files", str(words.families), *device)
    _step("train_editor.py", tokens, vae, latents, editor, "--steps", str(words.steps), *threads)
    _step("assemble.py", str(run / "editor" / "training.pt"), vae, tokens, "--folder", str(run / "model"))


def _step(script: str, *words: str) -> None:
    print(f"$ {script} {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / script), *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def plot(run: Path) -> None:
    """Draw the shares of right edits over the samples, and the VAE's PSNR over its minutes: curve.png."""
    import matplotlib.pyplot as plt

    editor, vae = (
        [json.loads(line) for line in (run / part / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        for part in ("editor", "vae")
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    for name in CURVES:
        shares = [100 * line["right"][name] for line in editor]
        left.plot([line["samples"] / 1000 for line in editor], shares, label=name)
    left.set(xlabel="thousand samples", ylabel="right, % (24 cases a kind)")
    left.legend(fontsize="small")
    right.plot([line["minutes"] for line in vae], [line["psnr_db"] for line in vae])
    right.set(xlabel="minutes", ylabel="VAE, PSNR in dB")
    figure.tight_layout()
    figure.savefig(run / "curve.png", dpi=80)


if __name__ == "__main__":
    main()
