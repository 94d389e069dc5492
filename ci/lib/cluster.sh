# shellcheck shell=bash
# The scenario "cluster": one distributor, two targets with a web server each, three clients, one etcd.

cluster_clients=(client1 client2 client3)
cluster_file_bytes=4000000
# Downloads of each client, a new connection each: together more than one SA may carry.
cluster_downloads=8
cluster_room_mb=800
cluster_results=()
cluster_target_rows='[]'

# cluster_run JSON KEEP PROCESSING SEQUENCE PROTECT
cluster_run() {
    local json=$1 keep=$2 begin=$SECONDS
    cluster_processing=$3 cluster_sequence=$4 cluster_protect=$5
    lock_take
    trap 'cluster_end "$?" '"${keep:-no}" EXIT
    trap 'warn "failed at ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
    cluster_clear_away
    chroots_ready
    cluster_network
    cluster_members_up
    local client
    for client in "${cluster_clients[@]}"; do cluster_client "$client"; done
    cluster_spread
    cluster_trusted
    cluster_lifesize
    cluster_drain
    cluster_books
    [[ -n $keep ]] || cluster_stop
    cluster_verdict "$json" "$((SECONDS - begin))"
    if [[ -n $keep ]]; then cluster_kept; fi
    if [[ -n $one_failed ]]; then exit 1; fi
}

cluster_clear_away() {
    if [[ -n $(nodes_standing) ]]; then note "a demo that was kept still stands; taking it down"; fi
    nodes_down
    need_room "$PHALANX_RUN" "$cluster_room_mb" "the demo"
    mkdir -p "$PHALANX_RUN"
    # It holds secrets.
    chmod 700 "$PHALANX_RUN"
}

# cluster_end STATUS KEEP — runs at every exit, an interrupted one included.
cluster_end() {
    trap - EXIT ERR
    # Nothing cuts the cleanup short.
    trap '' INT TERM HUP
    local member
    if (($1 > 0 && $1 < 128)); then
        for member in "${cluster_members[@]}"; do
            [[ -e $(member_log "$member") ]] || continue
            warn "the end of $member's log:"
            tail -n 15 "$(member_log "$member")" >&2
        done
    fi
    if [[ $2 == yes && $1 -lt 128 && -n $(nodes_standing) ]]; then return; fi
    nodes_down
    if (($1 >= 128)); then children_end 3; fi
}

cluster_network() {
    step "Building the network"
    local node client
    for client in "${cluster_clients[@]}"; do node_start "$client" "$(chroot_path "${peer_suite[$client]}")"; done
    for node in nat router lan trunk etcd "${cluster_members[@]}" "${cluster_webs[@]}"; do node_start "$node"; done
    cluster_network_up
    note "client1 ─────── router ─┬─ d1, the distributor"
    note "client2 ── nat ───┤     ├─ t1, a target ─── web1"
    note "client3 ──────────┘     └─ t2, a target ─── web2"
    say "the address of the service, the DVIPA, is $dvipa; web1 and web2 have it on their loopbacks"
    say "a switch of its own, the trusted port, joins d1, t1 and t2"
    cluster_webs_serve
}

# cluster_webs_serve — the same file on all, under a name that must not be readable on a client's wire; and one that says
# which of them it is.
cluster_webs_serve() {
    local node first
    one_path="secret-$(head -c 12 /dev/urandom | base64 -w 0 | tr '+/' '-_')"
    first=$(node_dir web1)/www
    for node in "${cluster_webs[@]}"; do
        mkdir -p "$(node_dir "$node")/www"
        printf '%s\n' "$node" >"$(node_dir "$node")/www/whoami"
    done
    head -c "$cluster_file_bytes" /dev/urandom >"$first/$one_path"
    for node in "${cluster_webs[@]:1}"; do cp "$first/$one_path" "$(node_dir "$node")/www/"; done
    one_sha256=$(sha256sum "$first/$one_path" | cut -d' ' -f1)
    for node in "${cluster_webs[@]}"; do
        node_spawn "$node" httpd busybox httpd -f -v -p "$dvipa:80" -h "$(node_dir "$node")/www"
        wait_until 5 node_exec "$node" curl -s -o /dev/null "http://$dvipa/whoami" || die "the web server on $node did not start"
    done
    say "they serve $((cluster_file_bytes / 1000000)) MB of random bytes, sha256 ${one_sha256:0:16}…"
}

