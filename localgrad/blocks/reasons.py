"""What to say of a Flax module that cannot be told whether it trains."""

import re
from collections.abc import Mapping, Sequence

import jax
from flax import errors

from localgrad.blocks.modes import TRAINS, Call, modes

_HAND_ON = (
    "let the module's __call__ take train (or training, is_training, deterministic, use_running_average) and hand it "
    "on, or say how it is called with call=lambda module, x, train: module(x, ...)"
)
_MISSING = (errors.ScopeParamNotFoundError, errors.ScopeVariableNotFoundError, errors.ScopeCollectionNotFound)


def not_told(path: str, value: str, train: bool) -> str:
    """That a submodule is called with the value of the other mode."""
    doing, meant = ("trains", f"; if that is meant, pass frozen=({path!r},)") if train else ("predicts", "")
    return f"while it {doing}, {_label(path)} has {value}, so it does not do what it should: {_HAND_ON}{meant}."


def random_in_prediction(stream: str | None = None) -> str:
    """That a module draws random numbers in prediction."""
    named = "" if stream is None else f" from the stream {stream!r}"
    return f"its module draws random numbers{named} in prediction, where there is no key: {_HAND_ON}."


def reason_of(
    error: Exception, calls: Sequence[Call], wrong: Mapping[str, str], train: bool, rngs: Sequence[str]
) -> str | None:
    """What to do about an error of a trace; None where the error says so itself.

    Args:
      error: what was raised.
      calls: the calls until then, the last of them the one that failed or one that holds it.
      wrong: those with the other mode's value, see `wrong_calls`.
      train: whether the module was to train.
      rngs: the names of its random streams.
    """
    if isinstance(error, ValueError) and "static_argnums" in str(error):
        return (
            "a submodule made by nn.remat or nn.jit is called with its mode by keyword: hand it over by place, "
            "layer(x, train), and count places from 0 for the layer itself: static_argnums=(2,)."
        )
    if isinstance(error, NameError) and "unbound axis name" in str(error):
        return (
            "its module averages over an axis of devices, as nn.BatchNorm(axis_name=...) does, and a Block is called "
            f"without one: leave axis_name out. ({_first_line(error)})"
        )
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return _made_an_array(error, calls)
    if isinstance(error, errors.InvalidRngError):
        stream = next(iter(re.findall('PRNG for "([^"]+)"', str(error))), None)
        if not train:
            return not_told(*list(wrong.items())[-1], train) if wrong else random_in_prediction(stream)
        if stream is not None and stream not in rngs:
            return f"its module draws from the random stream {stream!r} while it trains: pass rngs={(*rngs, stream)}."
    if isinstance(error, errors.ModifyScopeVariableError) and not train:
        if wrong:
            return not_told(*list(wrong.items())[-1], train)
        return f"its module changes a variable in prediction, which a Block does not: {_HAND_ON}. {_first_line(error)}"
    if isinstance(error, _MISSING) and train:
        return (
            "its module asks for a variable in training that it does not make in prediction, as which it is "
            f"initialised: make it in both. {_first_line(error)}"
        )
    return None


def _made_an_array(error: Exception, calls: Sequence[Call]) -> str | None:
    """That a lifted module or function makes an array of a mode, if one did."""
    for call in reversed(calls):
        for name, value in modes(call).items():
            if isinstance(value, jax.ShapeDtypeStruct):
                kind, names = type(call.owner).__name__, list(call.signature.parameters)
                place = names.index(name) + 1 if name in names else 2
                return (
                    f"nn.remat or nn.jit makes an array of the argument {name} of {kind}: hand it over by place and "
                    f"make it static, nn.remat({kind}, static_argnums=({place},)), or the same with nn.jit."
                )
    for name in re.findall(r"the value of the argument (\w+)", str(error)):
        if name in TRAINS:
            return f"nnx.jit or the like makes an array of the argument {name}: give it static_argnames=({name!r},)."
    return None


def _first_line(error: Exception) -> str:
    return str(error).split(" (https")[0].split("\n")[0]


def _label(path: str) -> str:
    return repr(path) if path else "the module itself"
