"""The path of somebody who never saw this library: own modules, own pictures, a kill, other processes, files."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from ..quick import QUICK

MODULES = textwrap.dedent('''
    import flax.linen as nn, jax, jax.numpy as jnp, optax
    from flax import nnx
    import localgrad as lg

    jax.config.update("jax_num_cpu_devices", 2)

    class ConvNeXt(nn.Module):
        """A block in the manner of ConvNeXt: a wide depthwise convolution, a norm, and two dense layers."""

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (2, 2), strides=2)(x)
            y = nn.Conv(8, (3, 3), feature_group_count=8)(x)
            y = nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(y))))
            return x + y

    class Attention(nnx.Module):
        """Attention over the places of a picture."""

        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
            self.norm = nnx.LayerNorm(8, rngs=rngs)

        def __call__(self, x):
            y = x.reshape(x.shape[0], -1, x.shape[-1])
            return (y + self.attention(self.norm(y))).mean(axis=1)

    def make():
        x_spec = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)
        return lg.dgl([lg.from_linen(ConvNeXt()), lg.from_nnx(Attention)], x_spec, 3, tx=optax.adam(1e-2))
''')
TRAIN = textwrap.dedent("""
    import numpy as np
    from modules import lg, make

    held = np.load("pictures.npz")
    done = lg.fit(make(), (held["x"], held["y"]), 0.25, epochs=12, stages=2, workdir="run", checkpoint_every_steps=2,
                  batches_per_call=2, label_names=["dark", "grey", "light"])
    print("digest", done.summary["params_sha256"])
""")
USE = textwrap.dedent("""
    import numpy as np
    from modules import lg, make

    network = lg.load("run", model=make())
    x = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    path = lg.export(network, "exported", exits=(1, 2))
    opened = lg.load(path)
    for exit in (1, 2):
        assert np.allclose(opened.scores(x, exit), network.scores(x, exit), atol=1e-4)
    print("best", network(x).names)
""")


def run(folder, *words, kill_at=None):
    """Runs Python in a folder; with `kill_at` it is killed once a checkpoint of that step or a later one is whole."""
    environment = {**os.environ, **QUICK, "PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()])}
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 500
    while kill_at is not None and process.poll() is None and time.monotonic() < deadline:
        whole = [int(path.parent.name) for path in folder.glob("run/checkpoints/*/manifest.json")]
        if whole and max(whole) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.full
def test_the_path_of_a_stranger(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = (80 * y[:, None, None, None] + rng.integers(0, 60, (96, 8, 8, 1))).astype(np.uint8)
    for name, text in (("modules.py", MODULES), ("train.py", TRAIN), ("use.py", USE)):
        (tmp_path / name).write_text(text)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    for folder in (tmp_path, undisturbed):
        np.savez(folder / "pictures.npz", x=x, y=y)
    for name in ("modules.py", "train.py"):
        (undisturbed / name).write_text((tmp_path / name).read_text())

    status, *_ = run(tmp_path, "train.py", kill_at=6)
    assert status == -signal.SIGKILL and not (tmp_path / "run" / "summary.json").exists()
    status, out, err = run(tmp_path, "train.py")
    assert status == 0, err
    assert "resuming run at batch" in out
    digest = out.split("digest")[1].strip()
    status, out, err = run(undisturbed, "train.py")
    assert status == 0 and out.split("digest")[1].strip() == digest, err

    (tmp_path / "pictures.npz").unlink()  # the data are gone
    status, out, err = run(tmp_path, "use.py")
    assert status == 0, err
    assert "best" in out
    (tmp_path / "modules.py").unlink()  # and so is the code
    for value, name in ((30, "dark"), (190, "light")):
        Image.fromarray(np.full((12, 12), value, np.uint8)).save(tmp_path / f"{name}.png")
    command = ("-m", "localgrad", "predict", "--workdir=exported", "--out=said.jsonl", "dark.png", "light.png")
    status, out, err = run(tmp_path, *command)
    assert status == 0, err
    rows = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["dark", "light"] and rows[0]["exit"] == 2
