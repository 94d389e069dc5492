# shellcheck shell=bash
# Both ends count the same bytes: IP packets inside the tunnel, without ESP's own. An SA that was rekeyed away takes
# its counters with it: the appliance logs them then; of the client, a watcher notes every SA while it lives.
# The sums run over all SAs that there were.
#
# strongSwan looks at an outbound SA for the last time just before it stops sending on it, and may so miss its last
# packets. Nothing passes its tunnel device uncounted, so that the client's totals are taken there.

# counters_watch NAME — samples the client until it is stopped; the pid goes to counters.pid.
counters_watch() {
    local name=$1 dir
    dir=$(node_dir "$name")
    # $$ is the demo's own shell also here: a demo that was killed leaves no watcher behind.
    while [[ -e /proc/$$/exe ]]; do
        counters_client "$name" || true
        sleep 0.2
    done >/dev/null 2>&1 {demo_lock}>&- &
    echo $! >"$dir/counters.pid"
    disown
}

# counters_client, counters_appliance NAME — append one line: {"side": …, "sas": […]}.
counters_client() { peer_sas "$1" | jq -c '{side: "client", sas: .}' >>"$(node_dir "$1")/counters.jsonl"; }
counters_appliance() {
    { appliance_sas "$1"; appliance_sas_closed "$1"; } | jq -c '{side: "appliance", sas: .}' >>"$(node_dir "$1")/counters.jsonl"
}

counters_stop() { kill "$(cat "$(node_dir "$1")/counters.pid")" 2>/dev/null || true; }

# counters_table NAME — JSON, one row for each SA and direction as the client sees it, both ends' counters beside
# each other. Counters only grow, so the largest sample is the last.
counters_table() {
    jq -cs '
        def largest(side): map(select(.side == side)) | {bytes: (map(.bytes) | max // 0), packets: (map(.packets) | max // 0)};
        [.[] | .side as $side | .sas[] | . + {side: $side, spi: (.spi | ltrimstr("0x") | ascii_downcase | sub("^0+"; ""))}]
        | group_by([.direction, .spi])
        | map({direction: .[0].direction, spi: ("0x" + ("0000000" + .[0].spi)[-8:]), client: largest("client"), appliance: largest("appliance")})
        ' "$(node_dir "$1")/counters.jsonl"
}

# counters_sums TABLE TUNNEL — JSON: per direction, the client's tunnel device and the appliance's SAs.
counters_sums() {
    jq -c --argjson tunnel "$2" '
        def sum(d): map(select(.direction == d) | .appliance) | {bytes: (map(.bytes) | add // 0), packets: (map(.packets) | add // 0)};
        {in: {client: $tunnel.in, appliance: sum("in")}, out: {client: $tunnel.out, appliance: sum("out")}}' <<<"$1"
}

# counters_agree TABLE SUMS — in both directions something was carried and the totals are equal; each SA's counters
# are, too, but for the last packets of an outbound one.
counters_agree() {
    jq -e --argjson sums "$2" '
        all(.client == .appliance or (.direction == "out" and .client.packets < .appliance.packets))
        and ($sums | [.in, .out] | all(.client.bytes > 0 and .client == .appliance))' <<<"$1" >/dev/null
}
