# shellcheck shell=bash
# Small Debian trees that hold the peers: other releases' strongSwan, run beside the machine's own packages.
# A tree stands under a name made from everything that went into it, so a changed list makes a new tree, and a
# rename makes it appear whole or not at all. Once made, a tree is only read: what a node writes goes elsewhere.

chroot_suites=(trixie bookworm)
# charon-systemd is the plain daemon that swanctl configures; it needs no systemd to run.
# kernel-libipsec, ESP in user space, comes with libcharon-extra-plugins.
chroot_packages=(
    charon-systemd strongswan-swanctl libstrongswan-standard-plugins libcharon-extra-plugins
    curl iproute2 iputils-ping procps tcpdump
)

# chroot_path SUITE
chroot_path() {
    local stamp
    stamp=$({ printf '%s\n' "$1" "${chroot_packages[@]}"; declare -f chroot_finish; } | sha256sum | cut -c1-12)
    printf '%s/%s-%s' "$PHALANX_CACHE" "$1" "$stamp"
}

# debian_mirror — the archive this machine itself installs from.
debian_mirror() {
    local codename mirror
    if [[ -n ${PHALANX_MIRROR:-} ]]; then
        printf '%s' "$PHALANX_MIRROR"
        return
    fi
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mirror=$(mirror_from_apt "$codename")
    if [[ -z $mirror ]]; then
        # Images often come without package lists, and apt then does not know whose archive is whose.
        as_root apt-get -q -o DPkg::Lock::Timeout=600 update >/dev/null 2>&1 || true
        mirror=$(mirror_from_apt "$codename")
    fi
    [[ -n $mirror ]] || die "apt names no Debian archive with a http(s) address; set PHALANX_MIRROR to one"
    printf '%s' "$mirror"
}

# mirror_from_apt CODENAME
mirror_from_apt() {
    # shellcheck disable=SC2016  # apt's own placeholders
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v release="$1" '$1 == release && $2 == "main" && $3 ~ /^https?:/ && !found { print $3; found = 1 }'
}

# chroot_finish TREE — what debootstrap leaves out, and what must never start.
chroot_finish() {
    local unit
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$1/etc/hosts"
    for unit in strongswan.service strongswan-starter.service; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    # The node's own directory appears there, so that `swanctl` finds everything without being told.
    mkdir -p "$1/node"
    echo 'include /node/strongswan.conf' >"$1/etc/strongswan.conf"
    echo 'include /node/swanctl.conf' >"$1/etc/swanctl/swanctl.conf"
    rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,man,locale}/*
}

# chroot_make SUITE MIRROR — runs as root; debootstrap's own mounts and processes live and die with its namespaces.
chroot_make() (
    suite=$1 mirror=$2 proxy=''
    tree=$(chroot_path "$suite")
    exec {lock}>"$PHALANX_CACHE/.$suite.lock"
    flock "$lock"
    [[ ! -d $tree ]] || exit 0
    rm -rf "$PHALANX_CACHE/.$suite".making.*
    fresh=$(mktemp -d "$PHALANX_CACHE/.$suite.making.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 143' TERM
    log=$PHALANX_CACHE/$suite.log
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    if ! http_proxy=${proxy:-${http_proxy:-}} unshare --mount --propagation private --pid --fork --kill-child \
        debootstrap --variant=minbase --include="$(IFS=,; echo "${chroot_packages[*]}")" "$suite" "$fresh" "$mirror" \
        >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        [[ -f $fresh/debootstrap/debootstrap.log ]] && tail -n 15 "$fresh/debootstrap/debootstrap.log" >&2
        warn "debootstrap could not make the $suite tree from $mirror (its last lines stand above)"
        exit 1
    fi
    chroot_finish "$fresh"
    chmod 755 "$fresh"
    mv -T "$fresh" "$tree"
    touch "$tree"
    chroot_forget
)

# chroot_forget — removes trees of former recipes that no demo has used for a month.
chroot_forget() {
    find "$PHALANX_CACHE" -mindepth 1 -maxdepth 1 -type d -name '*-????????????' -mtime +30 \
        -exec rm -rf --one-file-system {} +
}

# chroots_ready — makes what is missing, all at once; silent when nothing is.
chroots_ready() {
    local suite cold=() jobs=() job failed='' mirror
    for suite in "${chroot_suites[@]}"; do
        # The touch marks the tree as in use; see chroot_forget.
        touch -c "$(chroot_path "$suite")"
        [[ -d $(chroot_path "$suite") ]] || cold+=("$suite")
    done
    ((${#cold[@]})) || return 0
    mirror=$(debian_mirror)
    need_room "$PHALANX_CACHE" $((${#cold[@]} * 600)) "a client's Debian tree"
    say "making Debian trees for the clients (${cold[*]}), once; they stay in $PHALANX_CACHE"
    mkdir -p "$PHALANX_CACHE"
    for suite in "${cold[@]}"; do
        chroot_make "$suite" "$mirror" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || failed=yes
    done
    [[ -z $failed ]] || die "a client's tree could not be made, and a client that cannot start fails the run"
}
