#!/bin/sh
# Makes a virtual environment from Python 3.11 or 3.12 and installs exactly what constraints.txt pins.
# Usage: deploy/venv.sh FOLDER, in the repository's root. Environment: PYTHON (the interpreter to take; else one is found),
# TORCH_INDEX (a package index to take PyTorch from; else pip's own). Safe to run again: what is there already stays.
set -eu

folder=$1
is_accepted='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'

refuse() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Prints the first interpreter of an accepted version that can make environments.
find_python() {
    old=
    bare=
    for name in ${PYTHON:-python3 python3.12 python3.11}; do
        if "$name" -c "$is_accepted" 2>/dev/null; then
            if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$name"
                return
            fi
            bare=$name
        elif version=$("$name" --version 2>/dev/null); then
            old="$old $name is $version."
        fi
    done
    if [ -n "$bare" ]; then
        refuse "$bare cannot make virtual environments: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)."
    fi
    refuse "Stepfarm needs Python 3.11 or 3.12.${old:- None was found.}" \
        "Install one of them, or name it: make PYTHON=/path/to/python3.12"
}

if ! "$folder/bin/python" -c "$is_accepted" 2>/dev/null; then
    python=$(find_python)
    echo "Making $folder from $("$python" --version)."
    "$python" -m venv --clear "$folder"
fi

pip() {
    "$folder/bin/python" -m pip --disable-pip-version-check "$@"
}

pin() {
    grep "^$1==" constraints.txt
}

echo "Installing what constraints.txt pins. The first time takes some minutes; PyTorch is the largest part."
if [ -z "${TORCH_INDEX:-}" ] && [ ! -e /proc/driver/nvidia/version ]; then
    echo "(No NVIDIA card here. Should CUDA be downloaded all the same, the README says how to choose PyTorch's CPU build.)"
fi
pip install --quiet "$(pin pip)"
if [ -n "${TORCH_INDEX:-}" ]; then
    pip install --no-deps --index-url "$TORCH_INDEX" "$(pin torch)"
fi
pip show --quiet torch 2>/dev/null || pip install --constraint constraints.txt "$(pin torch)"
echo "Installing the other packages."
pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --group dev --editable '.[worker]'
pip check
