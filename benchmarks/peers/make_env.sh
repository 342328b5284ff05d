#!/usr/bin/env bash
# Make the environment of a peer: make_env.sh NAME [FOLDER], NAME one of recbole, warprec, cornac, geometric; FOLDER/NAME, FOLDER being .env
# beside this script where not given. PYTHON: the interpreter (python3.12 for warprec, python3.11 else). PIP_ARGS: options of the
# installation of torch, such as one that names a wheel index of yours.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=${1:-}
requirements=$here/requirements-$name.txt
if [[ -z $name || ! -f $requirements ]]; then
    echo "usage: make_env.sh recbole|warprec|cornac|geometric [FOLDER]" >&2
    exit 2
fi
target=${2:-$here/.env}/$name
case $name in
    warprec) python=${PYTHON:-python3.12} ;;
    *) python=${PYTHON:-python3.11} ;;
esac
"$python" -m venv "$target"
# shellcheck disable=SC2086  # several options
"$target/bin/python" -m pip --disable-pip-version-check install --quiet ${PIP_ARGS:-} "$(sed -n 's/^torch==.*/&/p' "$requirements")"
"$target/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r "$requirements"
echo "$target: $("$target/bin/python" -m pip list --format=freeze | grep -i "^$name==")"
