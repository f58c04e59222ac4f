#!/bin/sh
# Makes a virtual environment with Python 3.11 to 3.14, installs the packages of deploy/lock by their hashes, and PyTorch.
# Usage: deploy/venv.sh FOLDER, in the repository's root. Environment: PYTHON (the interpreter; unset: one is found),
# TORCH_INDEX (see deploy/pytorch.py). Safe to run again: installed packages stay.
set -eu

folder=$1
is_accepted='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
package='import sys; print("python%d.%d-venv" % sys.version_info[:2])'

refuse() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Prints the first interpreter of an accepted version that can make environments.
find_python() {
    old=
    bare=
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c "$is_accepted" 2>/dev/null; then
            if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$name"
                return
            fi
            bare=${bare:-$name}
        elif version=$("$name" --version 2>/dev/null); then
            old="$old $name is $version."
        fi
    done
    if [ -n "$bare" ]; then
        refuse "$bare cannot make virtual environments: a package of Debian's and Ubuntu's is missing." \
            "sudo apt-get install $("$bare" -c "$package")"
    fi
    refuse "Stepfarm needs Python 3.11, 3.12, 3.13 or 3.14.${old:- None was found.}" \
        "Install one of them, or name it: make PYTHON=/path/to/python3.14"
}

if ! "$folder/bin/python" -c "$is_accepted" 2>/dev/null; then
    python=$(find_python)
    echo "Making $folder from $("$python" --version)."
    "$python" -m venv --clear "$folder"
fi

pip() {
    "$folder/bin/python" -m pip --disable-pip-version-check "$@"
}

echo "Installing the packages of deploy/lock: about 150 packages, 420 MB to download. The first time takes some minutes."
export PIP_COMPILE=0 # it would use one processor; compileall below uses all
for part in build api oidc worker dev; do
    pip install --quiet --no-deps --require-hashes --requirement "deploy/lock/$part.txt"
done
"$folder/bin/python" deploy/pytorch.py
pip install --quiet --no-deps --no-build-isolation --editable .
"$folder/bin/python" -m compileall -qq -j 0 "$folder/lib" || : # templates that are not Python are left out
"$folder/bin/python" deploy/check.py
