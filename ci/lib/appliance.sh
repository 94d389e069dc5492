# shellcheck shell=bash
# The appliance: built from this tree, started in its node, asked over its command socket.

appliance_config() { printf '%s/phalanx.yaml' "$(node_dir appliance1)"; }

# prepare — what is missing, and the build; once, though scripts call each other.
prepare() {
    [[ -z ${PHALANX_PREPARED:-} ]] || return 0
    install_missing
    note "building the appliance (release); the first time takes some minutes"
    interruptible appliance_build
    good "built $PHALANX_TARGET/release/phalanx"
    export PHALANX_PREPARED=yes
}

# rerun_as_root [ARGUMENT…] — the script itself, for what needs network namespaces; the build stays the caller's.
rerun_as_root() {
    ((EUID == 0)) && return
    command -v sudo >/dev/null || die "needs root, and sudo is not installed: run as root, or apt-get install sudo"
    exec sudo env "PHALANX_STEP=$step_number" "PHALANX_CACHE=$PHALANX_CACHE" "CARGO_TARGET_DIR=$PHALANX_TARGET" \
        ${PHALANX_PREPARED:+"PHALANX_PREPARED=$PHALANX_PREPARED"} ${PHALANX_MIRROR:+"PHALANX_MIRROR=$PHALANX_MIRROR"} "$(realpath "$0")" "$@"
}

# appliance_build — as the user who called, so that root owns nothing in the tree.
appliance_build() { cargo build --release -q --locked --manifest-path "$PHALANX_TOP/Cargo.toml" -p phalanx; }

# appliance_configure — the configuration that is committed, with fresh secrets beside it.
appliance_configure() {
    local dir client
    dir=$(node_dir appliance1)
    install -m 600 "$PHALANX_LIB/templates/appliance.yaml" "$(appliance_config)"
    for client in "$@"; do secret_make "$dir/$client.psk"; done
}

appliance_log() { printf '%s/phalanx.log' "$(node_dir appliance1)"; }

# appliance_start — true when it answers; says why when not.
appliance_start() {
    local deadline=$((SECONDS + 20))
    mkdir -p "$(node_dir appliance1)/state"
    node_exec appliance1 mkdir -p /run/phalanx
    node_spawn appliance1 phalanx phalanx run -c "$(appliance_config)" --state "$(node_dir appliance1)/state"
    until node_exec appliance1 phalanx show ports --json >/dev/null 2>&1; do
        if ((SECONDS >= deadline)) || ! node_runs appliance1 phalanx; then
            tail -n 30 "$(appliance_log)" >&2
            die "the appliance did not start (the end of its log stands above)"
        fi
        sleep 0.2
    done
}

# appliance_show WHAT — sas, drops, balance, connections, ports or cores as JSON.
appliance_show() { node_exec appliance1 phalanx show "$1" --json; }

# appliance_metrics — as Prometheus gets them.
appliance_metrics() { node_exec appliance1 curl -sSf --max-time 5 http://127.0.0.1:9400/metrics; }

# appliance_sas PEER — the SAs of one client in the shape of peer_sas, seen from the other end: the client's "in" is
# the appliance's "out". Bytes are IP packets inside the tunnel here, too.
appliance_sas() { appliance_show sas | jq -c --arg peer "$1.example" "map(select(.peer == \$peer) | $appliance_as_peer)"; }

# appliance_sas_closed PEER — the same of the SAs that have ended: the log holds their last account.
appliance_sas_closed() {
    jq -cR --arg peer "$1.example" "fromjson? | .fields // . | select(.message == \"SA closed\" and .peer == \$peer)
        | $appliance_as_peer" "$(appliance_log)" | jq -cs .
}
appliance_as_peer='{direction: (if .direction | startswith("in") then "out" else "in" end), spi, bytes, packets}'

# appliance_stop — SIGTERM, and the time in milliseconds that the stop took on stdout; false after 10 s.
appliance_stop() {
    local begin
    begin=$(date +%s%N)
    node_signal appliance1 phalanx TERM || return 1
    local deadline=$((SECONDS + 10))
    while node_runs appliance1 phalanx; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
    echo $((($(date +%s%N) - begin) / 1000000))
}
