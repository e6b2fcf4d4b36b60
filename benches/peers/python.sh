# For `run` and `scale` to source, in the repository's root: the Python that the peers run in, with versions pinned.

# peers_python FOLDER PACKAGE... sets `python` to an interpreter that has the packages: PEERS_PYTHON, to which nothing
# is added, or that of the environment in FOLDER, where they are installed.
peers_python() {
    local folder=$1
    shift
    # no __pycache__ beside the scripts
    export PYTHONDONTWRITEBYTECODE=1
    if [[ -n ${PEERS_PYTHON:-} ]]; then
        python=$PEERS_PYTHON
        return
    fi
    python=$folder/bin/python
    # run even where the folder exists: an earlier run may have been interrupted
    python3 -m venv "$folder"
    # a build of llama-cpp-python takes some 20 minutes on 2 CPUs
    "$python" -m pip install --quiet --disable-pip-version-check "$@"
}
