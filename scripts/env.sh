# Sourced by the recipes and the tests: puts nas-apps on the path, installing it into .venv when it is not there.
#   . scripts/env.sh EXTRA...      from the project's root; EXTRA: image, rl, asr, sr, dev, all
# A user's own environment, in which nas-apps is on the path already, is left alone.
if [ -x .venv/bin/nas-apps ] && [ -e ".venv/.extras-$(echo "$*" | tr ' ' '-')" ]; then
  PATH="$PWD/.venv/bin:$PATH"
elif [ ! -d .venv ] && command -v nas-apps >/dev/null 2>&1; then
  :
else
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    { echo "nas_apps: needs Python 3.10 to 3.13, and $python is $("$python" -V 2>&1); set PYTHON=..." >&2; exit 2; }
  echo "installing nas_apps into .venv (once)" >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv ||
    { echo "nas_apps: $python cannot make a virtual environment; install its venv module" >&2; exit 2; }
  if command -v uv >/dev/null 2>&1; then uv=uv; else
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
      { echo "nas_apps: pip could not install uv into .venv" >&2; exit 2; }
    uv=.venv/bin/uv
  fi
  # --inexact: leaves uv, and the extras that another recipe installed, where they are
  set -- $(for extra in "$@"; do echo "--extra $extra"; done)
  "$uv" sync --quiet --inexact "$@" || { echo "nas_apps: the installation failed; its messages are above" >&2; exit 2; }
  touch ".venv/.extras-$(echo "$*" | sed 's/--extra //g' | tr ' ' '-')"
  PATH="$PWD/.venv/bin:$PATH"
fi
export PATH
