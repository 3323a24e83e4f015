# Sourced by the other scripts: `setup EXTRAS` makes .venv (or uses the active virtual environment), installs the checkout
# with the named extras into it, and sets $python to its interpreter. Runs once, and again when the requirements change.

find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is needed: sudo apt-get install python3 python3-venv" >&2
  return 1
}

make_venv() {
  local base
  base=$(find_python)
  if "$base" -c 'import ensurepip, venv' 2>/dev/null; then
    "$base" -m venv .venv
  elif "$base" -c 'import venv, pip; raise SystemExit(int(pip.__version__.split(".")[0]) < 23)' 2>/dev/null; then
    # Debian's Python without python3-venv, but with a pip that can install into another environment
    "$base" -m venv --without-pip .venv
    "$base" -m pip --python .venv/bin/python install --quiet pip
  elif command -v uv >/dev/null; then
    uv venv --quiet --seed --python "$base" .venv
  else
    echo "This Python can't make virtual environments: sudo apt-get install python3-venv" >&2
    return 1
  fi
}

setup() {
  local extras=${1:-} stamp wanted log
  if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    python=$VIRTUAL_ENV/bin/python
  else
    if [ ! -x .venv/bin/python ]; then
      echo "setting up .venv"
      rm -rf .venv
      make_venv || { rm -rf .venv; return 1; }
    fi
    python=$PWD/.venv/bin/python
  fi
  stamp=$(dirname "$(dirname "$python")")/streamer-setup
  wanted=$(cat pyproject.toml setup.py | cksum | tr ' ' -)
  case $(cat "$stamp" 2>/dev/null) in
    "$PWD $wanted $extras" | "$PWD $wanted train,dev") return ;; # everything serves for the daemon alone, too
  esac
  log=$(mktemp)
  echo "installing streamer${extras:+ [$extras]} and what it needs (once; minutes the first time)"
  if "$python" -m pip install --no-input --disable-pip-version-check --progress-bar off -e ".${extras:+[$extras]}" 2>&1 |
    tee "$log" | sed -un 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p; s/^Installing collected.*/  .../p'
    [ "${PIPESTATUS[0]}" -ne 0 ]; then
    echo "the installation failed:" >&2
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  echo "$PWD $wanted $extras" >"$stamp"
}
