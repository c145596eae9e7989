"""The silhouettes of the products, as shapes in a unit square: x to the right, y down."""

from dataclasses import dataclass
from typing import Final

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Polygon:
    """A filled polygon."""

    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """A filled ellipse."""

    box: Box


@dataclass(frozen=True, slots=True)
class Ring:
    """The outline of an ellipse."""

    box: Box
    width: float


@dataclass(frozen=True, slots=True)
class Pie:
    """A slice of an ellipse, from one angle to another, in degrees clockwise from the right."""

    box: Box
    start: float
    end: float


Shape = Polygon | Ellipse | Ring | Pie


@dataclass(frozen=True, slots=True)
class Silhouette:
    """A product's shapes: its body, what lies in shade, what shines, and what shows the backdrop."""

    body: tuple[Shape, ...]
    shade: tuple[Shape, ...]
    light: tuple[Shape, ...]
    hole: tuple[Shape, ...] = ()


def _polygon(*numbers: float) -> Polygon:
    return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)))


SILHOUETTES: Final = {
    "bag": Silhouette(
        body=(Ring((0.28, 0.02, 0.72, 0.56), 0.07), _polygon(0.1, 0.36, 0.9, 0.36, 0.98, 0.94, 0.02, 0.94)),
        shade=(_polygon(0.09, 0.36, 0.91, 0.36, 0.93, 0.5, 0.07, 0.5),),
        light=(Ellipse((0.44, 0.46, 0.56, 0.58)),),
    ),
    "bottle": Silhouette(
        body=(
            _polygon(
                *(0.42, 0.02, 0.58, 0.02, 0.58, 0.24, 0.72, 0.38),
                *(0.72, 0.97, 0.28, 0.97, 0.28, 0.38, 0.42, 0.24),
            ),
        ),
        shade=(
            _polygon(0.6, 0.38, 0.72, 0.38, 0.72, 0.97, 0.6, 0.97),
            _polygon(0.42, 0.02, 0.58, 0.02, 0.58, 0.12, 0.42, 0.12),
        ),
        light=(_polygon(0.28, 0.54, 0.72, 0.54, 0.72, 0.76, 0.28, 0.76),),
    ),
    "cap": Silhouette(
        body=(
            Pie((0.08, 0.2, 0.76, 0.98), 180, 360),
            _polygon(0.6, 0.58, 0.99, 0.66, 0.97, 0.76, 0.56, 0.68, 0.08, 0.66, 0.08, 0.58),
        ),
        shade=(_polygon(0.56, 0.6, 0.99, 0.67, 0.97, 0.76, 0.5, 0.68),),
        light=(Pie((0.18, 0.28, 0.5, 0.9), 200, 270),),
    ),
    "chair": Silhouette(
        body=(
            _polygon(0.18, 0.03, 0.3, 0.03, 0.34, 0.52, 0.9, 0.52, 0.9, 0.66, 0.2, 0.66),
            _polygon(0.2, 0.6, 0.3, 0.6, 0.26, 0.98, 0.17, 0.98),
            _polygon(0.78, 0.6, 0.88, 0.6, 0.93, 0.98, 0.84, 0.98),
        ),
        shade=(_polygon(0.2, 0.58, 0.9, 0.58, 0.9, 0.66, 0.2, 0.66),),
        light=(_polygon(0.21, 0.1, 0.25, 0.1, 0.28, 0.46, 0.25, 0.46),),
    ),
    "mug": Silhouette(
        body=(
            _polygon(0.1, 0.15, 0.72, 0.15, 0.68, 0.92, 0.14, 0.92),
            Ring((0.6, 0.28, 0.98, 0.74), 0.1),
        ),
        shade=(
            _polygon(0.54, 0.15, 0.72, 0.15, 0.68, 0.92, 0.54, 0.92),
            Ellipse((0.1, 0.08, 0.72, 0.24)),
        ),
        light=(_polygon(0.2, 0.3, 0.27, 0.3, 0.27, 0.8, 0.21, 0.8),),
    ),
    "shoe": Silhouette(
        body=(
            _polygon(
                *(0.02, 0.3, 0.2, 0.26, 0.36, 0.4, 0.62, 0.5),
                *(0.9, 0.58, 0.99, 0.74, 0.98, 0.84, 0.02, 0.84),
            ),
        ),
        shade=(_polygon(0.02, 0.76, 0.99, 0.76, 0.98, 0.86, 0.02, 0.86),),
        light=(
            _polygon(0.34, 0.46, 0.4, 0.42, 0.5, 0.58, 0.44, 0.62),
            _polygon(0.46, 0.5, 0.52, 0.48, 0.6, 0.62, 0.54, 0.64),
        ),
    ),
    "tshirt": Silhouette(
        body=(
            _polygon(
                *(0.3, 0.08, 0.42, 0.14, 0.58, 0.14, 0.7, 0.08, 0.98, 0.3, 0.86, 0.46),
                *(0.76, 0.4, 0.76, 0.95, 0.24, 0.95, 0.24, 0.4, 0.14, 0.46, 0.02, 0.3),
            ),
        ),
        shade=(_polygon(0.62, 0.4, 0.76, 0.4, 0.76, 0.95, 0.62, 0.95),),
        light=(_polygon(0.3, 0.3, 0.36, 0.3, 0.36, 0.8, 0.3, 0.8),),
        hole=(Ellipse((0.41, 0.02, 0.59, 0.2)),),
    ),
}
