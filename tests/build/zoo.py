"""Models that users bring: small, seeded, and each with something of its own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn


class ImageAndText(nn.Module):
    """Two inputs with a batch in common: a picture encoder and a text embedding, added."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 16, 3, 2, 1)
        )
        self.words = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """Return float32[batch, 16]."""
        mixed: Tensor = self.mix(self.picture(pixel_values).mean((2, 3)) + self.words(input_ids).mean(1))
        return mixed


class MaskedEncoder(nn.Module):
    """Attention with a padding mask, over a dynamic sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32[batch, sequence, 16]."""
        words = self.words(input_ids)
        batch, length = input_ids.shape
        heads = [
            layer(words).view(batch, length, 4, 4).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        mask = attention_mask[:, None, None, :].bool().expand(batch, 1, length, length)
        seen = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        encoded: Tensor = self.norm(words + seen.transpose(1, 2).reshape(batch, length, 16))
        return encoded


class Dense(nn.Module):
    """Fully convolutional: the sides are multiples of 8, the answer is an eighth of them."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(3)))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[batch, 2, height/8, width/8], and the same at full size."""
        small = self.head(torch.tanh(self.down(pixel_values)))
        large = nn.functional.interpolate(small, scale_factor=8, mode="bilinear", align_corners=False)
        return small, large


class ScoresAndChoice(nn.Module):
    """A dict of outputs, one of them whole numbers, one of them absent."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 7))

    def forward(self, features: Tensor, scale: Tensor | None = None) -> dict[str, Tensor | None]:
        """Return scores, the best of them, and nothing."""
        scores = self.layers(features)
        if scale is not None:
            scores = scores * scale
        return {"best": scores.argmax(-1), "scores": scores, "hidden": None}


class NotANumber(nn.Module):
    """Answers NaN where its input is negative."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 4]."""
        return torch.sqrt(x)


class Fixed(nn.Module):
    """Makes an axis constant without a word."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, n]."""
        return x / torch.as_tensor(x.shape[1])


class Noise(nn.Module):
    """Draws random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 4]."""
        return x + torch.randn(x.shape)


class Scaled(nn.Module):
    """Divides by a size; takes another way when it is traced, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, n]."""
        n_columns = 5 if torch.jit.is_tracing() else x.shape[1]
        return (x + self.shift) / n_columns


class Deaf(nn.Module):
    """Answers the same to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 4]."""
        answer: Tensor = self.layer(x)
        return answer


class Attends(nn.Module):
    """Attention without a mask, and one network beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = (
            layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return self.mix(mixed)


def _seeded(make: type[nn.Module]) -> nn.Module:
    torch.manual_seed(7)
    return make().eval()


def image_and_text() -> nn.Module:
    """Return the two-input model, its BatchNorm as after some training."""
    return _with_statistics(_seeded(ImageAndText))


def _with_statistics(model: nn.Module) -> nn.Module:
    """Give every norm statistics of its own: fresh ones are 0 and 1, which hides mistakes."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model


def masked_encoder() -> nn.Module:
    """Return the encoder with a mask."""
    return _seeded(MaskedEncoder)


def dense() -> nn.Module:
    """Return the fully convolutional net."""
    return _seeded(Dense)


def scores_and_choice() -> nn.Module:
    """Return the model with a dict of outputs."""
    return _seeded(ScoresAndChoice)


def not_a_number() -> nn.Module:
    """Return the model that answers NaN."""
    return _seeded(NotANumber)


def fixed() -> nn.Module:
    """Return the model that makes an axis constant."""
    return _seeded(Fixed)


def noise() -> nn.Module:
    """Return the random model."""
    return _seeded(Noise)


def scaled() -> nn.Module:
    """Return the model that divides by a size."""
    return _seeded(Scaled)


def attends() -> nn.Module:
    """Tokens that see each other."""
    return _seeded(Attends)


def tiny_resnet() -> nn.Module:
    """Return a ResNet of two stages, its norms as after some training."""
    return _resnet(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)


def resnet_18() -> nn.Module:
    """Return a ResNet-18, 11.7 M parameters."""
    return _resnet(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=1000,
    )


def _resnet(**config: Any) -> nn.Module:
    from anyport.recipe.resnet import Logits

    torch.manual_seed(7)
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**config))
    return _with_statistics(Logits(network).eval())


def deaf() -> nn.Module:
    """Return the model that reacts to nothing."""
    return _seeded(Deaf)


def training() -> nn.Module:
    """Return a model in training mode."""
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
