"""Programs of `experiments` as a user starts them; `train` where none is named."""

from functools import partial

from ..commands import command as any_command

command = partial(any_command, program="experiments.train")
