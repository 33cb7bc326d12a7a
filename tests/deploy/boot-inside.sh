#!/bin/bash
# The part of boot.sh that runs in the namespaces.
set -euo pipefail
mount --make-rprivate /
work=/run/boreas-machine
mkdir -p "$work" && mount -t tmpfs -o mode=700 tmpfs "$work" && mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
if [ "$layout" = v2 ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    while read -r name _ _ enabled; do
        [ "$enabled" = 1 ] && mkdir "sys/fs/cgroup/$name" && { mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name" 2>/dev/null || rmdir "sys/fs/cgroup/$name"; }
    done <proc/cgroups
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
fi
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do cp -a "/dev/$node" dev/; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=boreas-test PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --log-target=console --show-status=no systemd.unit=multi-user.target </dev/null
