#!/bin/sh
# Everything that has to hold: style, types, who imports whom, tests. Installs what it needs into .venv first.
set -eu
cd "$(dirname "$0")/.."
extras="image rl asr sr teacher dev"
. scripts/env.sh
export OMP_NUM_THREADS=1
echo "== ruff" && ruff check .
echo "== mypy" && mypy
echo "== import-linter" && lint-imports
workers=
python -c "import xdist" 2>/dev/null && workers="-n auto --dist loadscope" # a module stays with one of them
echo "== pytest" && pytest $workers "$@"
