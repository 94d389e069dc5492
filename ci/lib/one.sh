# shellcheck shell=bash
# The scenario "one": one appliance, two clients one after the other, one web server.

one_clients=(client1 client2)
one_file_bytes=50000000
# The file, and for each client its download and the capture of it; the rest is logs.
one_room_mb=400
one_results=()
one_failed=''

# wrong TEXT — a check that failed; the run goes on, so that all of the story can be read, and exits 1.
wrong() {
    bad "$*"
    one_failed=yes
}

# one_run JSON KEEP
one_run() {
    local json=$1 keep=$2 begin=$SECONDS
    lock_take
    trap 'one_end "$?" '"${keep:-no}" EXIT
    trap 'warn "failed at ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
    one_clear_away
    chroots_ready
    one_network
    one_appliance
    local client
    for client in "${one_clients[@]}"; do one_client "$client"; done
    one_books
    [[ -n $keep ]] || one_stop
    one_verdict "$json" "$((SECONDS - begin))"
    if [[ -n $keep ]]; then one_kept; fi
    if [[ -n $one_failed ]]; then exit 1; fi
}

# lock_take — the namespaces' names are fixed, so one run at a time. Whoever holds the lock over several runs sets
# PHALANX_LOCKED for them.
lock_take() {
    [[ -z ${PHALANX_LOCKED:-} ]] || return 0
    exec {demo_lock}>/run/phalanx-demo.lock
    if ! flock -n "$demo_lock"; then
        note "another demo is running on this machine; waiting for its end"
        interruptible flock -w 1200 "$demo_lock" || die "the other demo does not end"
    fi
}

# lock_free — nobody else holds it.
lock_free() { [[ -n ${PHALANX_LOCKED:-} ]] || flock -n /run/phalanx-demo.lock true; }

# one_lock — the machine is ours.
one_lock() {
    lock_take
    one_clear_away
}

# one_clear_away — a demo that was kept makes room, and there is enough of it.
one_clear_away() {
    if [[ -n $(nodes_standing) ]]; then note "a demo that was kept still stands; taking it down"; fi
    nodes_down
    need_room "$PHALANX_RUN" "$one_room_mb" "the demo"
    mkdir -p "$PHALANX_RUN"
    # It holds secrets.
    chmod 700 "$PHALANX_RUN"
}

# one_end STATUS KEEP — runs at every exit, an interrupted one included.
one_end() {
    trap - EXIT ERR
    # Nothing cuts the cleanup short.
    trap '' INT TERM HUP
    local client
    for client in "${one_clients[@]}"; do counters_stop "$client" 2>/dev/null || true; done
    if (($1 > 0 && $1 < 128)) && [[ -e $(appliance_log) ]]; then
        warn "the end of the appliance's log:"
        tail -n 20 "$(appliance_log)" >&2
    fi
    if [[ $2 == yes && $1 -lt 128 && -n $(nodes_standing) ]]; then return; fi
    nodes_down
    if (($1 >= 128)); then children_end 3; fi
}

one_network() {
    step "Building the network"
    local client node
    for client in "${one_clients[@]}"; do node_start "$client" "$(chroot_path "${peer_suite[$client]}")"; done
    for node in nat router appliance1 web1; do node_start "$node"; done
    network_up
    note "client1 ─────── router ─── appliance1 ─── web1"
    note "client2 ── nat ───┘"
    say "the address of the service, the DVIPA, is $dvipa; only web1 has it, on its loopback"
    say "the kernel of appliance1 has no address: DPDK moves its packets, in two poll loops"
    one_web
}

# one_web — the service: a file that nobody can guess, under a name that must not be readable on a client's wire.
one_web() {
    local dir
    dir=$(node_dir web1)
    one_path="secret-$(head -c 12 /dev/urandom | base64 -w 0 | tr '+/' '-_')"
    mkdir "$dir/www"
    head -c "$one_file_bytes" /dev/urandom >"$dir/www/$one_path"
    one_sha256=$(sha256sum "$dir/www/$one_path" | cut -d' ' -f1)
    web_start
    # The request is among the first packets; the rest is only more of the file.
    capture_start web1 eth0 "$dir/wire.pcap" -c 500
    say "web1 serves $((one_file_bytes / 1000000)) MB of random bytes, sha256 ${one_sha256:0:16}…"
}

# web_start — again after a fault, too.
web_start() {
    local dir
    dir=$(node_dir web1)
    node_spawn web1 httpd busybox httpd -f -p "$dvipa:80" -h "$dir/www"
    wait_until 5 node_exec web1 curl -s -o /dev/null --head "http://$dvipa/" || die "the web server did not start"
}

one_appliance() {
    step "Starting the appliance"
    appliance_configure "${one_clients[@]}"
    appliance_start
    say "$(node_exec appliance1 phalanx version --json | jq -r '"phalanx \(.version)"')"
    appliance_show ports | jq -r '.[] | "   port \(.name): \(.role), \(.device), \(.link // "?")"'
}

