#!/usr/bin/env bash
# Makes .bench/, where TRL lives apart from heed's own environment:
#   .bench/venv      TRL 1.16.0 with the same torch and transformers as .venv
#   .bench/trl-1.12  TRL 1.12.0 alone, the last version that has PPO; goes first on PYTHONPATH for it
# Nothing is done twice: a folder that is already whole is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3.11}
HEED_PYTHON=${HEED_PYTHON:-.venv/bin/python}
TRL=1.16.0
TRL_WITH_PPO=1.12.0

version_in_use() { "$HEED_PYTHON" -c "from importlib.metadata import version as v; print(v('$1').split('+')[0])"; }
TORCH=$(version_in_use torch)
TRANSFORMERS=$(version_in_use transformers)

mkdir -p .bench
complete=.bench/venv/complete-$TORCH-$TRANSFORMERS-$TRL
if [ ! -f "$complete" ]; then
    [ -x .bench/venv/bin/python ] || "$PYTHON" -m venv .bench/venv
    # torch first: TRL's own requirement would be met by any build of it.
    .bench/venv/bin/pip install --quiet "torch==$TORCH"
    .bench/venv/bin/pip install --quiet "transformers==$TRANSFORMERS" "trl==$TRL"
    touch "$complete"
fi
if [ ! -f .bench/trl-1.12/complete ]; then
    rm -rf .bench/trl-1.12
    .bench/venv/bin/pip install --quiet --no-deps --target .bench/trl-1.12 "trl==$TRL_WITH_PPO"
    touch .bench/trl-1.12/complete
fi
