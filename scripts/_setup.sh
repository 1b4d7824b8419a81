# The set-up that scripts/test, scripts/demo and .ci/run share. Source it, then call `keyspace_setup [extra ...]`.
#
# It makes a virtual environment and installs the project into it, editable, with the extras that were asked for.
# A stamp in the environment remembers what pyproject.toml said; while that holds, a call costs one Python start.
# Only bash and Python are used, so that nothing else has to be on the machine.
#
# Environment:
#   PYTHON         the interpreter to use, instead of the first suitable one on PATH
#   KEYSPACE_VENV  the folder of the virtual environment, instead of .venv in the project's root

case "${BASH_SOURCE[0]}" in
    */*) KEYSPACE_ROOT="$(CDPATH="" cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)" ;;
    *) KEYSPACE_ROOT="$(cd .. && pwd -P)" ;;
esac
KEYSPACE_VENV="${KEYSPACE_VENV:-$KEYSPACE_ROOT/.venv}"
KEYSPACE_PYTHON="$KEYSPACE_VENV/bin/python"

keyspace_step() {
    printf '==> %s\n' "$*"
}

keyspace_fail() {
    printf 'django-keyspace: %s\n' "$*" >&2
    exit 1
}

# Print "3.11" for a Python of that version; fail when the candidate does not run at all.
_keyspace_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

_keyspace_is_new_enough() {
    local major="${1%%.*}" minor="${1#*.}"
    [[ "$major" =~ ^[0-9]+$ && "$minor" =~ ^[0-9]+$ ]] || return 1
    ((major > 3 || (major == 3 && minor >= 11)))
}

# Set `base_python` to a Python of at least 3.11 that can make virtual environments, or end with what to install.
_keyspace_find_python() {
    local candidates=(python3.14 python3.13 python3.12 python3.11 python3)
    local candidate version too_old="" without_venv=""
    if [[ -n "${PYTHON:-}" ]]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        version="$(_keyspace_version "$candidate")" || continue
        if ! _keyspace_is_new_enough "$version"; then
            too_old="$candidate is Python $version"
        elif ! "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            without_venv="${without_venv:-$version}"
        else
            base_python="$candidate"
            return
        fi
    done
    if [[ -n "$without_venv" ]]; then
        keyspace_fail "Python $without_venv is here, but it can't make virtual environments (the venv or ensurepip" \
            "module is missing). Install it, on Debian and Ubuntu: apt install python3-venv" \
            "(or python$without_venv-venv), then run this again."
    fi
    if [[ -n "${PYTHON:-}" && -z "$too_old" ]]; then
        keyspace_fail "PYTHON=$PYTHON does not run. Set it to a Python of at least 3.11, or leave it unset."
    fi
    keyspace_fail "Python 3.11 or newer is needed, and ${too_old:-no Python was found on PATH}. Install one (on Debian" \
        "and Ubuntu: apt install python3 python3-venv; on macOS: brew install python) or set PYTHON to its path," \
        "then run this again."
}

# Set `wanted`: everything that decides whether an installation is still the right one.
_keyspace_describe_wanted() {
    wanted="$("$KEYSPACE_PYTHON" - "$KEYSPACE_ROOT" 2>/dev/null <<'PYTHON_CODE'
import hashlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
if sys.version_info < (3, 11):
    sys.exit(1)
digest = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()
print("%d.%d" % sys.version_info[:2], digest, root)
PYTHON_CODE
)"
}

# True when the environment runs, and runs the version that PYTHON asks for if it is set.
_keyspace_venv_is_usable() {
    [[ -x "$KEYSPACE_PYTHON" ]] && _keyspace_describe_wanted || return 1
    [[ -z "${PYTHON:-}" || "$(_keyspace_version "$PYTHON")" == "${wanted%% *}" ]]
}

_keyspace_make_venv() {
    local base_python=""
    _keyspace_find_python
    if [[ -e "$KEYSPACE_VENV" && ! -e "$KEYSPACE_VENV/pyvenv.cfg" ]]; then
        keyspace_fail "$KEYSPACE_VENV exists and is no virtual environment. Move it away, or set KEYSPACE_VENV."
    fi
    keyspace_step "Making a virtual environment in $KEYSPACE_VENV ($base_python, $("$base_python" --version))"
    "$base_python" -m venv --clear "$KEYSPACE_VENV" ||
        keyspace_fail "The virtual environment could not be made; the lines above say why."
    _keyspace_describe_wanted || keyspace_fail "The new virtual environment in $KEYSPACE_VENV does not run."
}

keyspace_setup() {
    local extras stamp requirement="$KEYSPACE_ROOT" wanted=""
    extras="$(IFS=, && printf '%s' "$*")"
    stamp="$KEYSPACE_VENV/.keyspace-${extras//,/-}"
    [[ -n "$extras" ]] || stamp="$KEYSPACE_VENV/.keyspace-base"
    _keyspace_venv_is_usable || _keyspace_make_venv
    if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
        keyspace_step "Using $KEYSPACE_VENV (up to date)"
        return
    fi
    [[ -z "$extras" ]] || requirement="${requirement}[$extras]"
    keyspace_step "Installing django-keyspace${extras:+ with $extras} (a minute or two when the packages are not cached yet)"
    if ! "$KEYSPACE_PYTHON" -m pip --version >/dev/null 2>&1; then
        "$KEYSPACE_PYTHON" -m ensurepip >/dev/null ||
            keyspace_fail "$KEYSPACE_VENV has no pip. Delete that folder and run this again."
    fi
    "$KEYSPACE_PYTHON" -m pip install --quiet --disable-pip-version-check --editable "$requirement" ||
        keyspace_fail "pip could not install the project; the lines above say why (is the package index reachable?)."
    printf '%s\n' "$wanted" >"$stamp"
    printf '%s\n' "$wanted" >"$KEYSPACE_VENV/.keyspace-base"
}
