"""DigitsNet: a small residual network that reads a handwritten digit from 8x8 grey pixels."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("weights.safetensors")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them (He et al. 2016, arXiv:1512.03385, figure 2).

    The shortcut is the identity where the shapes agree, else a 1x1 convolution ("option B" there).
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        """Build the block with fresh weights.

        Args:
            n_in: Channels of the input.
            n_out: Channels of the output.
            stride: 1 keeps height and width, 2 halves them.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features.

        Args:
            features: float32[batch, n_in, height, width].

        Returns:
            float32[batch, n_out, height / stride, width / stride].
        """
        hidden = self.relu(self.norm1(self.conv1(features)))
        residual: Tensor = self.norm2(self.conv2(hidden))
        summed: Tensor = self.relu(residual + self.shortcut(features))
        return summed


class DigitsNet(nn.Module):
    """Two stages of two residual blocks, 24 channels at 8x8 and 48 at 4x4; 95 890 parameters.

    Example:
        >>> import torch
        >>> DigitsNet().eval()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self) -> None:
        """Build the network with fresh weights, drawn from torch's global generator."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(24, 24, 1), ResidualBlock(24, 24, 1))
        self.stage2 = nn.Sequential(ResidualBlock(24, 48, 2), ResidualBlock(48, 48, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(48, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Score the ten digits.

        Args:
            pixel_values: float32[batch, 1, 8, 8], ink bright on dark, scaled to 0..1 and then
                normalised with the mean and std of `anyport.toml`.

        Returns:
            logits, float32[batch, 10]: one score per digit 0..9, before the softmax.
        """
        features = self.stage2(self.stage1(self.stem(pixel_values)))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


def load() -> nn.Module:
    """Return the trained network in eval mode, with the weights that lie beside this file.

    Returns:
        A `DigitsNet` on the CPU, float32.

    Raises:
        FileNotFoundError: If `weights.safetensors` is missing; `train.py` writes it.
    """
    model = DigitsNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()
