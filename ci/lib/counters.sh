# shellcheck shell=bash
# Both ends count the same bytes: IP packets inside the tunnel, without ESP's own. An SA that was rekeyed away takes
# its counters with it, so a watcher notes every SA while it lives, and the sums run over all that it saw.

# counters_watch NAME — samples both ends until it is stopped; the pid goes to counters.pid.
counters_watch() {
    local name=$1 dir
    dir=$(node_dir "$name")
    while :; do
        counters_sample "$name" || true
        sleep 0.2
    done >/dev/null 2>&1 {demo_lock}>&- &
    echo $! >"$dir/counters.pid"
    disown
}

# counters_sample NAME — one line for each end: {"side": …, "sas": […]}.
counters_sample() {
    local name=$1 dir
    dir=$(node_dir "$name")
    {
        peer_sas "$name" | jq -c '{side: "client", sas: .}'
        appliance_sas "$name" | jq -c '{side: "appliance", sas: .}'
    } >>"$dir/counters.jsonl"
}

counters_stop() { kill "$(cat "$(node_dir "$1")/counters.pid")" 2>/dev/null || true; }

# counters_table NAME — JSON, one row for each SA and direction as the client sees it, both ends' counters beside
# each other. Counters only grow, so the largest sample is the last.
counters_table() {
    jq -cs '
        def largest(side): map(select(.side == side)) | {bytes: (map(.bytes) | max // 0), packets: (map(.packets) | max // 0)};
        [.[] | .side as $side | .sas[] | . + {side: $side, spi: (.spi | ltrimstr("0x") | ascii_downcase | sub("^0+"; ""))}]
        | group_by([.direction, .spi])
        | map({direction: .[0].direction, spi: ("0x" + .[0].spi), client: largest("client"), appliance: largest("appliance")})
        ' "$(node_dir "$1")/counters.jsonl"
}

# counters_sums TABLE — JSON: per direction and end, over all SAs.
counters_sums() {
    jq -c 'def sums(side): {bytes: (map(.[side].bytes) | add // 0), packets: (map(.[side].packets) | add // 0)};
        group_by(.direction) | map({key: .[0].direction, value: {client: sums("client"), appliance: sums("appliance")}})
        | from_entries' <<<"$1"
}

# counters_agree SUMS — in both directions something was carried, and both ends counted the same.
counters_agree() {
    jq -e '[.in, .out] | all(. != null and .client.bytes > 0 and .client == .appliance)' <<<"$1" >/dev/null
}
