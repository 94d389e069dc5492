#!/usr/bin/env bash
# The first process of a node, alone in fresh network, mount, process and host-name namespaces: it arranges the
# node's files and then stays, so that the node lives exactly as long as it does. When it ends, the kernel ends
# every process of the node and drops every mount: nothing is left to clean by name.
#   node-init.sh NAME TREE STATE — TREE is "/" for a node that runs the machine's own programs, else a Debian
#   tree that is shown read-only. STATE is the node's own directory, seen as /node in a tree.
set -euo pipefail
name=$1 tree=$2 state=$3

hostname "$name"
if [[ $tree != / ]]; then
    mount --bind "$tree" "$tree"
    mount -o remount,bind,ro "$tree"
    mount --bind "$state" "$tree/node"
    mount --rbind /dev "$tree/dev"
fi
root=${tree%/}
mount -t proc proc "$root/proc"
if [[ -n $root ]]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    cd "$root"
    pivot_root . mnt
    exec chroot . /bin/bash -c 'umount -l /mnt; : >/node/ready; while :; do sleep infinity & wait; done'
fi
# A /run of the node's own, so that two nodes may use the same socket path.
mount -t tmpfs -o mode=755 tmpfs /run
: >"$state/ready"
# Not `exec sleep`: the first process also has to collect the processes that lost their parent; a shell does.
while :; do
    sleep infinity &
    wait
done