cluster_members_up() {
    step "Starting etcd, the distributor and two targets"
    local member begin
    begin=$(date +%s%N)
    etcd_start
    cluster_secrets "${cluster_clients[@]}"
    for member in "${cluster_members[@]}"; do
        member_configure "$member" "$cluster_processing" "$cluster_sequence" "$cluster_protect" "${cluster_clients[@]}"
        member_start "$member"
    done
    wait_until 20 cluster_ready || die "the targets are not ready: $(member_show d1 targets)"
    say "$(member_phalanx d1 version --json | jq -r '"phalanx \(.version)"'), processing at the $cluster_processing," \
        "outbound numbers: $cluster_sequence, frames protected by: $cluster_protect"
    member_phalanx d1 show cluster | sed 's/^/   /'
    member_phalanx d1 show targets | sed 's/^/   /'
    good "the cluster stands after $(seconds_since "$begin") s"
    # Whose frames carry the answers: the wire between the appliances and the router.
    capture_start router phalanx "$(node_dir router)/wire.pcap" -s 96
    # What goes between d1 and the others.
    capture_start trunk d1 "$(node_dir trunk)/wire.pcap" -s 256
}

# cluster_client NAME — connect, download over and over, compare.
cluster_client() {
    local name=$1 dir downloads=0 bad_hashes=0 at out
    dir=$(node_dir "$name")
    peer_configure "$name" "$(node_dir d1)/$name.psk"
    peer_start "$name"
    step "$name: strongSwan $(peer_version "$name"), ${peer_about[$name]}"
    capture_start "$name" eth0 "$dir/wire.pcap" -s 512
    if ! peer_connect "$name"; then
        tail -n 15 "$dir/initiate.log"
        wrong "no SA came up"
        cluster_results+=("$(json_client "$name" sha256_ok false downloads 0 cleartext_packets null)")
        return
    fi
    say "CHILD_SA: $(node_exec "$name" swanctl --list-sas | sed -n 's/.*INSTALLED, //p' | head -n 1)," \
        "${peer_address[$name]} ↔ $dvipa"
    for ((at = 1; at <= cluster_downloads; at++)); do
        out=$dir/download
        progress "download $at of $cluster_downloads"
        if node_exec "$name" curl -sS --max-time 120 -o /node/download "http://$dvipa/$one_path" 2>"$dir/curl.err"; then
            downloads=$((downloads + 1))
        else
            wrong "curl ended with $?: $(cat "$dir/curl.err")"
        fi
        [[ $(sha256sum "$out" 2>/dev/null | cut -d' ' -f1) == "$one_sha256" ]] || bad_hashes=$((bad_hashes + 1))
        rm -f "$out"
    done
    progress_end
    if ((downloads == cluster_downloads && bad_hashes == 0)); then
        good "$downloads downloads, each over a connection of its own; every sha256 is that of the file"
    else
        wrong "$downloads of $cluster_downloads downloads, $bad_hashes with a wrong sha256"
    fi
    if [[ $name == client1 ]]; then cluster_shares; fi
    cluster_wire "$name"
    cluster_results+=("$(json_client "$name" sha256_ok "$( ((bad_hashes)) && echo false || echo true)" \
        downloads "$downloads" cleartext_packets "$one_clear" esp_packets "$one_esp")")
}

# cluster_shares — which target has which of client1's connections; a closed one is remembered for some seconds.
cluster_shares() {
    local name rows
    for name in "${cluster_targets[@]}"; do
        rows=$(member_show "$name" connections | jq '[.[] | select(.peer == "client1.example")] | length')
        cluster_target_rows=$(jq -c --arg name "$name" --argjson count "$rows" '. + [{name: $name, connections: $count}]' <<<"$cluster_target_rows")
        if ((rows > 0)); then
            good "$name has $rows of its connections, under SAs that d1 negotiated"
        else
            wrong "$name has none of its connections"
        fi
    done
    member_phalanx t1 show shadow | sed 's/^/   /'
}

# cluster_wire NAME — nothing in clear on the client's wire.
cluster_wire() {
    local file
    file=$(node_dir "$1")/wire.pcap
    capture_stop "$file" || wrong "the capture has holes or ended early, so it proves nothing: $(cat "$file.log")"
    one_esp=$(($(capture_count "$file" "$filter_native") + $(capture_count "$file" "$filter_encapsulated")))
    one_clear=$(capture_count "$file" "$filter_clear")
    if capture_holds "$file" "$one_path"; then one_clear=$((one_clear + 1)); fi
    if ((one_esp > 0 && one_clear == 0)); then
        good "on its wire $one_esp ESP packets, and not one packet of the service in clear"
    else
        wrong "$one_clear packets of the service in clear, $one_esp in ESP"
    fi
}

