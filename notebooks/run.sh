#!/bin/sh
# Executes all notebooks on a study: notebooks/run.sh STUDY [OUT]
# The sources are the numbered .py files (jupytext, percent format); OUT receives the executed .ipynb (default
# STUDY/notebooks) and what they share, so that they can be opened and run again there.
# Python packages go into a virtual environment in the cache directory, never into the system.
set -eu

if [ $# -lt 1 ] || [ ! -f "$1/study.json" ]; then
    echo "usage: notebooks/run.sh STUDY [OUT]   (STUDY: a directory with study.json and analysis.json)" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
REGAUGE_STUDY=$(cd "$1" && pwd)
export REGAUGE_STUDY
out=${2:-$REGAUGE_STUDY/notebooks}
mkdir -p "$out"
out=$(cd "$out" && pwd)

venv=${XDG_CACHE_HOME:-$HOME/.cache}/regauge/venv
# The stamp holds the requirements that the environment was built from, so that a change rebuilds it.
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi

# The environment's own kernel, whatever kernels the user has registered under the same name.
PATH=$venv/bin:$PATH
export PATH
export JUPYTER_PATH="$venv/share/jupyter"
# Beside the sources it stays in lib/, where the notebooks look too.
[ "$out" = "$here" ] || cp "$here/lib/regauge_study.py" "$out/"
PYTHONPATH=$here/lib${PYTHONPATH:+:$PYTHONPATH}
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
for source in "$here"/[0-9]*.py; do
    name=$(basename "$source" .py)
    jupytext --quiet --to ipynb --output "$out/$name.ipynb" "$source"
    jupyter nbconvert --log-level=WARN --to notebook --inplace --execute "$out/$name.ipynb"
    echo "$out/$name.ipynb"
done
