# shellcheck shell=bash
# What is done to a standing demo, and what must be seen then. One function for each fault, named fault_…; each leaves
# the demo as it found it, so that any of them can run alone.

# The addresses that the appliance sees: of client2, its NAT's.
declare -A peer_wire_address=([client1]=$client1_address [client2]=$nat_address)

# The file that web1 serves.
fault_file() { find "$(node_dir web1)/www" -type f -name "secret-*"; }

# drops REASON… — how many packets the appliance has dropped for any of these reasons.
drops() {
    appliance_show drops | jq --args 'map(select(.reason as $r | $ARGS.positional | index($r)) | .packets) | add // 0' "$@"
}
delivered() { appliance_show balance | jq .delivered; }
sa_count() { appliance_show sas | jq --arg peer "$1.example" 'map(select(.peer == $peer)) | length'; }
no_sas() { [[ $(sa_count "$1") == 0 ]]; }
one_pair() { [[ $(sa_count "$1") == 2 ]]; }
link_is() { [[ $(appliance_show ports | jq -r --arg port "$1" '.[] | select(.name == $port) | .link') == "$2" ]]; }
balanced() { [[ $(appliance_show balance | jq .difference) == 0 ]]; }

# must TEXT CMD… — one thing that must be so.
must() {
    local text=$1
    shift
    if "$@"; then good "$text"; else wrong "not so: $text"; fi
}

# fetches NAME — the whole file, and it is the right one.
fetches() {
    local file
    file=$(fault_file)
    rm -f "$(node_dir "$1")/download"
    node_exec "$1" curl -s --max-time 120 -o /node/download "http://$dvipa/${file##*/}" || return 1
    cmp -s "$file" "$(node_dir "$1")/download"
}

# fetch_begin NAME — in the background; fetch_underway waits for the first megabytes.
fetch_begin() {
    fetches "$1" {demo_lock}>&- &
    fetch_pid=$!
    wait_until 20 fetch_underway "$1" || wrong "the download did not begin"
}
fetch_underway() { (($(stat -c %s "$(node_dir "$1")/download" 2>/dev/null || echo 0) > 3000000)); }
fetch_ends_well() { wait "$fetch_pid"; }
fetch_fails() { ! wait "$fetch_pid"; }

# fresh_sas NAME — new SAs, so that a recording does not straddle a rekey.
fresh_sas() {
    node_exec "$1" swanctl --terminate --ike phalanx --timeout 5 >/dev/null 2>&1 || true
    peer_connect "$1"
}

# record NAME FILE CMD… — what NAME sends to the appliance in ESP while CMD runs, as it arrives there.
record() {
    local name=$1 file=$2 whole source=${peer_wire_address[$1]}
    shift 2
    whole=${file%.pcap}.all.pcap
    capture_start router phalanx "$whole"
    "$@"
    capture_stop "$whole" || wrong "the recording has holes"
    tcpdump -n -r "$whole" -w "$file" "src host $source and dst host $dvipa and ($filter_native or ($filter_encapsulated))" 2>/dev/null
}

# send_again FILE — the recorded packets, from the router.
send_again() { in_net router tcpreplay --quiet --pps=1000 --intf1=phalanx "$1" >/dev/null; }

# refused FILE REASON… — sends the recording again: each packet must be dropped for a reason named, none delivered.
refused() {
    local file=$1 wire count before_drops before_delivered new
    shift
    wire=$(node_dir web1)/refused.pcap
    count=$(capture_count "$file" '')
    before_drops=$(drops "$@")
    before_delivered=$(delivered)
    capture_start web1 eth0 "$wire"
    send_again "$file"
    capture_stop "$wire" || wrong "the capture at web1 has holes"
    new=$(($(drops "$@") - before_drops))
    must "$count recorded packets sent again, $new dropped as $*" test "$count" -gt 0 -a "$new" -eq "$count"
    must "none of them counted as delivered" test "$(delivered)" -eq "$before_delivered"
    must "not one IP packet on web1's wire" test "$(capture_count "$wire" ip)" -eq 0
}

replay_reasons=(replay_duplicate replay_too_old)

fault_replay() {
    local name file
    for name in client1 client2; do
        step "Packets of $name are sent again"
        file=$(node_dir router)/$name.pcap
        fresh_sas "$name"
        record "$name" "$file" node_exec "$name" curl -s -o /dev/null -r 0-999999 "http://$dvipa/$(basename "$(fault_file)")"
        refused "$file" "${replay_reasons[@]}"
        must "$name goes on" fetches "$name"
    done
}

