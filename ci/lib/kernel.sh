# shellcheck shell=bash
# The scenario "kernel": one client, a virtual machine whose kernel has ESP and counts what it drops as a replay; one
# distributor and three targets, of two data cores each.
#
#   vm1 (QEMU) ── 198.18.1.0/24 ── router ── the cluster of `ci/demo cluster`, with t3 and web3

kernel_client=vm1
kernel_address=198.18.1.11
kernel_router=198.18.1.1
kernel_targets=3
kernel_window=32
# Several of them on each target at once.
kernel_downloads=6
kernel_rows=()

# kernel_world — everything that stands for all rows: the network, the web servers, etcd, the machine.
kernel_world() {
    local node
    cluster_sized "$kernel_targets"
    # shellcheck disable=SC2034  # read by member_configure
    cluster_cores=0,1 cluster_qpairs=,qpairs=2 cluster_peer_window=$kernel_window
    # shellcheck disable=SC2004,SC2034  # names are the keys
    cluster_remote_ts[$kernel_client]=dynamic
    step "Building the network, and starting a client with Debian's kernel"
    cluster_clear_away
    chroots_ready
    vm_ready
    for node in "$kernel_client" router lan trunk etcd "${cluster_members[@]}" "${cluster_webs[@]}"; do node_start "$node"; done
    kernel_network
    cluster_webs_serve
    etcd_start
    cluster_secrets "$kernel_client"
    vm_start "$kernel_client" vm
    kernel_ask 10 "ip link set eth0 up; ip address add $kernel_address/24 dev eth0; ip route add default via $kernel_router"
    say "$kernel_client: $(kernel_ask 10 'uname -sr'), up after $(kernel_ask 10 'cut -d" " -f1 /proc/uptime') s"
    note "one cable carries what $kernel_targets targets with two data cores each send to it; its replay window is $kernel_window"
}

kernel_ask() { vm_exec "$kernel_client" "$@"; }

# kernel_network — the machine's network card is on a bridge with its cable, where captures are taken.
kernel_network() {
    link "$kernel_client" eth0 router "$kernel_client"
    switch "$kernel_client"
    ip -n "phx-$kernel_client" tuntap add vm mode tap
    ip -n "phx-$kernel_client" link set vm master bridge up
    ip -n "phx-$kernel_client" link set eth0 master bridge
    address router "$kernel_router/24" "$kernel_client"
    cluster_fabric_up
}

# kernel_row POLICY MODE ESN — a cluster that is configured so, all downloads at once, one line.
kernel_row() {
    local policy=$1 mode=$2 esn=$3
    kernel_members "$policy" "$mode" "$esn"
    kernel_connect
    capture_start "$kernel_client" eth0 "$(node_dir "$kernel_client")/wire.pcap" -s 80
    capture_start router phalanx "$(node_dir router)/wire.pcap" -s 80
    kernel_download
    kernel_measure "$policy" "$mode" "$esn"
    # shellcheck disable=SC2016  # expands in the machine
    kernel_ask 20 'swanctl --terminate --ike phalanx --timeout 5 >/dev/null 2>&1; kill $(cat /run/charon.pid); sleep 0.5; ip xfrm state flush; ip xfrm policy flush' || true
}

# kernel_members POLICY MODE ESN
kernel_members() {
    local member
    step "outbound numbers: $1; $2 mode; extended sequence numbers: $3"
    # shellcheck disable=SC2004,SC2034  # names are the keys; read by member_configure and peer_configure
    peer_mode[$kernel_client]=$2 peer_esp_proposals[$kernel_client]=aes128gcm16-x25519
    # shellcheck disable=SC2004,SC2034
    if [[ $3 == yes ]]; then peer_esp_proposals[$kernel_client]=aes128gcm16-x25519-esn; fi
    for member in "${cluster_members[@]}"; do
        if node_runs "$member" phalanx; then member_stop "$member" || die "$member does not stop"; fi
    done
    for member in "${cluster_members[@]}"; do
        member_configure "$member" target "$1" none "$kernel_client"
        member_start "$member"
    done
    wait_until 20 cluster_ready || die "the targets are not ready: $(member_show d1 targets)"
}

