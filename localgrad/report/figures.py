"""Figures of a run, drawn from its records."""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from localgrad.report.scores import EXITS, score_of

_PNG = b"\x89PNG\r\n\x1a\n"


def draw_curves(records: Sequence[dict[str, Any]], path: Path | BinaryIO) -> None:
    """Draws loss by block and the score by exit over epochs, as a PNG.

    Args:
      records: the objects of `metrics.jsonl`; figures of several trials are averaged.
      path: the file to write, or one that is open.
    """
    figure = _figure(10, 4)
    losses, scores = figure.subplots(1, 2)
    score = next((score_of(record) for record in records if record["split"] != "train"), "accuracy")
    for split, key, axes, style in (
        ("train", "block_loss", losses, "-"),
        ("validation", EXITS + score, scores, "--"),
        ("test", EXITS + score, scores, "-"),
    ):
        of_split = [record for record in records if record["split"] == split]
        epochs = [record["epoch"] for record in of_split]
        lines = np.array([[np.mean(value) for value in record[key]] for record in of_split])
        for i, line in enumerate(lines.T):
            name = f"block {i + 1}" if split == "train" else f"exit {i + 1}, {split}"
            axes.plot(epochs, line, style, color=f"C{i % 10}", marker="." if len(epochs) < 2 else "", label=name)
    losses.set(xlabel="epoch", ylabel="training loss", yscale="log")
    scores.set(xlabel="epoch", ylabel=score.replace("_", " "))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=120, format="png", metadata={"Description": _drawn_from(records)})


def shows_curves(content: bytes, records: Sequence[dict[str, Any]]) -> bool:
    """Whether a file's content is a whole PNG, undamaged, that `draw_curves` drew from these records."""
    at = len(_PNG)
    if not content.startswith(_PNG) or _drawn_from(records).encode() not in content:
        return False
    while at < len(content):  # each chunk is its length, its kind, its data, and a checksum of the latter two
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if zlib.crc32(content[at + 4 : end - 4]).to_bytes(4, "big") != content[end - 4 : end]:
            return False
        kind, at = content[at + 4 : at + 8], end
    return kind == b"IEND"


def _drawn_from(records: Sequence[dict[str, Any]]) -> str:
    return f"records {hashlib.sha256(json.dumps(list(records)).encode()).hexdigest()}"


def draw_anytime(curves: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Draws accuracy against FLOPs of leaving early, one line a network, as a PNG.

    Args:
      curves: a name, and rows `exits` and `anytime` of accuracy and FLOPs, as `localgrad evaluate` writes them.
      path: the file to write.
    """
    figure = _figure(6, 4)
    axes = figure.subplots()
    for i, (name, result) in enumerate(curves):
        flops, accuracy = ([row[key] for row in result["anytime"]] for key in ("flops", "accuracy"))
        axes.plot(np.array(flops) / 1e6, accuracy, "o-", color=f"C{i}", label=f"{name}, by confidence")
        alone = [row["flops"] / 1e6 for row in result["exits"]], [row["accuracy"] for row in result["exits"]]
        axes.plot(*alone, "x--", color=f"C{i}", label=f"{name}, every example at one exit")
    axes.set(xlabel="MFLOP an example", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def draw_lines(lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, path: Path) -> None:
    """Draws named lines over 1, 2, 3, ... as a PNG."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(range(1, len(values) + 1), values, ".-", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def draw_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]], x: Sequence[float], xlabel: str, ylabel: str, path: Path
) -> None:
    """Draws panels of named lines over the same x, side by side with one scale, as a PNG."""
    figure = _figure(5 * len(panels), 4)
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for name, values in lines.items():
            axes.plot(x, values, label=name)
        axes.set(title=title, xlabel=xlabel)
        axes.grid(alpha=0.3)
    all_axes[0].set(ylabel=ylabel)
    all_axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def draw_embeddings(features: Sequence[np.ndarray], labels: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draws a t-SNE of each of several feature arrays `(N, ...)` side by side, coloured by label, as a PNG."""
    from sklearn.manifold import TSNE

    figure = _figure(4 * len(features), 4)
    for axes, rows, name in zip(np.atleast_1d(figure.subplots(1, len(features))), features, names, strict=True):
        flat = rows.reshape(len(rows), -1)
        perplexity = min(30.0, (len(flat) - 1) / 3)
        points = TSNE(init="random", perplexity=perplexity, random_state=0).fit_transform(flat)
        axes.scatter(*points.T, c=labels, cmap="tab10", s=6)
        axes.set(title=name, xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> Any:
    """An empty figure that needs no screen; matplotlib is loaded only when something is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
