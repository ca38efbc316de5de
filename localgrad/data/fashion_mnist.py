"""Where Debian puts Fashion-MNIST; `idx_sets` reads it."""

from pathlib import Path

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
