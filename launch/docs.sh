#!/usr/bin/env bash
# Makes an environment in .venv-docs and builds the documentation into build/docs; warnings are errors.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
python=$(find_python 11 ${PYTHON:-} python3 python3.13 python3.12 python3.11 python) || {
  echo "error: no Python 3.11 or later with venv was found; install one, or name it: PYTHON=/path/to/python bash $0" >&2
  exit 2
}
environment .venv-docs "$python" "[docs]"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} PATH="$PWD/.venv-docs/bin:$PATH"
python -m sphinx -W --keep-going -c docs . build/docs
echo "wrote build/docs/docs/index.html"
