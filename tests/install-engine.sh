#!/bin/sh
# Gets what the engine tests need (a Docker engine, a registry, a static busybox) where it is missing and apt can
# provide it. Never starts a service: the tests start their own engine. Exit status 0 even where nothing could be
# done, as the tests say themselves why they skip.
set -u

missing=""
need() { # need COMMAND PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need dockerd docker.io
need docker-registry docker-registry
need iptables iptables
need ip iproute2
# A dynamically linked busybox would find no libraries in an image that holds nothing else.
if ! busybox true 2>/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
    missing="$missing busybox-static"
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "engine tests need:$missing (install them as root; without them these tests are skipped)" >&2
    exit 0
fi

# Packages that start their service on installation would start a second engine and a registry on port 5000.
policy=/usr/sbin/policy-rc.d
made_policy=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of packages
{ apt-get install -y --no-install-recommends $missing || { apt-get update && apt-get install -y --no-install-recommends $missing; }; } >&2 ||
    echo "could not install:$missing; the engine tests will be skipped" >&2
exit 0