# one_client NAME — connect, download, compare.
one_client() {
    local name=$1 dir
    dir=$(node_dir "$name")
    peer_configure "$name" "$(node_dir appliance1)/$name.psk"
    peer_start "$name"
    step "$name: strongSwan $(peer_version "$name"), ${peer_about[$name]}"
    capture_start "$name" eth0 "$dir/wire.pcap"
    counters_watch "$name"
    if ! peer_connect "$name"; then
        tail -n 15 "$dir/initiate.log"
        wrong "no SA came up"
        one_results+=("$(json_client "$name" encap null sha256_ok false bytes_agree false cleartext_packets null throughput_mbps null)")
        return
    fi
    say "IKE: $(node_exec "$name" swanctl --list-sas | sed -n 's/^  \(AES.*\)/\1/p' | head -n 1), with a pre-shared key"
    say "CHILD_SA: $(node_exec "$name" swanctl --list-sas | sed -n 's/.*INSTALLED, //p' | head -n 1)," \
        "${peer_address[$name]} ↔ $dvipa"
    one_download "$name"
    one_compare "$name"
}

# one_download NAME — sets one_mbps and one_hash_ok.
one_download() {
    local name=$1 dir out curl_pid size rate
    dir=$(node_dir "$name")
    out=$dir/download
    node_exec "$name" curl -s --max-time 900 --speed-limit 1000 --speed-time 60 -o /node/download -w '%{speed_download}' "http://$dvipa/$one_path" \
        >"$dir/curl.out" 2>"$dir/curl.err" {demo_lock}>&- &
    curl_pid=$!
    local last=0
    while kill -0 "$curl_pid" 2>/dev/null; do
        size=$(stat -c %s "$out" 2>/dev/null || echo 0)
        progress "downloading: $((size / 1000000)) of $((one_file_bytes / 1000000)) MB, $(((size - last) * 8 / 1000000)) Mbit/s"
        last=$size
        sleep 1
    done
    progress_end
    wait "$curl_pid" || wrong "curl ended with $?: $(cat "$dir/curl.err")"
    rate=$(cat "$dir/curl.out")
    one_mbps=$(awk -v rate="${rate:-0}" 'BEGIN { printf "%.1f", rate * 8 / 1e6 }')
    if [[ -e $out && $(sha256sum "$out" | cut -d' ' -f1) == "$one_sha256" ]]; then
        one_hash_ok=true
        good "$(grouped "$(stat -c %s "$out")") bytes at $one_mbps Mbit/s; the sha256 is that of the file on web1"
    else
        one_hash_ok=false
        wrong "the file that arrived is not the file on web1"
    fi
}

# one_compare NAME — counters and wire.
one_compare() {
    local name=$1 dir table sums pairs agree=false lost
    dir=$(node_dir "$name")
    say "one second of silence, then both ends' counters"
    sleep 1
    counters_stop "$name"
    counters_client "$name"
    counters_appliance "$name"
    table=$(counters_table "$name")
    sums=$(counters_sums "$table" "$(peer_tunnel "$name")")
    report_sas "$table" "$sums"
    note "both count the IP packets inside the tunnel; on the wire, ESP makes each 54 to 65 bytes longer"
    note "the client's totals are those of its tunnel device, for strongSwan may miss an SA's last packets"
    pairs=$(jq 'map(select(.direction == "in")) | length' <<<"$table")
    if ! counters_agree "$table" "$sums"; then
        wrong "the counters differ"
        lost=$(peer_lost "$name")
        if ((lost)); then say "$name's sockets lost $lost packets before its daemon read them"; fi
    elif ((pairs < 2)); then
        wrong "the counters agree, but no SA was rekeyed during the download"
    else
        agree=true
        good "the counters agree to the byte, over $pairs SAs in a row"
    fi
    one_wire "$name"
    one_results+=("$(json_client "$name" encap "\"$one_encap\"" sha256_ok "$one_hash_ok" bytes_agree "$agree" \
        cleartext_packets "$one_clear" throughput_mbps "$one_mbps" sas "$table" esp_packets "$one_esp")")
}

