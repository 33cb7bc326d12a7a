#!/bin/sh
# make-base.sh FILE: a small Debian with Python, systemd and an init, as a tar, from the package sources of this machine.
# It stands for a node (run by systemd as PID 1) and for the base of the agent's image (docker import).
set -eu
file=$1
sources=""
for candidate in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -s "$candidate" ] && sources=$candidate && break
done
[ -n "$sources" ] || { echo "there are no Debian package sources on this machine" >&2; exit 1; }
if ! command -v mmdebstrap >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq install -y --no-install-recommends mmdebstrap || { apt-get -qq update && apt-get -qq install -y --no-install-recommends mmdebstrap; }; } >&2
fi
. /etc/os-release
mmdebstrap --quiet --variant=apt --include=python3,python3-venv,tini,systemd,systemd-sysv,dbus,iproute2,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$VERSION_CODENAME" "$file.partial.tar" "$sources"
mv "$file.partial.tar" "$file"