# A connection that has been forgotten, through another receive queue: nothing but the replay window stands between
# this packet and the service. The kernel chooses the queue from the ports by a secret of its own. A core that receives
# what another owns hands it over, and the owner is always the same: so this count tells one of two queues from the other.
fault_replay_forgotten() {
    step "A datagram whose connection is forgotten is sent again, from another UDP port"
    local file port before first again
    file=$(node_dir router)/datagram.pcap
    datagrams_unheard
    fresh_sas client2
    before=$(handed_over)
    record client2 "$file" node_exec client2 bash -c "echo once >/dev/udp/$dvipa/9"
    first=$(($(handed_over) - before))
    must "the appliance knows the connection now" not datagram_forgotten
    say "waiting for it to be forgotten"
    must "the appliance forgets a datagram that nobody answers" wait_until 60 datagram_forgotten
    # That all go through one queue happens once in 2^15 times.
    for port in {31001..31016}; do
        # Only the source port: the destination has to stay 4500.
        tcprewrite --infile="$file" --outfile="${file%.pcap}.$port.pcap" \
            --portmap="$(datagram_port "$file"):$port" --fixcsum >/dev/null
        before=$(handed_over)
        refused "${file%.pcap}.$port.pcap" "${replay_reasons[@]}"
        again=$(($(handed_over) - before))
        if ((again != first)); then break; fi
    done
    must "it came once, by one queue" test "$first" -eq 0 -o "$first" -eq 1
    must "a copy came by the other queue" test "$((first + again))" -eq 1
    datagrams_heard
    must "client2 goes on" fetches client2
}
handed_over() { appliance_show cores | jq 'map(.handed_over) | add'; }
# Nobody answers there, in words either: an ICMP error is an answer, too.
datagrams_unheard() {
    in_net web1 nft add table ip fault
    in_net web1 nft add chain ip fault input '{ type filter hook input priority 0; }'
    in_net web1 nft add rule ip fault input udp dport 9 drop
}
datagrams_heard() { in_net web1 nft delete table ip fault; }
datagram_forgotten() { [[ $(appliance_show connections | jq 'map(select(.protocol == "udp")) | length') == 0 ]]; }
datagram_port() { tcpdump -n -r "$1" -c 1 2>/dev/null | sed -n 's/.*IP [0-9.]*\.\([0-9]*\) > .*/\1/p'; }

fault_cleartext() {
    step "Somebody asks the service in clear"
    local before
    before=$(drops cleartext_to_protected)
    must "no answer" not in_net router curl -s --max-time 2 -o /dev/null "http://$dvipa/"
    must "counted as cleartext to a protected address" test "$(drops cleartext_to_protected)" -gt "$before"
}
not() { ! "$@"; }

fault_killed_client() {
    step "client1 is killed and comes back"
    node_signal client1 charon KILL
    peer_start client1
    must "it connects again" peer_connect client1
    must "its former SAs are gone" wait_until 10 one_pair client1
    must "it downloads" fetches client1
}

fault_dead_client() {
    step "client2 is killed and stays away"
    node_signal client2 charon KILL
    say "waiting for the appliance to notice"
    must "its SAs are taken down" wait_until 300 no_sas client2
    peer_start client2
    must "when it comes back it is served" peer_connect client2
    must "it downloads" fetches client2
}

fault_killed_web() {
    step "The web server is killed during a download"
    fetch_begin client1
    node_signal web1 httpd KILL
    must "the client is told at once" fetch_fails
    must "the SAs stand" wait_until 5 one_pair client1
    web_start
    must "the next download works" fetches client1
}

fault_network_link() {
    step "The cable of the network port is pulled during a download"
    fetch_begin client1
    ip -n phx-router link set phalanx down
    must "the port's link is reported down" wait_until 5 link_is net0 down
    sleep 2
    ip -n phx-router link set phalanx up
    network_routes
    must "and up again" wait_until 5 link_is net0 up
    must "the download goes on to its end" fetch_ends_well
}

fault_inside_link() {
    step "The cable of the inside port is pulled during a download"
    fetch_begin client2
    ip -n phx-web1 link set eth0 down
    must "the port's link is reported down" wait_until 5 link_is in0 down
    sleep 2
    ip -n phx-web1 link set eth0 up
    network_routes
    must "and up again" wait_until 5 link_is in0 up
    must "the download goes on to its end" fetch_ends_well
}
