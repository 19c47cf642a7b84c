#!/bin/sh
# Everything that has to hold: style, types, who imports whom, tests. Installs what it needs into .venv first.
set -eu
cd "$(dirname "$0")/.."
extras="image dev"
. scripts/env.sh
export OMP_NUM_THREADS=1
echo "== ruff" && ruff check .
echo "== mypy" && mypy
echo "== import-linter" && lint-imports
echo "== pytest" && pytest "$@"
