"""Trains the VAE on cards; a training that is stopped begins anew."""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage
from drawing import render
from families import family
from muon import Muon
from numpy.typing import NDArray
from still_vae import decode, deflate, encode, inflate, new_vae, one_frame
from torch import Tensor, nn
from world import any_scene

SIDE: Final = 64
N_POOL: Final = 6000  # cards at hand; a few are drawn anew at every step
N_FRESH: Final = 6
N_BATCH: Final = 12
N_CHECKED: Final = 96
EMA: Final = 0.995
KL: Final = 1e-5


def cards(draw: random.Random, n_cards: int, *, unseen: bool = False) -> NDArray[np.uint8]:
    """Return uint8[n_cards, 64, 64, 3]: cards as the editor will see them, before and after an edit."""
    drawn: list[NDArray[np.uint8]] = []
    while len(drawn) < n_cards:
        scenes = [any_scene(draw, unseen=True)] if unseen else draw.sample(family(draw).scenes, 2)
        drawn += [render(scene, SIDE) for scene in scenes]
    return np.stack(drawn[:n_cards])


def tensor_of(pictures: NDArray[np.uint8]) -> Tensor:
    """Return float32[batch, 3, height, width], -1..1, of uint8[batch, height, width, 3]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Return L1 + 2 MSE + half the L1 of the differences between neighbours, which keeps letters sharp."""
    off = made - wanted
    edges = off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
    return off.abs().mean() + 2 * off.square().mean() + 0.5 * edges


def psnr_db(vae: AutoencoderKLQwenImage, pictures: Tensor) -> Tensor:
    """Return the PSNR in dB of each picture after encoding and decoding: float32[batch]."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        made = torch.cat([decode(vae, encode(vae, part)[0]) for part in pictures.split(32)]).clamp(-1, 1)
    return -10 * torch.log10(((made - pictures) / 2).square().mean((1, 2, 3)))


def train(vae: AutoencoderKLQwenImage, minutes: float, log: Path) -> None:
    """Train a deflated VAE in place; it ends with the running mean of its weights.

    Args:
        vae: Deflated, on any device.
        minutes: How long, by the clock.
        log: Gets one JSON line per check.
    """
    draw, chance, device = random.Random(1), np.random.default_rng(0), vae.device
    pool, checked = (
        cards(draw, N_POOL),
        tensor_of(cards(random.Random(99), N_CHECKED, unseen=True)).to(device),
    )
    parameters = list(vae.parameters())
    optimisers = _optimisers(parameters)
    mean = [parameter.detach().clone() for parameter in parameters]
    start, cpu_start, n_steps, checks = time.monotonic(), time.process_time(), 0, 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        _set_rate(optimisers, min(1.0, (n_steps + 1) / 50) * max(0.02, min(1.0, 1.6 * (1 - share))))
        pool[chance.integers(0, N_POOL, N_FRESH)] = cards(draw, N_FRESH)
        loss = _loss(vae, tensor_of(pool[chance.integers(0, N_POOL, N_BATCH)]).to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        n_steps += 1
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - min(EMA, n_steps / (n_steps + 20)))
        if share * 10 >= checks + 1:
            checks += 1
            _swap(parameters, mean)
            found = psnr_db(vae, checked)
            _swap(parameters, mean)
            line = {"minutes": share * minutes, "cpu_s": time.process_time() - cpu_start, "steps": n_steps}
            line |= {"loss": loss.item(), "psnr_db": found.mean().item(), "psnr_min_db": found.min().item()}
            with log.open("a") as file:
                print(json.dumps({key: round(value, 4) for key, value in line.items()}), file=file)
    _swap(parameters, mean)


def _loss(vae: AutoencoderKLQwenImage, pictures: Tensor) -> Tensor:
    mean, log_variance = encode(vae, pictures)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    return reconstruction_loss(decode(vae, latents), pictures) + KL * divergence


def _optimisers(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    kernels = [p for p in parameters if p.ndim >= 4 and min(p.shape[:2]) >= 8]
    others = [p for p in parameters if not (p.ndim >= 4 and min(p.shape[:2]) >= 8)]
    found: list[torch.optim.Optimizer] = [Muon(kernels, lr=0.02, momentum=0.9)]
    found.append(torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4))
    for optimiser in found:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return found


def _set_rate(optimisers: list[torch.optim.Optimizer], share: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * share


@torch.no_grad()
def _swap(parameters: list[nn.Parameter], others: list[Tensor]) -> None:
    for parameter, other in zip(parameters, others, strict=True):
        kept = parameter.detach().clone()
        parameter.copy_(other)
        other.copy_(kept)


def measure_latents(vae: AutoencoderKLQwenImage) -> None:
    """Write mean and standard deviation of the latents' channels into the configuration."""
    pictures = tensor_of(cards(random.Random(7), 1024)).to(vae.device)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        latents = torch.cat([encode(vae, part)[0] for part in pictures.split(64)])
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=spread.tolist())


def main() -> None:
    """Train, and write the folder of a VAE."""
    parser = argparse.ArgumentParser(description="Train the VAE of the product editor.")
    parser.add_argument("folder", type=Path, help="where the VAE is written")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    torch.manual_seed(0)
    vae = deflate(new_vae(), gain=3**0.5).to(words.device)
    words.folder.mkdir(parents=True, exist_ok=True)
    log = words.folder / "log.jsonl"
    log.unlink(missing_ok=True)
    vae.encoder.compile(dynamic=False)  # 1.4 times as fast, 2.3 times on two threads, after a minute
    vae.decoder.compile(dynamic=False)
    with one_frame():
        train(vae, words.minutes, log)
        measure_latents(vae)
    inflate(vae).save_pretrained(words.folder)


if __name__ == "__main__":
    main()