# one_wire NAME — sets one_encap, one_esp and one_clear from the capture of the client's wire.
one_wire() {
    local file native encapsulated ike
    file=$(node_dir "$1")/wire.pcap
    capture_stop "$file" || wrong "the capture has holes or ended early, so it proves nothing: $(cat "$file.log")"
    native=$(capture_count "$file" "$filter_native")
    encapsulated=$(capture_count "$file" "$filter_encapsulated")
    ike=$(capture_count "$file" "$filter_ike")
    one_clear=$(capture_count "$file" "$filter_clear")
    # Whatever the headers say: the name of the file is in the request, and must not be readable.
    if capture_holds "$file" "$one_path"; then one_clear=$((one_clear + 1)); fi
    one_esp=$((native + encapsulated))
    one_encap=none
    ((encapsulated == 0)) || one_encap=udp
    ((encapsulated == 0 || native == 0)) || one_encap=both
    say "on $1's wire: $native native ESP packets, $encapsulated in UDP 4500, $ike IKE messages"
    if ((one_esp > 0 && one_clear == 0)); then
        good "not one packet of the service in clear"
    else
        wrong "$one_clear packets of the service in clear, $one_esp in ESP"
    fi
    local said
    said=$(appliance_show sas | jq -r --arg peer "$1.example" 'map(select(.peer == $peer) | .encap) | unique | join(" and ")')
    if [[ $one_encap == "${peer_encap[$1]}" && $said == "$one_encap" ]]; then
        good "every ESP packet ${peer_encap_words[$one_encap]}, and so says the appliance"
    else
        wrong "encapsulation must be ${peer_encap[$1]}; on the wire it is $one_encap, the appliance says ${said:-nothing}"
    fi
}

# one_metrics — what Prometheus would read of the running appliance: well-formed, and the same as `show` says.
one_metrics() {
    local text said before after
    before=$(appliance_show balance | jq .received)
    text=$(appliance_metrics)
    after=$(appliance_show balance | jq .received)
    if ! said=$("$(promtool_path)" check metrics <<<"$text" 2>&1) || [[ -n $said ]]; then
        wrong "promtool finds fault with the metrics: $said"
        return
    fi
    local received=''
    if [[ $text =~ $'\n'phalanx_received_packets_total\ ([0-9]+)$'\n' ]]; then received=${BASH_REMATCH[1]}; fi
    if [[ -n $received ]] && ((received > 0 && before <= received && received <= after)); then
        good "promtool has nothing to say about $(grep -c '^[^#]' <<<"$text") metrics; received packets: $(grouped "$received")"
    else
        wrong "the metrics count ${received:-no} received packets, \`phalanx show balance\` from $before to $after"
    fi
}

# one_books — the appliance's own account, and the proof that the search for cleartext can find some.
one_books() {
    step "The appliance's books"
    local file
    file=$(node_dir web1)/wire.pcap
    # It ended by itself, when it had enough.
    capture_stop "$file" || true
    if capture_holds "$file" "$one_path"; then
        good "on web1's wire, behind the appliance, the same search finds the request in clear"
    else
        wrong "the request is not readable even on web1's wire, so the search for cleartext proves nothing"
    fi
    one_drops=$(appliance_show drops)
    one_balance=$(appliance_show balance)
    report_cores "$(appliance_show cores)"
    report_balance "$one_balance"
    report_drops "$one_drops"
    [[ $(jq .difference <<<"$one_balance") == 0 ]] || wrong "packets are unaccounted for"
    one_metrics
}

one_stop() {
    step "Stopping the appliance"
    local took client sas status
    local -A before
    for client in "${one_clients[@]}"; do
        before[$client]=$(peer_sas "$client" | jq length)
        ((before[$client] > 0)) || wrong "$client has no SAs even before"
    done
    if ! took=$(appliance_stop) || ((took > 5000)); then
        wrong "it did not stop within 5 seconds"
        return
    fi
    status=$(node_status appliance1 phalanx || true)
    if [[ $status == 0 ]]; then
        good "it stopped in $took ms, exit code 0"
    else
        wrong "it stopped in $took ms, exit code ${status:-unknown}"
    fi
    for client in "${one_clients[@]}"; do
        if ! sas=$(peer_sas "$client"); then
            wrong "$client does not answer, so nobody knows what it was told"
        elif [[ $sas == '[]' ]]; then
            good "$client was told: its SAs are gone"
        else
            wrong "$client still has SAs"
        fi
    done
}

# one_verdict JSON SECONDS
one_verdict() {
    step "Result"
    local ok=true
    [[ -z $one_failed ]] || ok=false
    if [[ -n $1 ]]; then
        jq -n --argjson ok "$ok" --argjson seconds "$2" --argjson clients "[$(IFS=,; echo "${one_results[*]}")]" \
            --argjson drops "$one_drops" --argjson balance "$one_balance" \
            '{scenario: "one", ok: $ok, seconds: $seconds, clients: $clients, drops: $drops, balance: $balance}' >"$1"
    fi
    if [[ $ok == true ]]; then
        say "${green}All that was promised was seen.$plain It took $2 s."
    else
        say "${red}Something is wrong; see the lines marked WRONG.$plain"
    fi
}

one_kept() {
    say "Kept for you to look around:"
    note "ci/demo exec client1 swanctl --list-sas"
    note "ci/demo exec appliance1 phalanx show sas"
    note "ci/demo exec web1 tcpdump -ni eth0"
    note "ci/demo down"
}
