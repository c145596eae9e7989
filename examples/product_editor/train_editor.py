"""Trains text encoder and transformer together by flow matching, on latents of families; resumable."""

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from edits import KINDS, Edit
from judging import cases, judge_all, table
from latents import N_FAMILIES, SIDE, Codec, families_of
from muon import Muon
from networks import compilable, new_text_encoder, new_transformer
from prompts import Prompts
from safetensors.torch import load_file
from sampling import Networks, edit_pictures, velocity
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from wording import LANGUAGES, instruction

N_BATCH: Final = 64
N_PROMPT_TOKENS: Final = 28  # the longest prompt of the world, after the prefix
CHANGED: Final = 0.05  # mean square of normalised latents: a token differs from the reference's
CHANGED_WEIGHT: Final = 4.0
EMA: Final = 0.998
N_WARM_STEPS: Final = 100
DECAY_SHARE: Final = 0.5  # of all steps, at the end
SHARES: Final = {  # of the samples: what is hard comes more often
    "recolour": 0.24,
    "remove": 0.20,
    "replace": 0.22,
    "background": 0.12,
    "tag_add": 0.09,
    "tag_change": 0.08,
    "tag_remove": 0.05,
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples: latents before and after, float32[batch, tokens, 64]; the card as the tower sees it; words."""

    before: Tensor
    after: Tensor
    seen: Tensor
    instructions: list[str]


class Examples:
    """The families of every file of latents that a folder holds by now.

    Args:
        folder: Of the files; more may come while training goes on.
        shares: Kind -> share of the samples.
        seed: Of the draw.
        n_families: In each file.
    """

    def __init__(
        self, folder: Path, shares: dict[str, float], seed: int, n_families: int = N_FAMILIES
    ) -> None:
        self._folder, self._shares, self._draw = folder, shares, random.Random(seed)
        self._n_families = n_families
        self._files: list[dict[str, Tensor]] = []
        self._edits: dict[str, list[tuple[int, int, int, Edit]]] = {kind: [] for kind in KINDS}
        self.read_more()

    def read_more(self) -> None:
        """Take up the files that have come."""
        for path in sorted(self._folder.glob("*.safetensors"))[len(self._files) :]:
            first, number = 0, len(self._files)
            self._files.append(load_file(path))
            for drawn in families_of(int(path.stem), self._n_families):
                for link in drawn.links:
                    places = (number, first + link.before, first + link.after)
                    self._edits[link.kind].append((*places, drawn.edit(link)))
                first += len(drawn.scenes)

    def __len__(self) -> int:
        """Return the number of edits."""
        return sum(map(len, self._edits.values()))

    def batch(self) -> Batch:
        """Draw samples, each worded afresh."""
        kinds = self._draw.choices(list(self._shares), list(self._shares.values()), k=N_BATCH)
        drawn = [self._draw.choice(self._edits[kind]) for kind in kinds]
        return Batch(
            torch.stack([self._files[file]["latents"][before] for file, before, _, _ in drawn]).float(),
            torch.stack([self._files[file]["latents"][after] for file, _, after, _ in drawn]).float(),
            torch.stack([self._files[file]["seen"][before] for file, before, _, _ in drawn]),
            [instruction(self._draw, edit, self._draw.choice(LANGUAGES)) for _, _, _, edit in drawn],
        )


class Editor:
    """The two networks that are trained, and the mean of their weights that is kept.

    Args:
        tokenizer: Of the editor.
        device: Where to compute.
    """

    def __init__(self, tokenizer: Qwen2Tokenizer, device: torch.device) -> None:
        self.encoder: Qwen2_5_VLForConditionalGeneration = new_text_encoder(tokenizer).to(device)
        self.transformer: QwenImageTransformer2DModel = new_transformer().to(device)
        self.prompts = Prompts(tokenizer, self.encoder, N_PROMPT_TOKENS)
        parts = {"text_encoder": self.encoder.model.language_model, "tower": self.encoder.model.visual}
        named = [
            (f"{part}.{name}", p) for part, model in parts.items() for name, p in model.named_parameters()
        ]
        named += [(f"transformer.{name}", tensor) for name, tensor in self.transformer.named_parameters()]
        self.parameters = dict(named)
        self.mean = {name: tensor.detach().clone() for name, tensor in named}

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean square error of the velocity; tokens that change count four times.

        Half of the noise levels lie above 0.75: only there does the instruction matter.
        """
        before, after = batch.before.to(self.encoder.device), batch.after.to(self.encoder.device)
        uniform = torch.rand(len(after), device=after.device)
        level = 1 - uniform * uniform
        noise, share = torch.randn_like(after), level.view(-1, 1, 1)
        with torch.autocast(after.device.type, torch.bfloat16):
            prompts = self.prompts(batch.instructions, batch.seen)
            noisy = (1 - share) * after + share * noise
            found = velocity(self.transformer, noisy, before, level, prompts).float()
        changed = (after - before).square().mean(-1, keepdim=True) > CHANGED
        weight = 1 + (CHANGED_WEIGHT - 1) * changed.float()
        return ((found - (noise - after)).square() * weight).mean() / weight.mean()

    @torch.no_grad()
    def follow(self, n_steps: int) -> None:
        """Move the mean of the weights towards the weights."""
        keep = min(EMA, (1 + n_steps) / (20 + n_steps))
        torch._foreach_lerp_(
            list(self.mean.values()), [p.detach() for p in self.parameters.values()], 1 - keep
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their mean."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.mean[name])
            self.mean[name].copy_(kept)

    def compile(self) -> None:
        """Compile blocks and text layers: a step takes two thirds of the time, after a minute."""
        for block in self.transformer.transformer_blocks:
            block.compile(dynamic=False)
        self.encoder.model.language_model.compile(dynamic=False)


class Training:
    """An editor, its optimisers and how far they are; `save` and `resume` lose nothing but the draw's state.

    Args:
        editor: Fresh.
        n_steps: Of the whole training.
    """

    def __init__(self, editor: Editor, n_steps: int) -> None:
        self.editor, self.n_steps, self.step = editor, n_steps, 0
        tower = [tensor for name, tensor in editor.parameters.items() if name.startswith("tower.")]
        rest = {name: p for name, p in editor.parameters.items() if not name.startswith("tower.")}
        matrices = [tensor for name, tensor in rest.items() if _is_matrix(name, tensor)]
        others = [tensor for name, tensor in rest.items() if not _is_matrix(name, tensor)]
        self._optimisers: tuple[tuple[torch.optim.Optimizer, float], ...] = (
            (Muon(matrices, lr=0.02, weight_decay=0.01), 0.02),
            (torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0), 2e-3),
            (torch.optim.AdamW(tower, lr=1e-3, betas=(0.9, 0.98), weight_decay=0), 1e-3),
        )

    def take_step(self, batch: Batch) -> float:
        """Learn from a batch; return the loss."""
        rate = min(1.0, (self.step + 1) / N_WARM_STEPS)
        rate *= max(0.01, min(1.0, (self.n_steps - self.step) / (DECAY_SHARE * self.n_steps)))
        loss = self.editor.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.editor.parameters.values(), 1.0)
        for optimiser, full_rate in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = full_rate * rate
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self.editor.follow(self.step)
        return float(loss.item())

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs, in one piece or not at all."""
        content = {
            "step": self.step,
            "weights": {name: tensor.detach() for name, tensor in self.editor.parameters.items()},
            "mean": self.editor.mean,
            "optimisers": [optimiser.state_dict() for optimiser, _ in self._optimisers],
        }
        unfinished = path.with_suffix(".part")
        torch.save(content, unfinished)  # noqa: TID251  # a trainer's own state: nested, and read as tensors
        unfinished.replace(path)

    @torch.no_grad()
    def resume(self, path: Path) -> None:
        """Go on where `save` was."""
        content = torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251  # tensors and numbers only
        self.step = content["step"]
        for name, tensor in self.editor.parameters.items():
            tensor.copy_(content["weights"][name])
            self.editor.mean[name].copy_(content["mean"][name])
        for (optimiser, _), state in zip(self._optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)


def _is_matrix(name: str, tensor: Tensor) -> bool:
    """Tell what Muon moves: the matrices of blocks and layers, without those that scale and shift."""
    return tensor.ndim == 2 and "_mod." not in name and ("transformer_blocks." in name or ".layers." in name)


def check(training: Training, codec: Codec, n_per_kind: int) -> dict[str, float]:
    """Return the shares of right edits, 0..1, with the mean of the weights."""
    judged = cases(n_per_kind, seed=4242, side=SIDE)
    editor = training.editor
    editor.swap()
    with torch.compiler.set_stance("force_eager"):
        answers = edit_pictures(
            Networks(editor.transformer, editor.prompts, codec),
            [case.source for case in judged],
            [case.instruction for case in judged],
        )
    editor.swap()
    rows = table(judged, judge_all(judged, answers))
    return {row.name: round(row.right, 3) for row in rows} | {"outside_db": round(rows[-1].outside_db, 1)}


def train(training: Training, examples: Examples, codec: Codec, words: argparse.Namespace) -> None:
    """Train to the last step; check and save every so many minutes."""
    start, cpu_start, last, mean_loss = time.monotonic(), time.process_time(), time.monotonic(), 0.0
    while training.step < training.n_steps:
        loss = training.take_step(examples.batch())
        mean_loss = 0.99 * mean_loss + 0.01 * loss if mean_loss else loss
        done = training.step == training.n_steps
        if not done and time.monotonic() - last < 60 * words.check_every:
            continue
        training.save(words.folder / "training.pt")
        found = check(training, codec, words.cases)
        line = {"step": training.step, "samples": training.step * N_BATCH, "loss": round(mean_loss, 4)}
        line |= {"minutes": round((time.monotonic() - start) / 60, 1)}
        line |= {"cpu_s": round(time.process_time() - cpu_start), "examples": len(examples)}
        with (words.folder / "log.jsonl").open("a") as file:
            print(json.dumps(line | {"right": found}), file=file)
        examples.read_more()
        last = time.monotonic()


def _shares(text: str) -> dict[str, float]:
    """Read "recolour=0.3,remove=0.3": kinds that are not named get nothing."""
    found = {name: float(share) for name, _, share in (part.partition("=") for part in text.split(","))}
    if unknown := set(found) - set(KINDS):
        raise argparse.ArgumentTypeError(
            f"no kinds of edits: {sorted(unknown)}; there are {', '.join(KINDS)}"
        )
    return found


def main() -> None:
    """Train from the start, or go on from the folder's training.pt."""
    parser = argparse.ArgumentParser(
        description="Train the text encoder and the transformer of the product editor."
    )
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("vae", type=Path)
    parser.add_argument(
        "latents", type=Path, help="what latents.py wrote; files that come later are taken up"
    )
    parser.add_argument("folder", type=Path, help="training.pt and log.jsonl")
    parser.add_argument("--steps", type=int, default=10_000, help=f"of {N_BATCH} samples")
    parser.add_argument("--shares", type=_shares, default=SHARES, help="kind=share,...: of the samples")
    parser.add_argument("--check-every", type=float, default=5, help="minutes")
    parser.add_argument("--cases", type=int, default=24, help="per kind, in a check")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    words.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    editor = Editor(Qwen2Tokenizer.from_pretrained(words.tokenizer), torch.device(words.device))
    training = Training(editor, words.steps)
    if (words.folder / "training.pt").is_file():
        training.resume(words.folder / "training.pt")
    torch.manual_seed(training.step)
    examples = Examples(words.latents, words.shares, seed=training.step)
    codec = Codec(AutoencoderKLQwenImage.from_pretrained(words.vae))
    editor.compile()
    with compilable():
        train(training, examples, codec, words)


if __name__ == "__main__":
    main()
