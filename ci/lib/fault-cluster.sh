# shellcheck shell=bash
# What is done to a standing demo of the cluster, and what must be seen then. One function for each fault; each leaves the
# demo as it found it.

books_balanced() {
    local member
    for member in "${cluster_members[@]}"; do
        [[ $(member_show "$member" balance | jq .difference) == 0 ]] || return 1
    done
}

# target_is NAME STATE — as d1 sees it.
target_is() { [[ $(member_show d1 targets | jq -r --arg name "$1" '.[] | select(.name == $name) | .state') == "$2" ]]; }
target_start() { member_show d1 targets | jq --arg name "$1" '.[] | select(.name == $name) | .incarnation'; }
facility_up() { [[ $(member_show d1 cluster | jq .facility_up) == "$1" ]]; }
dvipa_epoch() { member_show "$1" dvipas | jq '.[0].epoch'; }
# spis_of CLIENT — what it receives on.
spis_of() { peer_sas "$1" | jq -r '[.[] | select(.direction == "in") | .spi] | sort | join(" ")'; }
spis_changed() { [[ $(spis_of "$1") != "$2" ]]; }
sealed_sas() { member_show d1 shadow | jq 'map(select(.sealed)) | length'; }
nothing_sealed() { [[ $(sealed_sas) == 0 ]]; }

# asks CLIENT COUNT — so many new connections; the names of the web servers that answered, in order.
asks() {
    local names=() at
    for ((at = 0; at < $2; at++)); do names+=("$(cluster_where "$1" 2>/dev/null || echo nobody)"); done
    printf '%s' "${names[*]}"
}
# both_serve CLIENT — its new connections go to both targets.
both_serve() {
    local names
    names=$(asks "$1" 4)
    [[ $names == *web1* && $names == *web2* && $names != *nobody* ]]
}

# slow_begin CLIENT — two downloads, each over a connection of its own, that take a while: round robin gives each target
# one. Their clients ask every second whether the other side lives, as far as nothing comes from there.
slow_begin() {
    local at file
    file=$(fault_file)
    slow_pids=()
    for at in 1 2; do
        rm -f "$(node_dir "$1")/slow.$at"
        node_exec "$1" curl -s --limit-rate 400k --keepalive-time 1 --max-time 60 -o "/node/slow.$at" \
            "http://$dvipa/${file##*/}" {demo_lock}>&- &
        slow_pids+=($!)
        wait_until 20 test -s "$(node_dir "$1")/slow.$at" || wrong "the download did not begin"
    done
}
# slow_end CLIENT — how each of them ended: `whole`, or what curl says of it.
slow_end() {
    local at status
    slow_ends=()
    for at in 1 2; do
        status=0
        wait "${slow_pids[at - 1]}" || status=$?
        if ((status == 0)) && cmp -s "$(fault_file)" "$(node_dir "$1")/slow.$at"; then status=whole; fi
        slow_ends+=("$status")
    done
}
slow_ended() { [[ ${slow_ends[0]} == "$1" && ${slow_ends[1]} == "$2" || ${slow_ends[0]} == "$2" && ${slow_ends[1]} == "$1" ]]; }

fault_facility_outage() {
    step "The coupling facility does not answer for 60 seconds"
    local until asked=0 answered=0 spis
    spis=$(spis_of client3)
    node_signal etcd etcd STOP
    must "d1 notices" wait_until 20 facility_up false
    # A new SA needs a record.
    node_exec client3 swanctl --rekey --child web >/dev/null 2>&1 || wrong "client3 cannot ask for a new SA"
    until=$((SECONDS + 60))
    must "a download goes on" fetches client2
    while ((SECONDS < until)); do
        asked=$((asked + 1))
        if cluster_where client1 >/dev/null 2>&1; then answered=$((answered + 1)); fi
        sleep 0.3
    done
    must "of $asked new connections meanwhile $answered were answered" test "$asked" -eq "$answered"
    must "client3 has no new SA without a record of it" not spis_changed client3 "$spis"
    node_signal etcd etcd CONT
    must "d1 has the facility again" wait_until 20 facility_up true
    must "client3 gets its new SA" wait_until 60 spis_changed client3 "$spis"
    must "and downloads" fetches client3
}

fault_target_killed() {
    step "A target is killed during downloads from both"
    local before seals spis
    before=$(target_start t2)
    spis=$(spis_of client1)
    slow_begin client1
    node_signal t2 phalanx KILL
    must "d1 gives it up" wait_until 15 target_is t2 lost
    slow_end client1
    # 56: the connection was reset.
    must "one download is whole, the other one was told that its connection is gone: ${slow_ends[*]}" slow_ended whole 56
    must "new connections go to the other one" test "$(asks client1 4)" == "web1 web1 web1 web1"
    must "client1's SAs are replaced" wait_until 30 spis_changed client1 "$spis"
    seals=$(member_count d1 "SA sealed")
    must "SAs were sealed: $seals" test "$seals" -gt 0
    must "none is any more" wait_until 30 nothing_sealed
    rm -f "$(node_dir t2)/phalanx.status"
    member_start t2
    must "it comes back" wait_until 30 cluster_ready
    must "as another start: $before, $(target_start t2)" test "$(target_start t2)" -gt "$before"
    must "both serve" both_serve client1
    must "client1 downloads" fetches client1
}

