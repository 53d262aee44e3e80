"""Read handwritten digits with pyconv and NumPy: ``python examples/digits/classify.py``.

`Model` is all there is to inference. The rest prints what the network makes of the digits that
`train.py` held out: it is what ``pyconv demo`` shows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pyconv

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.table import Table

DATA = Path(__file__).with_name("digits.npz")
PICTURES = 8  # two rows of four at 80 columns


class Model:
    """A convolutional network that reads 8x8 images of handwritten digits.

    Parameters
    ----------
    weights : mapping of str to ndarray
        ``<layer>.weight`` and ``<layer>.bias``, float32, with batch norm folded in.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        def of(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        conv = pyconv.Conv2d.from_weights
        depthwise_weight, depthwise_bias = of("depthwise")
        pointwise_weight, pointwise_bias = of("pointwise")
        self.layers: dict[str, pyconv.Conv2d | pyconv.DepthwiseSeparableConv2d] = {
            "stem": conv(*of("stem"), padding=1, activation="relu"),
            "grouped1": conv(*of("grouped1"), padding=1, groups=4, activation="relu"),
            "separable": pyconv.DepthwiseSeparableConv2d.from_weights(
                depthwise_weight,
                pointwise_weight,
                depthwise_bias,
                pointwise_bias,
                stride=2,
                padding=1,
                depthwise_activation="relu",
                activation="relu",
            ),
            "grouped2": conv(*of("grouped2"), padding=1, groups=4, activation="relu"),
            "head": conv(*of("head")),  # 4x4 over a 4x4 plane: a fully connected layer
        }

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits, (N, 10), of `images`, (N, 8, 8) with ink from 0 to 16."""
        x: NDArray[Any] = images[:, np.newaxis].astype(np.float32) / 16
        for layer in self.layers.values():
            x = layer(x)
        return x.reshape(-1, 10)


@cache
def load_model() -> Model:
    """Return the trained model, its weights packed once."""
    with np.load(DATA) as data:
        return Model(data)


def load_held_out() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images, (599, 8, 8), and labels, (599,), that training never saw."""
    with np.load(DATA) as data:
        return data["images"], data["labels"]


def classify(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probability of each digit, (N, 10), for `images`, (N, 8, 8) from 0 to 16."""
    logits = load_model()(images)
    probabilities: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def picture(image: NDArray[np.uint8], shades: str) -> str:
    """Draw an image in five shades, readable without colour; a pixel is two columns wide."""
    return "\n".join("".join(2 * shades[level] for level in row) for row in (image + 2) // 4)


def panel(
    image: NDArray[np.uint8], label: int, probabilities: NDArray[np.float32], shades: str
) -> Panel:
    """Frame a picture with the answer above, and below it the truth if they differ."""
    from rich.panel import Panel
    from rich.text import Text

    answer = int(probabilities.argmax())
    right = answer == label
    return Panel.fit(
        Text(picture(image, shades), style="bright_white on black"),
        title=f"[b]{answer}[/b], {probabilities[answer]:.0%}",
        subtitle=None if right else f"wrong: is {label}",
        border_style="green" if right else "bold red",
        padding=0,
    )


def empty_table(name: str, *numbers: str) -> Table:
    """Return a table with a column of names and right-aligned columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(name, box=box.SIMPLE_HEAD)
    for header in numbers:
        table.add_column(header, justify="right")
    return table


def digit_table(labels: NDArray[np.uint8], answers: NDArray[np.intp]) -> Table:
    """Tabulate how well each digit is found (recall) and how far to trust it (precision)."""
    table = empty_table("digit", "images", "recall", "precision", "taken for")
    for digit in range(10):
        found = answers[labels == digit]
        truth = labels[answers == digit]
        table.add_row(
            str(digit),
            str(found.size),
            f"{np.mean(found == digit):.1%}",
            f"{np.mean(truth == digit):.1%}",
            ", ".join(str(other) for other in found[found != digit]),
        )
    return table


def convolutions(model: Model) -> Iterator[tuple[str, pyconv.Conv2d]]:
    """Yield every convolution of the model; a separable layer is two."""
    for name, layer in model.layers.items():
        if isinstance(layer, pyconv.DepthwiseSeparableConv2d):
            yield f"{name}.depthwise", layer.depthwise
            yield f"{name}.pointwise", layer.pointwise
        else:
            yield name, layer


def layer_table(model: Model) -> Table:
    """Tabulate what each convolution computes for one image."""
    table = empty_table("layer", "kernel", "groups", "output", "weights", "MACs")
    x: NDArray[Any] = np.zeros((1, 1, 8, 8), np.float32)
    for name, conv in convolutions(model):
        channels, (_, group_channels, *kernel) = x.shape[1], conv.weight.shape
        macs = conv.plan(x.shape).macs
        x = conv(x)
        table.add_row(
            name,
            "x".join(map(str, kernel)),
            str(channels // group_channels),
            "x".join(map(str, x.shape[1:])),
            f"{conv.weight.size:,}",
            f"{macs:,}",
        )
    return table


def main() -> None:
    """Classify the held-out digits and print the score, some pictures and two tables."""
    try:
        from rich.columns import Columns
        from rich.console import Console
    except ModuleNotFoundError:
        print("pyconv demo needs rich: pip install rich", file=sys.stderr)
        raise SystemExit(2) from None

    images, labels = load_held_out()
    model = load_model()
    start = time.perf_counter()
    probabilities = classify(images)
    milliseconds = 1e3 * (time.perf_counter() - start)
    answers = probabilities.argmax(axis=1)
    right = answers == labels

    console = Console(highlight=False)
    shades = " .+#@" if console.options.ascii_only else " ░▒▓█"
    # Mistakes teach more than hits: as many as fit in the second row.
    wrong = np.flatnonzero(~right)[: PICTURES // 2]
    shown = [*np.flatnonzero(right)[: PICTURES - wrong.size], *wrong]
    console.print(
        f"[b]{right.sum()} of {right.size} held-out digits right: {right.mean():.1%}[/b]"
        f" (pyconv {pyconv.__version__}, all of them in {milliseconds:.1f} ms)\n"
    )
    console.print(
        Columns(panel(images[i], int(labels[i]), probabilities[i], shades) for i in shown),
        digit_table(labels, answers),
        layer_table(model),
        sep="\n",
    )


if __name__ == "__main__":
    main()