# cluster_mac MEMBER
cluster_mac() { ip -n "phx-$1" -j link show net0 | jq -r '.[0].address'; }

# cluster_spread — who sent the answers.
cluster_spread() {
    step "Who answered"
    local rows file member
    file=$(node_dir router)/wire.pcap
    capture_stop "$file" || wrong "the capture has holes or ended early, so it proves nothing: $(cat "$file.log")"
    cluster_via=0
    for member in "${cluster_members[@]}"; do
        rows=$(capture_count "$file" "src host $dvipa and ether src $(cluster_mac "$member") and ($filter_native or $filter_encapsulated)")
        say "ESP from the DVIPA to the clients that $member sent: $rows packets"
        if [[ $member == d1 ]]; then cluster_via=$rows; fi
        if [[ $member != d1 && $cluster_sequence != via-distributor ]] && ((rows == 0)); then
            wrong "$member answered nobody itself"
        fi
        if [[ $member != d1 && $cluster_sequence == via-distributor ]] && ((rows > 0)); then
            wrong "$member answered by itself, though the distributor is to encrypt everything"
        fi
    done
    if [[ $cluster_sequence == via-distributor ]]; then
        if ((cluster_via > 0)); then good "every answer went by the distributor, as asked for"; else wrong "nobody answered"; fi
    elif ((cluster_via > 0)); then
        wrong "$cluster_via answers went by the distributor"
    else
        good "every answer went straight from its target to the client"
    fi
}

# cluster_trusted — what the trusted wire shows of the frames between members: GRE, or nothing but ESP.
cluster_trusted() {
    step "Between the members"
    local file gre esp
    file=$(node_dir trunk)/wire.pcap
    capture_stop "$file" || wrong "the capture has holes or ended early, so it proves nothing: $(cat "$file.log")"
    gre=$(capture_count "$file" "ip proto 47 or udp port 4754") esp=$(capture_count "$file" "ip proto 50")
    case $cluster_protect in
    esp)
        if ((esp == 0 || gre > 0)) || capture_holds "$file" "$one_path"; then
            wrong "$gre frames in the clear, $esp in ESP, where all should be in ESP"
        else
            good "on the trusted wire $esp frames in ESP, and not one in the clear"
        fi
        ;;
    *) if ((gre > 0 && esp == 0)); then good "$gre frames in GRE"; else wrong "$gre frames in GRE, $esp in ESP"; fi ;;
    esac
}

# cluster_lifesize — what the targets carried comes back, and IKE refreshes by it.
cluster_lifesize() {
    step "Lifesize"
    cluster_reports=$(member_show d1 lifesize | jq 'map(.reports) | add // 0')
    cluster_rekeys=$(member_count d1 "refreshing the SA.*lifesize reached")
    member_phalanx d1 show lifesize | sed 's/^/   /'
    if ((cluster_reports > 0)); then
        good "the targets have reported $cluster_reports times what they carried of the SAs that live now"
    else
        wrong "no target has reported what it carried"
    fi
    if ((cluster_rekeys > 0)); then
        good "IKE on d1 refreshed $cluster_rekeys SAs by the sum of these reports"
    else
        wrong "no SA was refreshed by bytes"
    fi
    local client
    for client in "${cluster_clients[@]}"; do
        if wait_until 10 cluster_counts_agree "$client"; then
            good "$client and the members have counted the same bytes: $(cluster_counts "$client" | jq -r '"\(length) halves of SAs, \(map(.client) | add) bytes"')"
        else
            wrong "$client counted otherwise than the members: $(cluster_counts "$client" | jq -c 'map(select(.client != .members))')"
        fi
    done
}

# cluster_counts CLIENT — what it has carried of each half of its SAs, and what the members have reported of that, as JSON.
cluster_counts() {
    jq -n --argjson peer "$(peer_sas "$1")" --argjson shadows "$(member_show d1 shadow)" --argjson sizes "$(member_show d1 lifesize)" '
        def spi: ascii_downcase | sub("^0x0*"; "");
        [ $shadows[] as $sa | $sizes[] | select(.spi_in == $sa.spi_in)
          | {spi: (if .direction == "in" then $sa.spi_in else $sa.spi_out end | spi),
             direction: (if .direction == "in" then "out" else "in" end), members: .used_bytes} ] as $ours
        | [ $peer[] as $half | $ours[] | select(.spi == ($half.spi | spi) and .direction == $half.direction)
            | {spi, direction, client: $half.bytes, members} ]'
}
cluster_counts_agree() { cluster_counts "$1" | jq -e 'length > 1 and all(.client == .members)' >/dev/null; }