# kernel_connect — the machine's strongSwan, and an SA in its kernel.
kernel_connect() {
    local dir
    dir=$(node_dir "$kernel_client")
    peer_configure "$kernel_client" "$(node_dir d1)/$kernel_client.psk"
    line_after "$dir/swanctl.conf" 'esp_proposals =' "                replay_window = $kernel_window"
    cp "$PHALANX_LIB/templates/kernel.strongswan.conf" "$dir/strongswan.conf"
    vm_put "$kernel_client" "$dir/strongswan.conf" /node/strongswan.conf
    vm_put "$kernel_client" "$dir/swanctl.conf" /node/swanctl.conf
    kernel_ask 30 'rm -f /run/charon.vici; (charon-systemd >/node/charon.log 2>&1 & echo $! >/run/charon.pid)
        for _ in {1..100}; do [[ -S /run/charon.vici ]] && break; sleep 0.1; done
        swanctl --load-all --noprompt' >"$dir/initiate.log" || die "strongSwan did not start: $(cat "$dir/initiate.log")"
    if ! kernel_ask 40 'swanctl --initiate --child web --timeout 30' >"$dir/initiate.log"; then
        tail -n 15 "$dir/initiate.log" >&2
        die "no SA came up"
    fi
    say "strongSwan $(kernel_ask 10 'swanctl --version --raw' | sed -n 's/^strongSwan swanctl //p'):" \
        "$(kernel_ask 10 'swanctl --list-sas' | sed -n 's/.*INSTALLED, //p' | head -n 1)," \
        "windows in its kernel (one way, the other way): $(kernel_ask 10 'ip xfrm state' | kernel_windows)"
}

# kernel_windows — the replay windows of `ip xfrm state`; an SA with extended numbers shows its own on a line by itself.
kernel_windows() {
    awk '/replay-window/ { if (!/esn/) print $2 } /replay_window/ { sub(",", "", $2); print $2 }' | sort -n | tr '\n' ' '
}

