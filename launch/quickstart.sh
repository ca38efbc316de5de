#!/usr/bin/env bash
# Makes an environment in .venv and trains Associated Learning on handwritten digits, through a four-stage pipeline
# over virtual CPU devices, and makes a page of the run.  Arguments are passed on to the program: bash launch/quickstart.sh --stages=2
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
python=$(find_python 11 ${PYTHON:-} python3 python3.13 python3.12 python3.11 python) || {
  echo "error: no Python 3.11 or later with venv was found; install one, or name it: PYTHON=/path/to/python bash $0" >&2
  exit 2
}
environment .venv "$python" ""
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
exec .venv/bin/python -m experiments.train --method=al --profile=iclr_head --net=mlp --dataset=digits --stages=4 \
  --epochs=40 --learning_rate=3e-3 --workdir=runs/quickstart --report "$@"