fault_trusted_link() {
    step "A target loses its trusted port during downloads from both"
    local before
    before=$(target_start t1)
    slow_begin client3
    ip -n phx-trunk link set t1 down
    must "d1 gives it up" wait_until 15 target_is t1 lost
    slow_end client3
    must "one download is whole, the other one was told that its connection is gone: ${slow_ends[*]}" slow_ended whole 56
    must "new connections go to the other one" test "$(asks client3 4)" == "web2 web2 web2 web2"
    ip -n phx-trunk link set t1 up
    must "it comes back" wait_until 60 cluster_ready
    must "as another start, without what it had: $before, $(target_start t1)" test "$(target_start t1)" -gt "$before"
    must "both serve" both_serve client3
    # What it became without starting anew must outlive its sessions.
    ip -n phx-trunk link set t1 down
    must "cut off again, it is given up again" wait_until 15 target_is t1 lost
    ip -n phx-trunk link set t1 up
    must "it comes back once more" wait_until 60 cluster_ready
    must "both serve" both_serve client3
    must "client3 downloads" fetches client3
}

# clients_renew — they have SAs that nobody knows any more, and notice at once instead of by their dead peer detection.
clients_renew() {
    local client
    for client in "${cluster_clients[@]}"; do
        node_exec "$client" swanctl --terminate --ike phalanx --force --timeout 2 >/dev/null 2>&1 || true
        must "$client connects again" peer_connect "$client"
    done
}

shadows_of_epoch() { member_show "$1" shadow | jq -e --argjson epoch "$2" 'length > 0 and all(.epoch == $epoch)' >/dev/null; }

fault_owner_restarted() {
    step "The distributor is killed and starts again"
    local before client
    before=$(dvipa_epoch d1)
    node_signal d1 phalanx KILL
    rm -f "$(node_dir d1)/phalanx.status"
    member_start d1
    must "both targets are ready" wait_until 30 cluster_ready
    must "the epoch has grown: $before, $(dvipa_epoch d1)" test "$(dvipa_epoch d1)" -gt "$before"
    clients_renew
    must "the targets hold SAs of this epoch, and no others" wait_until 20 shadows_of_epoch t1 "$(dvipa_epoch d1)"
    for client in "${cluster_clients[@]}"; do must "$client downloads" fetches "$client"; done
    must "both serve" both_serve client1
}

epoch_beyond() { (($(dvipa_epoch d1) > $1)); }
# none_before EPOCH — no member holds an SA that is older.
none_before() {
    local member
    for member in "${cluster_members[@]}"; do
        member_show "$member" shadow | jq -e --argjson epoch "$1" 'all(.epoch >= $epoch)' >/dev/null || return 1
    done
}
went_back() { grep -q "went back in time" "$(member_log d1)" "$(member_log t1)" "$(member_log t2)"; }

fault_facility_restored() {
    step "The coupling facility is restored from a backup"
    local dir client spis before
    dir=$(node_dir etcd)
    before=$(dvipa_epoch d1)
    rm -rf "$dir/backup" "$dir/restored"
    etcd_ask snapshot save "$dir/backup" || wrong "no backup of etcd"
    # What the backup does not know: new SAs, and with them records.
    spis=$(spis_of client1)
    node_exec client1 swanctl --rekey --child web >/dev/null 2>&1 || wrong "client1 cannot ask for a new SA"
    must "client1 has a new SA" wait_until 20 spis_changed client1 "$spis"
    node_signal etcd etcd KILL
    wait_until 5 not node_runs etcd etcd || wrong "etcd still runs"
    ETCDCTL_API=3 etcdctl snapshot restore "$dir/backup" --data-dir "$dir/restored" >/dev/null 2>&1 ||
        wrong "the backup cannot be restored"
    rm -rf "$dir/data"
    mv "$dir/restored" "$dir/data"
    rm -f "$dir/etcd.status"
    etcd_start
    must "a member notices" wait_until 30 went_back
    must "d1 claims the address anew" wait_until 30 epoch_beyond "$before"
    must "both targets are ready again" wait_until 60 cluster_ready
    must "no SA of before is left" wait_until 10 none_before "$(dvipa_epoch d1)"
    clients_renew
    for client in "${cluster_clients[@]}"; do must "$client downloads" fetches "$client"; done
    must "both serve" both_serve client1
}
