#!/bin/bash
# boot.sh ROOT v1|v2: systemd as PID 1 on a copy-on-write view of ROOT, in namespaces and control groups of its own, with the
# control groups mounted as on a machine of that kind. Ends with whoever started it, and leaves nothing but empty groups.
set -euo pipefail
export root=$1 layout=$2
here=$(cd "$(dirname "$0")" && pwd)
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    group=$hierarchy/boreas-machine-$$
    mkdir "$group"
    if [ -e "$group/cpuset.mems" ] && [ -e "$hierarchy/tasks" ]; then
        cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
    fi
    echo $$ >"$group/cgroup.procs"
done
exec setpriv --pdeathsig KILL unshare --cgroup --pid --mount --net --uts --ipc --fork --kill-child "$here/boot-inside.sh"
