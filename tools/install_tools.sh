#!/bin/sh
# Installs the compilers and emulators of tools/packages.txt, as far as they are missing (Debian and Ubuntu).
#
#     sudo sh tools/install_tools.sh

set -eu
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

known() {
    [ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n '/Candidate: (none)/d; /Candidate:/p')" ]
}

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "tools/install_tools.sh: needs root on Debian or Ubuntu; elsewhere install what tools/packages.txt names" >&2
    exit 2
fi

missing=
updated=no
for package in $(sed 's/#.*//; s/^[^ ]* *//' packages.txt); do
    installed "$package" && continue
    if ! known "$package" && [ "$updated" = no ]; then
        apt-get update --quiet=2
        updated=yes
    fi
    if known "$package"; then
        missing="$missing $package"
    else
        echo "tools/install_tools.sh: this release has no package $package; going on without it" >&2
    fi
done

if [ -z "$missing" ]; then
    exit 0
fi

install() {
    # shellcheck disable=SC2086 # a list of words
    apt-get install --quiet=2 --yes --no-install-recommends $missing >"$log" 2>&1
}

echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install; then
    apt-get update --quiet=2 # the lists may name versions that the archive no longer has
    if ! install; then
        cat "$log" >&2
        exit 1
    fi
fi
