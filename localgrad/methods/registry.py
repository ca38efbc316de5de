"""Methods by name, one row each: with the optimizers that its papers give to its parameter groups."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import optax

from localgrad import registry
from localgrad.base import Block, Model
from localgrad.methods.al import al
from localgrad.methods.auglocal import auglocal
from localgrad.methods.backprop import bp, bp_fc, bp_matched
from localgrad.methods.chained import fa, kp, usf
from localgrad.methods.critic import critic
from localgrad.methods.direct_targets import direct_tp
from localgrad.methods.feedback import dfa, dkp, drtp
from localgrad.methods.forward import ff
from localgrad.methods.greedy import dgl, early_exit
from localgrad.methods.groups import Optimizers
from localgrad.methods.infomax import gim, loco
from localgrad.methods.infopro import infopro
from localgrad.methods.mixed import mixed_error
from localgrad.methods.noprop import noprop
from localgrad.methods.predsim import predsim
from localgrad.methods.scl import scl
from localgrad.methods.self_supervised import rotation, simclr
from localgrad.methods.supervision import deep_supervision, mono_forward
from localgrad.methods.synthetic import cdni, dni
from localgrad.methods.target_propagation import dtp
from localgrad.tasks import Task

Optimizer = Callable[[float], optax.GradientTransformation]  # of the scale of its rate


def one_optimizer(optimizer: Optimizer) -> optax.GradientTransformation:
    """One optimizer for all groups of a block, at the rate that it is given."""
    return optimizer(1.0)


class Method(NamedTuple):
    """A learning rule by name.

    Attributes:
      make: `(network, x_spec, classes, *, tx, **options) -> Model`.
      tx: `optimizer -> transform` of a block's parameter groups.
      decays: the groups whose kernels weight decay is for; none named are all of them.
      beside: a group that learns beside the weights and may have an optimizer of its own: feedback, a critic.
      beside_rate: the published rate of its Adam; None lets it learn with the weights.
    """

    make: Callable[..., Model]
    tx: Callable[[Optimizer], Optimizers] = one_optimizer
    decays: tuple[str, ...] = ()
    beside: str = ""
    beside_rate: float | None = None

    def __call__(
        self,
        network: Sequence[Block],
        x_spec: jax.ShapeDtypeStruct,
        classes: Task | int,
        optimizer: Optimizer,
        feedback: Optimizer | None = None,
        **options,
    ) -> Model:
        """Makes a model.

        `feedback` is the optimizer of the group `beside`.  By default feedback and synthesizers learn with the weights,
        through one optimizer: what is done to theirs (rate, decay, a clip by the norm of all) is done to its gradient,
        so that in `kp` the difference of B and W^T shrinks by the decay alone; critics and inverses have Adam at their
        published rates.
        """
        tx = self.tx(optimizer)
        if self.beside_rate is not None and feedback is None:
            feedback = partial(_adam, self.beside_rate)
        if self.beside and feedback is not None:
            tx = {"f+head": optimizer(1.0), self.beside: feedback(1.0)}
        return self.make(network, x_spec, classes, tx=tx, **options)


def _al_tx(optimizer: Optimizer) -> Optimizers:
    """Two optimizers a block: one for f and b, one for g and h, whose rate is the profile's affair."""
    return {"f+b": optimizer(1.0), "g+h": optimizer(1.0)}


def _adam(rate: float, scale: float) -> optax.GradientTransformation:
    return optax.adam(rate * scale)


METHODS = registry.Table(
    Method,
    "register_method",
    {
        "al": Method(al, _al_tx, decays=("f",)),  # decay of g and h takes the codes away; NECO decays f alone
        "scl": Method(scl),
        "early_exit": Method(early_exit),
        "dgl": Method(dgl),
        "auglocal": Method(auglocal),
        "mono_forward": Method(mono_forward),
        "ff": Method(ff),
        "noprop": Method(noprop),
        "simclr": Method(simclr),
        "rotation": Method(rotation),
        "gim": Method(gim),
        "loco": Method(loco),
        "infopro": Method(infopro),
        "predsim": Method(predsim),
        "pred": Method(partial(predsim, beta=0.0)),
        "sim": Method(partial(predsim, beta=1.0)),
        "bp": Method(bp),
        "bp_matched": Method(bp_matched),
        "bp_fc": Method(bp_fc),
        "deep_supervision": Method(deep_supervision),
        "dfa": Method(dfa),
        "dkp": Method(dkp, beside="feedback"),
        "drtp": Method(drtp),
        "fa": Method(fa),
        "kp": Method(kp, beside="feedback"),
        "dni": Method(dni, beside="synthesizer"),
        "cdni": Method(cdni, beside="synthesizer"),
        "critic": Method(critic, beside="critic", beside_rate=1e-4),
        "dtp": Method(dtp, beside="inverse", beside_rate=2e-3),
        "direct_tp": Method(direct_tp, beside="inverse", beside_rate=2e-3),
        "usf": Method(usf),
    },
)


def mixed(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    rule: str = "early_exit",
    share: float = 0.5,
    form: str = "dense",
    fan: str = "out",
    kernel: int = 3,
) -> Model:
    """A local rule by name, with its own defaults, and a share of the output's error in every block: `mixed_error`.

    Args:
      network, x_spec, classes: as for the rule.
      tx: any optax transform over the rule's groups; the group feedback never moves.
      rule: a name in `METHODS`.
      share, form, fan, kernel: see `mixed_error`.

    Raises:
      ValueError: for a name that there is not, or as `mixed_error`.
    """
    if rule not in METHODS or rule == "mixed":
        there = ", ".join(sorted(set(METHODS) - {"mixed"}))
        raise ValueError(f"unknown rule {rule!r} of method 'mixed'; there are {there}.")
    model = METHODS[rule].make(network, x_spec, classes, tx=tx)
    return mixed_error(model, share, form=form, fan=fan, kernel=kernel)._replace(method="mixed")


METHODS["mixed"] = Method(mixed)


def register_method(
    name: str,
    make: Callable[..., Model],
    *,
    tx: Callable[[Optimizer], optax.GradientTransformation] = one_optimizer,
    decays: tuple[str, ...] = (),
    beside: str = "",
) -> None:
    """Adds a method, for `--method=NAME` and `METHODS`.

    Args:
      name: a word.
      make, tx, decays, beside: see `Method`; whatever `make` takes by name besides `tx` can be set from the
        command line.

    Raises:
      ValueError: a name that is no word, or that another method has.
    """
    registry.add("method", METHODS, name, Method(make, tx, decays, beside))
