# Sourced by ./run and ./test: one virtual environment in .venv, made once, made anew when pyproject.toml changes.
#
#   PYTHON=/usr/bin/python3.12 ./run   chooses the interpreter (3.11, 3.12 or 3.13)
#   wheelhouse/                        if this folder exists, packages are taken from it and nothing is downloaded

NEEDED_MEGABYTES=9000
# The newest pair that was tested together; torchvision binds to exactly one torch.
TORCH="torch==2.14.1 torchvision==0.29.1"

fail() {
    echo "clearfilm: $*" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed (Debian, Ubuntu: apt install python3 python3-venv); name another one with PYTHON="
}

check_disk() {
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$NEEDED_MEGABYTES" ] ||
        fail "$free MB are free here, the environment needs $NEEDED_MEGABYTES MB (PyTorch alone takes 5600 MB)"
}

make_environment() {
    stamp=$(cksum pyproject.toml environment.sh | cksum)
    if [ -f .venv/stamp ] && [ "$(cat .venv/stamp)" = "$stamp" ]; then
        return
    fi
    python=$(find_python)
    [ -d .venv ] || check_disk
    echo "making the environment in .venv (once; some minutes and 6 GB)" >&2
    if ! [ -x .venv/bin/pip ]; then
        "$python" -m venv .venv || fail "python3-venv is missing (Debian, Ubuntu: apt install python3-venv)"
    fi
    offline=""
    [ -d wheelhouse ] && offline="--no-index --find-links wheelhouse"
    # shellcheck disable=SC2086 # lists of words
    {
        .venv/bin/pip install --quiet --disable-pip-version-check $offline $TORCH &&
            .venv/bin/pip install --quiet --disable-pip-version-check $offline -e '.[worker,reference-model,test]'
    } || fail "the packages could not be installed; the reason stands above"
    echo "$stamp" > .venv/stamp
}
