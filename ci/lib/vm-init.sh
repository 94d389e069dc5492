#!/bin/bash
# The first process of the virtual machine, whose root is the memory that it was loaded into. It makes the kernel ready
# for IPsec and then does what it is asked, one line after the other, over the second serial port:
#
#   asked: NUMBER BASE64(SHELL COMMANDS)      answered: NUMBER STATUS BASE64(WHAT THEY PRINTED)
#
# The first serial port is the console. Nothing here outlives the machine, and the machine not the process that runs it.
set -u
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
# The kernel itself asks for modules by this path.
[[ -e /sbin/modprobe ]] || ln -s /usr/bin/busybox /sbin/modprobe
for module in virtio_pci virtio_net aesni_intel ghash_clmulni_intel gcm seqiv esp4 xfrm_user; do
    busybox modprobe "$module" || echo "the kernel has no module $module"
done
ip link set lo up

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo "0 0 " >&3
while read -r -u 3 number asked; do
    (cd / && exec 3>&- && bash -c "$(base64 -d <<<"$asked")") >/tmp/said 2>&1 </dev/null
    printf '%s %s %s\n' "$number" "$?" "$(base64 -w 0 /tmp/said)" >&3
done
