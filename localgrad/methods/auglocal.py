"""AugLocal: a block's classifier looks through fresh copies of a few of the layers that are to come.

    loss_k = CE(A_k(f_k(sg(h_{k-1}))), y)      A_k = linear o f'_{i_d} o ... o f'_{i_1},  k < i_1 < ... < i_d <= L

The copies have the form of the blocks that they stand for and parameters of their own; they are spread evenly over the
blocks above, up to the last, and their number d_k falls linearly with k.

References:
  Ma et al., Scaling Supervised Local Learning with Augmented Auxiliary Networks, https://arxiv.org/abs/2402.17318,
    section 3; choice and depth as in the released code (`unifSamp`, `pyramid_coeff`)
"""

from collections.abc import Sequence

import jax

from localgrad.base import Block, Key, Message, Model
from localgrad.blocks import chain, output_spec
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Run, check, classifying_model, local_block
from localgrad.tasks import Task


def auglocal(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    depth: int = 2,
    shrink: float = 0.5,
    pool: int | None = None,
) -> Model:
    """Augmented auxiliary networks on every block but the last, which has the network's own linear classifier.

    The paper trains ResNet-32 by SGD with Nesterov momentum 0.9 at a rate of 0.8, decay 1e-4, cosine, batch 1024, 400
    epochs.  Its last `depth` layers are one module with the last but those; here every block of the network learns
    alone: group them (`--blocks`) to have the same.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier; one layer a block, as the paper has them.  A copy is
        given what the block that it is put on makes, not what the original is given: modules of Flax linen take the
        shape that they are given, and those of nnx often do not.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and aux.
      depth: copies on the first block; blocks that have fewer above them copy all of those.
      shrink: how much of the way to one copy the depth falls, linearly, up to the last but one block; the paper has 0.5
        on ResNets.
      pool: classifiers average images down to at most so many features first; None leaves them as they are.

    Returns:
      A `Model` whose every block is an exit.

    Raises:
      ValueError: for a depth below one, a shrink outside [0, 1], or a block whose copy cannot stand where it is put.
    """
    network, task = check(network, classes, "auglocal", pool)
    if not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth is a positive number of layers; got {depth!r}.")
    if not 0 <= shrink <= 1:
        raise ValueError(f"shrink is a share in [0, 1]; got {shrink}.")

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        return {**message, "x": features}, {"loss": task.loss(run("aux", features), message["y"])}

    parts: list[dict[str, Block]] = []
    given = x_spec
    for k, (f, own_depth) in enumerate(zip(network, depths(len(network), depth, shrink), strict=True)):
        given = output_spec(f, given)
        copies = [network[i] for i in chosen(k, len(network), own_depth)]
        _check_stack(f, copies, given)
        head = summarised(copies[-1] if copies else f, classifier(task.outputs, pool=pool))
        parts.append({"f": f, "aux": chain([*copies, head])})
    blocks = [local_block(part["f"].name, part, step, tx) for part in parts]
    return classifying_model("auglocal", blocks, parts, ["aux"] * len(parts), x_spec, task)


def depths(blocks: int, depth: int, shrink: float) -> list[int]:
    """How many layers each block asks for; the last has none.

    Examples:
      >>> depths(6, 5, 1.0), depths(6, 5, 0.5), depths(2, 5, 0.5)
      ([5, 4, 3, 2, 1, 0], [5, 4, 4, 4, 3, 0], [5, 0])
    """
    share = [shrink * k / (blocks - 2) if blocks > 2 else 0.0 for k in range(blocks - 1)]
    return [*(max(1, round(depth * (1 - fall) + fall)) for fall in share), 0]


def chosen(block: int, blocks: int, depth: int) -> list[int]:
    """Which blocks above one of so many are copied, all numbered from 0.

    Examples:
      >>> chosen(0, 9, 2), chosen(3, 9, 3), chosen(7, 9, 3), chosen(8, 9, 0)
      ([4, 8], [5, 6, 8], [8], [])
    """
    above = blocks - 1 - block
    if depth >= above:
        return list(range(block + 1, blocks))
    return [round(block + above / depth * i) for i in range(1, depth + 1)]


def _check_stack(f: Block, copies: Sequence[Block], given: jax.ShapeDtypeStruct) -> None:
    """Refuses copies that cannot read what they are given.

    Raises:
      ValueError: naming the copy.
    """
    for copy in copies:
        try:
            given = output_spec(copy, given)
        except Exception as error:
            raise ValueError(
                f"method 'auglocal' puts a copy of block {copy.name!r} on the features {given.shape} above block "
                f"{f.name!r}, and it cannot read them: {error}. Write it so that it takes the shape that it is given, "
                "or choose another depth."
            ) from error