# member_count MEMBER TEXT — lines of its log.
member_count() { grep -c -- "$2" "$(member_log "$1")" || true; }

# cluster_where CLIENT — which web server answers a new connection of it.
cluster_where() { node_exec "$1" curl -sS --max-time 20 "http://$dvipa/whoami"; }

cluster_drain() {
    step "Draining a target"
    local at seen=()
    member_phalanx d1 drain t1 | sed 's/^/   /'
    wait_until 5 cluster_drains || wrong "t1 does not drain"
    for at in 1 2 3 4 5 6; do seen+=("$(cluster_where client1 || echo nobody)"); done
    if [[ ${seen[*]} == "web2 web2 web2 web2 web2 web2" ]]; then
        good "${#seen[@]} new connections, and all went to web2, behind t2"
    else
        wrong "new connections went to: ${seen[*]}"
    fi
    member_phalanx d1 undrain t1 | sed 's/^/   /'
    wait_until 5 cluster_ready || wrong "t1 is not ready again"
    seen=()
    for at in 1 2 3 4; do seen+=("$(cluster_where client1 || echo nobody)"); done
    if [[ ${seen[*]} == *web1* && ${seen[*]} == *web2* ]]; then
        good "after undrain both serve again: ${seen[*]}"
    else
        wrong "after undrain new connections went to: ${seen[*]}"
    fi
}
cluster_drains() { member_show d1 targets | jq -e 'any(.name == "t1" and (.state == "draining" or .state == "drained"))' >/dev/null; }

cluster_books() {
    step "The appliances' books"
    local member balance
    cluster_balance='{}' cluster_drops='{}'
    for member in "${cluster_members[@]}"; do
        balance=$(member_show "$member" balance)
        say "$member: $(jq -r '"received \(.received) = delivered \(.delivered) + forwarded \(.forwarded) + relayed \(.relayed) + punted \(.punted)"
            + " + merged \(.merged) + dropped \(.dropped) + held \(.held), difference \(.difference)"' <<<"$balance")"
        report_drops "$(member_show "$member" drops)"
        [[ $(jq .difference <<<"$balance") == 0 ]] || wrong "packets are unaccounted for on $member"
        cluster_balance=$(jq -c --arg member "$member" --argjson balance "$balance" '. + {($member): $balance}' <<<"$cluster_balance")
        cluster_drops=$(jq -c --arg member "$member" --argjson drops "$(member_show "$member" drops | jq 'map(select(.packets > 0))')" \
            '. + {($member): $drops}' <<<"$cluster_drops")
    done
}

cluster_stop() {
    step "Stopping"
    local member client status
    for member in "${cluster_members[@]}"; do
        if ! member_stop "$member"; then
            wrong "$member did not stop within 10 seconds"
            continue
        fi
        status=$(node_status "$member" phalanx || true)
        if [[ $status == 0 ]]; then good "$member stopped, exit code 0"; else wrong "$member stopped with exit code ${status:-unknown}"; fi
    done
    for client in "${cluster_clients[@]}"; do
        if [[ $(peer_sas "$client") == '[]' ]]; then good "$client was told: its SAs are gone"; else wrong "$client still has SAs"; fi
    done
}

# cluster_verdict JSON SECONDS
cluster_verdict() {
    step "Result"
    local ok=true
    [[ -z $one_failed ]] || ok=false
    if [[ -n $1 ]]; then
        jq -n --argjson ok "$ok" --argjson seconds "$2" --argjson clients "[$(IFS=,; echo "${cluster_results[*]}")]" \
            --argjson targets "$cluster_target_rows" --argjson via "$cluster_via" --argjson reports "$cluster_reports" \
            --argjson rekeys "$cluster_rekeys" --argjson drops "$cluster_drops" --argjson balance "$cluster_balance" \
            --arg processing "$cluster_processing" --arg sequence "$cluster_sequence" \
            '{scenario: "cluster", processing: $processing, outbound_sequence: $sequence, ok: $ok, seconds: $seconds,
              clients: $clients, targets: $targets, answers_via_distributor: $via, lifesize_reports: $reports,
              byte_rekeys: $rekeys, drops: $drops, balance: $balance}' >"$1"
    fi
    if [[ $ok == true ]]; then
        say "${green}All that was promised was seen.$plain It took $2 s."
    else
        say "${red}Something is wrong; see the lines marked WRONG.$plain"
    fi
}

cluster_kept() {
    say "Kept for you to look around:"
    note "ci/demo exec d1 phalanx show targets"
    note "ci/demo exec t1 phalanx show connections"
    note "ci/demo exec client1 swanctl --list-sas"
    note "ci/demo down"
}
