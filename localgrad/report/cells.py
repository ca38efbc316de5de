"""Numbers in rows and columns as shaded cells."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from localgrad.report.svg import colour, svg, text


def grid(values: np.ndarray, *, title: str, rows: Sequence[str], columns: Sequence[str], cell: str, log: bool) -> str:
    """Numbers as cells, the stronger their colour the larger; the pointer tells each.

    Args:
      values: `(rows, columns)`; what is not finite is left empty.
      title: what it shows.
      rows, columns: their names.
      cell: what a number is, such as `loss`.
      log: shades are of the logarithm.

    Returns:
      An `svg` element.
    """
    count_rows, count_columns = values.shape
    size = max(3.0, min(22.0, 300 / max(count_rows, count_columns)))
    left, top = 60.0, 6.0
    scaled = np.log10(np.where(values > 0, values, np.nan)) if log else np.asarray(values, float)
    fine = scaled[np.isfinite(scaled)]
    low, high = (fine.min(), fine.max()) if fine.size else (0.0, 1.0)
    parts = []
    for i, row in enumerate(scaled):
        for j, value in enumerate(row):
            if not np.isfinite(value):
                continue
            share = 1.0 if high == low else float((value - low) / (high - low))
            parts.append(
                f'<rect class="cell" x="{left + j * size:.1f}" y="{top + i * size:.1f}" width="{size:.1f}" '
                f'height="{size:.1f}" fill="{colour(0, 1)}" fill-opacity="{0.04 + 0.96 * share:.2f}">'
                f"<title>{escape(rows[i])}, {escape(columns[j])}: {cell} {values[i, j]:,.6g}</title></rect>"
            )
    every = max(1, math.ceil(11 / size))
    for i in range(0, count_rows, every):
        parts.append(text(left - 4, top + (i + 0.5) * size + 3, rows[i], "end"))
    wide = max(map(len, columns)) * 6 + 4
    for j in range(0, count_columns, max(1, math.ceil(wide / size))):
        parts.append(text(left + (j + 0.5) * size, top + count_rows * size + 12, columns[j], "middle"))
    return svg(left + count_columns * size + 20, top + count_rows * size + 18, title, "".join(parts))
