# Sourced by the recipes and the tests, from the project's root: puts nas-apps on the path, installing it into .venv
# when it is not there.
#   extras="image dev"; . scripts/env.sh        extras: image, rl, asr, sr, dev, all
# A user's own environment, in which nas-apps is on the path already, is left alone.
installed() {
  for extra in $extras; do
    [ -e ".venv/.extras-$extra" ] && [ ! pyproject.toml -nt ".venv/.extras-$extra" ] || return 1
  done
}
if [ -x .venv/bin/nas-apps ] && installed; then
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
  uv=.venv/bin/uv
  if command -v uv >/dev/null 2>&1; then
    uv=uv
  elif [ ! -x "$uv" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
      { echo "nas_apps: pip could not install uv into .venv" >&2; exit 2; }
  fi
  # --inexact leaves uv, and the extras that another recipe installed, where they are
  flags=
  for extra in $extras; do flags="$flags --extra $extra"; done
  env -u VIRTUAL_ENV "$uv" sync --quiet --inexact --python .venv/bin/python $flags ||
    { echo "nas_apps: the installation failed; its messages are above" >&2; exit 2; }
  for extra in $extras; do touch ".venv/.extras-$extra"; done
  PATH="$PWD/.venv/bin:$PATH"
fi
export PATH
