"""The networks of the pipeline benchmarks in PyTorch, on one core and through PyTorch's own pipeline.

`torch.distributed.pipelining` over gloo, one process a stage: GPipe and 1F1B.  Layers, batch, optimizer and cuts are
those of the library's backpropagation; the initialisation is PyTorch's.
"""

import os
from collections.abc import Callable, Sequence

import torch
from absl import flags
from torch import distributed, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from experiments.contenders import CLASSES, Network

FLAGS = flags.FLAGS
SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


def layers(network: Network) -> list[nn.Module]:
    """The layers that the library's blocks are, and the classifier."""
    found: list[nn.Module] = []
    widths = network.options["widths"]
    if network.name == "mlp":
        for before, width in zip((network.shape[1], *widths), widths, strict=False):
            found.append(nn.Sequential(nn.Linear(before, width), nn.ELU()))
        return [*found, nn.Linear(widths[-1], CLASSES)]
    size, channels = network.shape[1], network.shape[3]
    last = widths[0]
    for width in widths:
        stride = 2 if width > last else 1
        found.append(nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1), nn.ELU()))
        size, channels, last = -(-size // stride), width, width
    return [*found, nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, CLASSES))]


def examples(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, images with channels first, and labels."""
    batch, *rest = network.shape
    shape = (batch, rest[-1], *rest[:-1]) if len(rest) == 3 else (batch, *rest)
    return torch.randn(shape), torch.randint(0, CLASSES, (batch,))


def alone(network: Network, batches: int) -> Callable[[], None]:
    """Trains the whole network on one core."""
    torch.set_num_threads(1)
    model = nn.Sequential(*layers(network))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = examples(network)

    def run() -> None:
        for _ in range(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def join() -> None:
    """Joins the other stages' processes."""
    torch.set_num_threads(1)
    host, port = FLAGS.coordinator.split(":")
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    distributed.init_process_group("gloo", rank=FLAGS.process_id, world_size=FLAGS.num_processes)


def pipeline(network: Network, cuts: Sequence[int], schedule: str, parts: int, batches: int) -> Callable[[], None]:
    """Trains this process's stage, after `join`.

    Args:
      network: what trains.
      cuts: layers at which stages begin and end, the classifier counted.
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
