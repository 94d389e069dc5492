# shellcheck shell=bash
# What a fresh Debian 12 lacks for building and for the demo, and how it gets there.
# Says what it installs and why; silent when nothing is missing. No service is started by it.

# One line for each purpose, so that the reader learns why a package is there.
declare -A install_why=(
    [build]="the C side of the build: DPDK, ipsec-mb, bindgen's parser for their headers, and what etcd's client is made from"
    [network]="the demo's network: namespaces, address translation, captures"
    [peers]="the demo's clients: Debian trees with two strongSwan releases"
    [service]="the demo's web server, and the coupling facility of its cluster"
    [forging]="altering captured packets, and searching captures for keys"
    [vm]="a client whose kernel has ESP, emulated"
    [tools]="reading JSON, fetching, checking the scripts, sending captured packets again"
)
declare -A install_packages=(
    [build]="build-essential pkg-config git ca-certificates libdpdk-dev libipsec-mb-dev libclang-dev protobuf-compiler libprotobuf-dev"
    [network]="iproute2 nftables ethtool tcpdump procps"
    [peers]="debootstrap"
    [service]="busybox etcd-server etcd-client"
    [forging]="python3"
    [vm]="qemu-system-x86"
    [tools]="curl jq shellcheck tcpreplay"
)
# What every script needs; who needs more adds it.
install_order=(build network peers service tools)
rust_packages=(cargo-web rustc-web rust-web-clippy rustfmt-web)
rust_oldest=1.91

# missing_of PACKAGE… — those that dpkg does not have installed.
missing_of() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || echo "$package"
    done
}

# rust_is_recent — true when cargo, clippy and rustfmt stand and are new enough.
rust_is_recent() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [[ -n $version ]] || return 1
    [[ $(printf '%s\n' "$rust_oldest" "$version" | sort -V | head -n 1) == "$rust_oldest" ]]
}
rust_is_whole() { cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; }

# rust_find — a toolchain of the user's own comes first; non-login shells do not have it on their PATH.
rust_find() {
    local own=${CARGO_HOME:-$HOME/.cargo}/bin
    rust_is_recent && return
    if [[ -x $own/cargo ]]; then export PATH=$own:$PATH; fi
    rust_is_recent
}

# apt_install PACKAGE… — with Debian's hook for "start nothing" in place while it runs.
apt_install() (
    log=$(mktemp) hook=/usr/sbin/policy-rc.d ours='' status=0
    # One at a time, whatever clone it comes from: the first to end takes the hook away.
    exec {lock}</usr/bin/apt-get
    flock "$lock"
    trap 'rm -f "$log"; if [[ -n $ours ]]; then as_root rm -f "$hook"; fi' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [[ ! -e $hook ]]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$hook" >/dev/null
        as_root chmod 755 "$hook"
    fi
    quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    {
        # A source of somebody else that does not answer is no reason to stop; what is missing then shows below.
        as_root "${quiet[@]}" update || true
        # The keyring's newest edition knows the keys of the releases after this one, for the clients' trees.
        as_root "${quiet[@]}" install --no-install-recommends debian-archive-keyring "$@"
    } >"$log" 2>&1 || status=$?
    if ((status)); then
        tail -n 30 "$log" >&2
        die "apt-get could not install: $* (its last lines stand above)"
    fi
)

# install_missing — everything; returns with cargo on the PATH.
install_missing() {
    local purpose missing wanted=()
    if ! command -v dpkg-query >/dev/null; then die "this is not Debian: the scripts install Debian packages"; fi
    for purpose in "${install_order[@]}"; do
        # shellcheck disable=SC2086  # the list is words on purpose
        missing=$(missing_of ${install_packages[$purpose]} | tr '\n' ' ')
        [[ -z $missing ]] && continue
        say "missing: ${missing% } (${install_why[$purpose]})"
        # shellcheck disable=SC2206
        wanted+=($missing)
    done
    if ! rust_find; then
        say "missing: Rust $rust_oldest or newer (Debian's security suite has one: ${rust_packages[*]})"
        wanted+=("${rust_packages[@]}")
    elif ! rust_is_whole; then
        if command -v rustup >/dev/null; then
            say "adding clippy and rustfmt to the Rust toolchain"
            rustup -q component add clippy rustfmt
        else
            say "missing: clippy and rustfmt beside cargo $(cargo --version | cut -d' ' -f2)"
            wanted+=("${rust_packages[@]}")
        fi
    fi
    if ((${#wanted[@]})); then
        say "installing with apt-get; this takes a minute or two"
        apt_install "${wanted[@]}"
        hash -r
        if ! rust_is_recent || ! rust_is_whole; then
            die "cargo is still older than $rust_oldest or lacks clippy or rustfmt: $(command -v cargo)"
        fi
    fi
    promtool_ready
}