# kernel_download — sets kernel_arrived, kernel_ms and the drops that the machine's kernel counted meanwhile.
kernel_download() {
    local before said node
    before=$(kernel_drops)
    for node in "${cluster_webs[@]}"; do : >"$(node_dir "$node")/httpd.log"; done
    said=$(kernel_ask 400 "cd /tmp; rm -f got.*; begin=\${EPOCHREALTIME/./}
        for n in {1..$kernel_downloads}; do curl -sS --max-time 300 -o got.\$n http://$dvipa/$one_path & done; wait
        echo \$(((\${EPOCHREALTIME/./} - begin) / 1000)); sha256sum got.* | cut -d' ' -f1; rm -f got.*") || true
    kernel_ms=$(head -n 1 <<<"$said")
    kernel_arrived=$(grep -cx "$one_sha256" <<<"$said" || true)
    ((kernel_arrived == kernel_downloads)) || wrong "$kernel_arrived of $kernel_downloads files arrived right: $said"
    kernel_dropped=$(jq -cn --argjson before "$before" --argjson after "$(kernel_drops)" \
        '$after | with_entries(.value -= ($before[.key] // 0) | select(.value != 0))')
}

# kernel_drops — JSON: what the machine's kernel has dropped of ESP, by its own names.
kernel_drops() {
    # shellcheck disable=SC2016  # awk's own, in the machine
    kernel_ask 10 'cat /proc/net/xfrm_stat' | jq -cRn '[inputs | split("[ \t]+"; null) | {key: .[0], value: (.[1] | tonumber)}] | from_entries'
}

# What of it are replays: duplicates, and what is older than the window. With extended numbers an old one is taken for one of
# the next 2^32 (RFC 4303, appendix A2), so that its ICV is wrong.
kernel_replays='((.XfrmInStateSeqError // 0) + (.XfrmInStateProtoError // 0))'

# kernel_measure POLICY MODE ESN
kernel_measure() {
    local client router replays packets rate counts order failed senders alone
    client=$(node_dir "$kernel_client")/wire.pcap router=$(node_dir router)/wire.pcap
    capture_stop "$client" || wrong "the capture at the client has holes or ended early"
    capture_stop "$router" || wrong "the capture at the router has holes or ended early"
    replays=$(jq "$kernel_replays" <<<"$kernel_dropped")
    packets=$(capture_count "$client" "src host $dvipa and ($filter_native)")
    rate=$(awk -v bytes=$((kernel_arrived * cluster_file_bytes)) -v ms="${kernel_ms:-0}" 'BEGIN { printf "%.1f", (ms > 0 ? bytes * 8 / ms / 1000 : 0) }')
    order=$(kernel_order "$client")
    counts=$(kernel_shares)
    kernel_ask 10 'ip -s xfrm state' >"$(node_dir "$kernel_client")/xfrm-state.log" || true
    failed=$(awk '/replay-window .* replay .* failed/ { sum += $4 } END { print sum + 0 }' "$(node_dir "$kernel_client")/xfrm-state.log")
    senders=$(kernel_senders "$router")
    alone=$(tr ';' '\n' <<<"$senders" | awk 'NF == 3 { alone[$2] } END { for (name in alone) count++; print count + 0 }')
    say "senders of its SAs: $senders"
    say "$1, $2, esn $3: connections $(jq -r 'map("\(.name) \(.connections)") | join(", ")' <<<"$counts"); $packets packets under $(jq .sas <<<"$order") SAs, at most $(jq .late <<<"$order") late; dropped by its kernel: $kernel_dropped; $rate Mbit/s"
    jq -e 'all(.connections > 0)' <<<"$counts" >/dev/null || wrong "not every target had a connection: $counts"
    # All of them soon have one of their own, and what the shared one had before is little.
    if [[ $1 == auto ]] && ((alone < kernel_targets)); then wrong "only $alone of $kernel_targets targets sent on an SA of their own"; fi
    if [[ $1 == via-distributor && $senders =~ \ t[0-9] ]]; then wrong "a target sent by itself, though the distributor is to encrypt everything"; fi
    if ((replays == 0 && failed == 0)); then
        good "its kernel dropped nothing as a replay"
    else
        wrong "its kernel dropped $replays packets as replays ($failed by the SAs that are left)"
    fi
    kernel_rows+=("$(jq -cn --arg policy "$1" --arg mode "$2" --arg esn "$3" --argjson counts "$counts" --argjson packets "$packets" \
        --argjson replays "$replays" --argjson dropped "$kernel_dropped" --argjson order "$order" --argjson rate "$rate" --argjson arrived "$kernel_arrived" \
        '{policy: $policy, mode: $mode, esn: ($esn == "yes"), connections: ($counts | map({(.name): .connections}) | add), files: $arrived,
          packets: $packets, replay_drops: $replays, dropped: $dropped, late_max: $order.late, sas: $order.sas, mbps: $rate}')")
}

# kernel_shares — JSON: how many downloads each target had: how many its web server answered.
kernel_shares() {
    local name
    for name in "${cluster_targets[@]}"; do
        jq -cn --arg name "$name" --argjson count "$(grep -c 'response:200' "$(node_dir "${cluster_web_node[$name]}")/httpd.log" || true)" \
            '{name: $name, connections: $count}'
    done | jq -cs .
}

# kernel_order FILE — JSON: how many SAs the client received on, and how far a packet came behind a later number at most.
kernel_order() {
    esp_numbers "$1" | awk '
        { if (!($2 in top)) sas++; if ($3 > top[$2]) top[$2] = $3; else if (top[$2] - $3 > late) late = top[$2] - $3 }
        END { printf "{\"sas\": %d, \"late\": %d}\n", sas, late }'
}

# kernel_senders FILE — for each SA, who sent on it, by link address.
kernel_senders() {
    local member names=''
    for member in "${cluster_members[@]}"; do names+="$(cluster_mac "$member")=$member "; done
    esp_numbers "$1" | awk -v names="$names" '
        BEGIN { split(names, pairs, " "); for (at in pairs) { split(pairs[at], pair, "="); name[pair[1]] = pair[2] } }
        { count[$2 " " name[$1]]++ }
        END { for (key in count) print key, count[key] }' | sort | awk '
        { if ($1 != last) { printf "%s%s", (last == "" ? "" : "; "), $1; last = $1 } printf " %s %d", $2, $3 }'
}

# esp_numbers FILE — one line for each ESP packet from the DVIPA: link address of its sender, SPI, number, in order.
esp_numbers() {
    tcpdump -e -n -r "$1" "src host $dvipa and ip proto 50" 2>/dev/null | awk '
        function hex(text, at, value) {
            for (at = 3; at <= length(text); at++) value = value * 16 + index("0123456789abcdef", substr(text, at, 1)) - 1
            return value
        }
        match($0, /spi=0x[0-9a-f]+,seq=0x[0-9a-f]+/) {
            split(substr($0, RSTART, RLENGTH), field, /[=,]/)
            print $2, field[2], hex(field[4])
        }'
}

# kernel_keys_stay — the keys that the machine's kernel has are on no wire between the members and in no record of etcd.
# The search has to find them where they are put on purpose.
kernel_keys_stay() {
    step "Where the keys of its SAs are"
    local wire records keys planted
    wire=$(node_dir trunk)/wire.pcap records=$(node_dir etcd)/records
    capture_start trunk d1 "$wire"
    kernel_connect
    kernel_ask 60 "for n in 1 2 3 4 5 6; do curl -sS -o /dev/null http://$dvipa/$one_path & done; wait" || wrong "a download failed"
    capture_stop "$wire" || wrong "the capture between the members has holes or ended early"
    keys=$(kernel_ask 10 'ip xfrm state' | sed -n 's/.*aead rfc4106(gcm(aes)) 0x\([0-9a-f]*\) .*/\1/p')
    kernel_records >"$records"
    say "$(grep -c . <<<"$keys") keys of its kernel, $(stat -c %s "$wire") bytes to and from d1, $(stat -c %s "$records") bytes of etcd"
    if planted=$("$PHALANX_LIB/find-secrets.py" "$wire" "$records" <<<"$keys"); then
        wrong "found: $planted"
    elif (($? != 1)); then
        wrong "the search itself failed"
    else
        good "none of these keys is in what the members said to each other, or in etcd: not raw, in hexadecimal or in base64"
    fi
    # On purpose: one key as a frame between the members and as a record.
    capture_start trunk d1 "$wire"
    head -n 1 <<<"$keys" | kernel_say_aloud
    capture_stop "$wire" || wrong "the capture has holes or ended early"
    etcd_ask put /phalanx/control "$(head -n 1 <<<"$keys" | busybox xxd -r -p | base64 -w 0)" || wrong "etcd takes no record"
    kernel_records >"$records"
    planted=$("$PHALANX_LIB/find-secrets.py" "$wire" "$records" <<<"$keys") || true
    if [[ $planted == *"$wire: "*raw* && $planted == *"$records: "*base64* ]]; then
        good "one of them, put there on purpose, is found in both"
    else
        wrong "one of them was put there on purpose, and the search found: ${planted:-nothing}"
    fi
    etcd_ask del /phalanx/control || true
}

# kernel_records — all that etcd holds.
kernel_records() { ETCDCTL_API=3 in_net etcd etcdctl --endpoints "http://$etcd_address:2379" get '' --prefix; }

# kernel_say_aloud — a key, in hexadecimal on stdin, in the clear to d1: in a frame of an EtherType that nobody listens to.
kernel_say_aloud() {
    in_net trunk python3 -c '
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("d1", 0))
wire.send(b"\x02" * 12 + b"\x88\xb5" + bytes.fromhex(sys.stdin.read().strip()) + bytes(40))'
}

