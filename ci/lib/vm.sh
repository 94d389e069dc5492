# shellcheck shell=bash
# A virtual machine in a node: Debian's own kernel, with ESP, and the programs of a client's Debian tree. It is emulated
# instruction by instruction, so that it runs where no hardware helps; tens of Mbit/s are what to expect of it.

vm_suite=trixie
# Of the kernel's modules: what makes ESP, and the network card that QEMU has.
vm_modules=(arch/x86/crypto crypto lib drivers/virtio drivers/net/virtio_net.ko drivers/net/net_failover.ko net/core net/xfrm
    net/ipv4/esp4.ko)
# Of the client's tree, what no client needs: half of it.
vm_without=(./usr/share ./var/lib/dpkg ./usr/lib/x86_64-linux-gnu/gconv ./usr/lib/x86_64-linux-gnu/perl-base)
vm_memory_mb=512

# vm_image — where kernel and initramfs are kept, under a name made from all that went into them.
vm_image() {
    local stamp
    stamp=$({
        printf '%s\n' "$(chroot_path "$vm_suite")" "${vm_modules[@]}" "${vm_without[@]}"
        declare -f vm_image_make vm_kernel_get
        cat "$PHALANX_LIB/vm-init.sh"
    } | sha256sum | cut -c1-12)
    printf '%s/vm-%s' "$PHALANX_CACHE" "$stamp"
}

# vm_ready — makes the image if it does not stand; the client trees must. As root.
vm_ready() {
    local image fresh
    image=$(vm_image)
    touch -c "$image"
    if [[ -d $image ]]; then return; fi
    say "making the virtual machine's kernel and initramfs, once; they stay in $PHALANX_CACHE"
    need_room "$PHALANX_CACHE" 400 "the virtual machine's image"
    fresh=$(mktemp -d "$PHALANX_CACHE/.vm.making.XXXXXX")
    # In a shell of its own, so that the first command that fails ends it.
    vm_image_make "$fresh" &
    if ! wait $!; then
        rm -rf "$fresh"
        die "the virtual machine's image could not be made"
    fi
    rm -rf "$fresh/work"
    mv -T "$fresh" "$image" 2>/dev/null || rm -rf "$fresh"
    chroot_forget
}

# vm_kernel_get DIRECTORY — Debian's kernel for clouds, unpacked there and installed nowhere.
vm_kernel_get() (
    cd "$1"
    meta=linux-image-cloud-amd64
    # The name of the package that has the kernel in it tells the version; the other one only follows it.
    named() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1; }
    package=$(named)
    if [[ -z $package ]]; then
        apt-get -q -o DPkg::Lock::Timeout=600 update >/dev/null
        package=$(named)
    fi
    [[ -n $package ]] || die "apt knows no $meta: is this Debian on amd64?"
    apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null
    dpkg-deb -x "$package"_*.deb kernel
)

# vm_image_make DIRECTORY — DIRECTORY/vmlinuz and DIRECTORY/initramfs.
vm_image_make() (
    work=$1/work
    mkdir -p "$work/root/usr/bin" "$work/root/node"
    vm_kernel_get "$work"
    version=$(ls "$work/kernel/lib/modules")
    cp "$work/kernel/boot/vmlinuz-$version" "$1/vmlinuz"
    modules=$work/root/usr/lib/modules/$version
    mkdir -p "$modules/kernel"
    cp "$work/kernel/lib/modules/$version"/modules.{builtin,order} "$modules/"
    (cd "$work/kernel/lib/modules/$version/kernel" && find "${vm_modules[@]}" -name '*.ko*' -exec cp --parents -t "$modules/kernel" {} +)
    # depmod looks below lib; in the machine that is the tree's own link.
    ln -s usr/lib "$work/root/lib"
    busybox depmod -b "$work/root" "$version"
    rm "$work/root/lib"
    cp /bin/busybox "$work/root/usr/bin/busybox"
    install -m 755 "$PHALANX_LIB/vm-init.sh" "$work/root/init"
    # The kernel unpacks one archive after the other.
    without=()
    for path in "${vm_without[@]}"; do without+=(-path "$path" -prune -o); done
    {
        (cd "$(chroot_path "$vm_suite")" && find . "${without[@]}" -print | busybox cpio -o -H newc)
        (cd "$work/root" && find . | busybox cpio -o -H newc)
    } >"$1/initramfs" 2>"$work/cpio.log"
)

# vm_start NODE TAP — the machine, its network card at the node's interface TAP; true when it answers.
vm_start() {
    local node=$1 tap=$2 dir image
    dir=$(node_dir "$node")
    image=$(vm_image)
    mkfifo "$dir/agent.in" "$dir/agent.out"
    node_spawn "$node" qemu qemu-system-x86_64 -accel tcg -cpu max -m "$vm_memory_mb" -nodefaults -no-user-config -display none \
        -no-reboot -kernel "$image/vmlinuz" -initrd "$image/initramfs" -append 'console=ttyS0 quiet panic=-1' \
        -serial "file:$dir/console.log" -chardev "pipe,id=agent,path=$dir/agent" -serial chardev:agent \
        -netdev "tap,id=net,ifname=$tap,script=no,downscript=no" \
        -device virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off
    if ! vm_answer "$node" 90 0 >/dev/null; then
        tail -n 20 "$dir/console.log" "$dir/qemu.log" >&2
        die "the virtual machine did not start (the ends of its console and of QEMU's log stand above)"
    fi
}

# vm_exec NODE SECONDS COMMANDS — what they print, and their exit status; 124 if there is no answer in time.
vm_exec() {
    # What was given up before may still answer.
    local number=${EPOCHREALTIME//[!0-9]/}
    printf '%s %s\n' "$number" "$(base64 -w 0 <<<"$3")" >"$(node_dir "$1")/agent.in"
    vm_answer "$1" "$2" "$number"
}

# vm_answer NODE SECONDS NUMBER — the answer to what was asked under this number.
vm_answer() {
    local number status said from
    exec {from}<>"$(node_dir "$1")/agent.out"
    until [[ ${number:-} == "$3" ]]; do
        if ! read -r -t "$2" -u "$from" number status said; then
            exec {from}>&-
            warn "the virtual machine did not answer within $2 s"
            return 124
        fi
    done
    exec {from}>&-
    base64 -d <<<"$said"
    return "$status"
}

# vm_put NODE FILE PATH — FILE as PATH in the machine; small ones.
vm_put() { vm_exec "$1" 10 "base64 -d >$3 <<<'$(base64 -w 0 "$2")'"; }
