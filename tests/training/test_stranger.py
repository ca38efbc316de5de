"""The path of somebody who has the wheel and nothing else: own modules, own pictures, a kill, other processes, files.

The wheel is built and installed into a fresh environment, with whatever it depends on from the network.
"""

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

from ..wheels import build_wheel

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

    y = np.array([0, 1, 2, 0, 1])
    lg.write_report("run", "own.html", model=make(), test=(x, y), alignment=True)
""")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of the programs of a fresh environment with the wheel alone."""
    folder = tmp_path_factory.mktemp("environment")
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    line = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=1500)
    if "No matching distribution found" in done.stderr or "NewConnectionError" in done.stderr:
        pytest.skip("the network has no packages to install")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def run(environment, folder, program, *words, kill_at=None):
    """Runs a program in a folder; with `kill_at` it is killed once a checkpoint of that step or later is whole."""
    own = ("PYTHONPATH", "XLA_FLAGS")  # of the tests
    variables = {name: value for name, value in os.environ.items() if name not in own}
    process = subprocess.Popen(
        [environment / program, *words],
        cwd=folder,
        env={**variables, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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


def said(environment, folder, program, *words):
    """What a program says that ends well."""
    status, out, err = run(environment, folder, program, *words)
    assert status == 0, err
    return out


def lay_out(folder):
    """Own modules, the program that trains them, the one that uses them, and own pictures."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = (80 * y[:, None, None, None] + rng.integers(0, 60, (96, 8, 8, 1))).astype(np.uint8)
    folder.mkdir()
    for name, text in (("modules.py", MODULES), ("train.py", TRAIN), ("use.py", USE)):
        (folder / name).write_text(text)
    np.savez(folder / "pictures.npz", x=x, y=y)
    for value, name in ((30, "dark"), (190, "light")):
        Image.fromarray(np.full((12, 12), value, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.slow
@pytest.mark.full
def test_the_path_of_a_stranger(environment, tmp_path):
    folder, undisturbed = lay_out(tmp_path / "own"), lay_out(tmp_path / "undisturbed")
    program = "import localgrad, sys; print(localgrad.__file__.startswith(sys.prefix))"
    assert said(environment, folder, "python", "-c", program) == "True\n"

    status, *_ = run(environment, folder, "python", "train.py", kill_at=6)
    assert status == -signal.SIGKILL and not (folder / "run" / "summary.json").exists()
    out = said(environment, folder, "python", "train.py")
    assert "resuming run at batch" in out
    digest = out.split("digest")[1].strip()
    assert said(environment, undisturbed, "python", "train.py").split("digest")[1].strip() == digest

    (folder / "pictures.npz").unlink()  # the data are gone
    assert "best" in said(environment, folder, "python", "use.py")
    assert "Confusion of classes" in (folder / "own.html").read_text()
    (folder / "modules.py").unlink()  # and so is the code
    words = ("predict", "--workdir=exported", "--out=said.jsonl", "dark.png", "light.png")
    said(environment, folder, "localgrad", *words)
    rows = [json.loads(line) for line in (folder / "said.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["dark", "light"] and rows[0]["exit"] == 2

    small = ("--net=mlp", "--widths=8,8", "--dataset=digits", "--limit=128", "--epochs=1", "--workdir=compared")
    said(environment, folder, "localgrad", "compare", "--methods=early_exit,bp", *small)
    rows = json.loads((folder / "compared" / "compare.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["early_exit", "bp"] and rows[1]["alignment"] > 0.99
    said(environment, folder, "localgrad", "report", "run", "compared/bp", "--out=page.html")
    page = (folder / "page.html").read_text()
    assert page.count("<figcaption>Timeline of the pipeline</figcaption>") == 2 and "ConvNeXt-Attention" in page
