"""The networks of the pipeline benchmarks in PyTorch, on one core and through PyTorch's own pipeline.

`torch.distributed.pipelining` over gloo, one process a stage: GPipe and 1F1B.  Layers, batch, optimizer and cuts are
those of the library's backpropagation; the initialisation is PyTorch's.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from absl import flags
from torch import distributed, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from experiments.benchmarks.contenders import CLASSES, Network

FLAGS = flags.FLAGS
SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


def layers(network: Network) -> list[nn.Module]:
    """The layers that the library's blocks are; the classifier belongs to the last."""
    found, classifier = _LAYERS[network.name](network)
    return [*found[:-1], nn.Sequential(found[-1], *classifier)]


Layers = tuple[list[nn.Module], list[nn.Module]]


def _mlp(network: Network) -> Layers:
    widths = network.options["widths"]
    pairs = zip((network.shape[1], *widths), widths, strict=False)
    return [nn.Sequential(nn.Linear(*pair), nn.ELU()) for pair in pairs], [nn.Linear(widths[-1], CLASSES)]


def _cnn(network: Network) -> Layers:
    found: list[nn.Module] = []
    size, channels = network.shape[1], network.shape[3]
    last = network.options["widths"][0]
    for width in network.options["widths"]:
        stride = 2 if width > last else 1
        found.append(nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1), nn.ELU()))
        size, channels, last = -(-size // stride), width, width
    return found, [nn.Flatten(), nn.Linear(channels * size * size, CLASSES)]


def _bilstm(network: Network) -> Layers:
    given = network.options
    inputs = (given["embed_width"], *(2 * width for width in given["widths"]))
    above = [_BiLSTM(before, width) for before, width in zip(inputs, given["widths"], strict=False)]
    embedding = nn.Sequential(nn.Embedding(given["words"], inputs[0]), _WordsFirst())
    return [embedding, *above], [_Ends(), nn.Linear(inputs[-1], CLASSES)]


def _transformer(network: Network) -> Layers:
    given = network.options
    width, rest = given["width"], (given["heads"], given["feed_forward"])
    above = [nn.TransformerEncoderLayer(width, *rest, dropout=0.0, batch_first=True) for _ in range(given["layers"])]
    return [nn.Embedding(given["words"], width), *above], [_Mean(), nn.Linear(width, CLASSES)]


_LAYERS: dict[str, Callable[[Network], Layers]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "bilstm": _bilstm,
    "transformer": _transformer,
}


class _WordsFirst(nn.Module):
    """`(B, T, D)` to `(T, B, D)`: so an LSTM's outputs and gradients are contiguous, as what is sent must be."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).contiguous()


class _BiLSTM(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        self.lstm = nn.LSTM(before, width, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


class _Ends(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return torch.cat([x[-1, :, :half], x[0, :, half:]], dim=-1)


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def examples(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, images with channels first or texts of full length, and labels."""
    batch, *rest = network.shape
    if "words" in network.options:
        return torch.randint(1, network.options["words"], network.shape), torch.randint(0, CLASSES, (batch,))
    shape = (batch, rest[-1], *rest[:-1]) if len(rest) == 3 else (batch, *rest)
    return torch.randn(shape), torch.randint(0, CLASSES, (batch,))


def _one_core() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as XLA does: the last digits of a loss near zero cost a hundred times others'


def alone(network: Network, batches: int) -> Callable[[], None]:
    """Trains the whole network on one core."""
    _one_core()
    model = nn.Sequential(*layers(network))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = examples(network)

    def run() -> None:
        for _ in range(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def layer_seconds(network: Network, repetitions: int = 5) -> list[float]:
    """Seconds of each layer, forward and backward, on one core; the median of several."""
    _one_core()
    chain, (x, _) = layers(network), examples(network)
    seconds: list[list[float]] = [[] for _ in chain]
    for _ in range(repetitions):
        given = x
        for i, layer in enumerate(chain):
            began = time.perf_counter()
            out = layer(given)
            out.sum().backward()
            seconds[i].append(time.perf_counter() - began)
            given = out.detach().requires_grad_()
    return [statistics.median(each) for each in seconds]


def join() -> None:
    """Joins the other stages' processes."""
    _one_core()
    host, port = FLAGS.coordinator.split(":")
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    distributed.init_process_group("gloo", rank=FLAGS.process_id, world_size=FLAGS.num_processes)


def pipeline(network: Network, cuts: Sequence[int], schedule: str, parts: int, batches: int) -> Callable[[], None]:
    """Trains this process's stage, after `join`.

    Args:
      network: what trains.
      cuts: layers at which stages begin and end.
      schedule: `gpipe` or `1f1b`.
      parts: micro-batches.
      batches: of a call.
    """
    stage, stages = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(0)
    module = nn.Sequential(*layers(network)[cuts[stage] : cuts[stage + 1]])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    own = PipelineStage(module, stage, stages, torch.device("cpu"))
    runner = SCHEDULES[schedule](own, n_microbatches=parts, loss_fn=nn.functional.cross_entropy)
    x, y = examples(network)

    def run() -> None:
        for _ in range(batches):
            optimizer.zero_grad()
            if stage == 0:
                runner.step(x)
            else:
                runner.step(target=y if stage == stages - 1 else None)
            optimizer.step()

    return run
