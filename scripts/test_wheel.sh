#!/usr/bin/env bash
# Build the sdist, from it the wheel; install the wheel alone, without extras, into a new environment; use it from an empty folder.
# Run by CI; needs .venv with the dev extra (make dev).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/python -m build --outdir "$work/dist" . > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
ls "$work/dist"

"${PYTHON:-python3}" -m venv "$work/venv"
install=("$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet -c "$root/constraints.txt")
"${install[@]}" ${PIP_ARGS:-} "$(grep '^torch==' "$root/constraints.txt")"
"${install[@]}" "$work"/dist/*.whl

mkdir "$work/empty"
cd "$work/empty"
PATH="$work/venv/bin:$PATH"
set -x
metammf --version
python "$root/scripts/bare_import.py"
metammf data generate world --users 200 --items 150 --interactions 3000
metammf data describe world > described.txt
metammf train world --recipe metammf-gcn --set training.epochs=2 --set 'model.hidden_dims=[16]' --out runs/dynamic
metammf train world --recipe ease --out runs/ease
metammf evaluate runs/dynamic --json found.json --per-user users.parquet
metammf recommend runs/dynamic --all-users --out feeds.csv
metammf recommend runs/ease --all-users --out feeds.parquet
metammf embed runs/dynamic world vectors.parquet
metammf explain runs/dynamic --item 1
metammf similar runs/dynamic --item 1 -k 3
metammf runs
metammf recipes > recipes.txt
python "$root/scripts/bare_import.py" found.json feeds.csv feeds.parquet vectors.parquet
for words in "demo" "explain runs/dynamic --item 1 --out picture.svg" "train world --recipe mf --tensorboard --out runs/logged"; do
    status=0
    # shellcheck disable=SC2086
    metammf $words 2> told.txt || status=$?
    grep "pip install 'metammf\[" told.txt
    test "$status" -eq 2
done