# kernel_counts_replays — the same counter, when there is a replay.
kernel_counts_replays() {
    step "Packets are sent to it a second time"
    local before file count new
    file=$(node_dir router)/again.pcap
    capture_start router "$kernel_client" "$file"
    kernel_ask 30 "curl -sS -r 0-99999 -o /dev/null http://$dvipa/$one_path" || wrong "the download failed"
    capture_stop "$file" || wrong "the capture has holes or ended early"
    tcpdump -n -r "$file" -w "$file.esp" "src host $dvipa and ($filter_native)" 2>/dev/null
    count=$(capture_count "$file.esp" '')
    before=$(kernel_drops)
    in_net router tcpreplay --quiet --pps=200 --intf1="$kernel_client" "$file.esp" >/dev/null
    sleep 0.5
    new=$(($(kernel_drops | jq "$kernel_replays") - $(jq "$kernel_replays" <<<"$before")))
    if ((count > 0 && new == count)); then
        good "its kernel counted all $count as replays, so the zeroes above say something"
    else
        wrong "of $count packets sent again its kernel counted $new as replays"
    fi
}

# kernel_verdict JSON
kernel_verdict() {
    local rows
    rows=$(printf '%s\n' "${kernel_rows[@]}" | jq -cs .)
    step "Result"
    printf '   %-16s %-10s %-4s %-24s %8s %6s %5s %13s %7s\n' policy mode esn connections packets SAs late 'replay drops' Mbit/s
    jq -r '.[] | [.policy, .mode, (if .esn then "yes" else "no" end), (.connections | to_entries | map("\(.key) \(.value)") | join(" ")),
        .packets, .sas, .late_max, .replay_drops, .mbps] | @tsv' <<<"$rows" |
        while IFS=$'\t' read -r -a row; do printf '   %-16s %-10s %-4s %-24s %8s %6s %5s %13s %7s\n' "${row[@]}"; done
    if [[ -n $1 ]]; then
        jq -n --argjson ok "$([[ -z $one_failed ]] && echo true || echo false)" --argjson window "$kernel_window" --argjson rows "$rows" \
            '{scenario: "kernel", ok: $ok, replay_window: $window, rows: $rows}' >"$1"
    fi
    if [[ -n $one_failed ]]; then
        say "${red}Something is wrong; see the lines marked WRONG.$plain"
        exit 1
    fi
    say "${green}All that was promised was seen.$plain"
}
