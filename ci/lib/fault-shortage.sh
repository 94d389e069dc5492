# shellcheck shell=bash
# Faults that take something away from the appliance: room for connections, packet buffers. Each starts it anew with so
# little that a flood from one client finds the end of it, and once more as it was.

# shortage_begin ANCHOR LINE — the appliance with one more line in its configuration, the clients connected to it.
shortage_begin() {
    cp -p "$(appliance_config)" "$(appliance_config).whole"
    line_after "$(appliance_config)" "$1" "$2"
    shortage_restart
}
shortage_end() {
    must "every packet is accounted for" wait_until 3 balanced
    mv "$(appliance_config).whole" "$(appliance_config)"
    shortage_restart
}
shortage_restart() {
    local client
    appliance_stop >/dev/null || wrong "it did not stop"
    log_seen=$(wc -l <"$(appliance_log)")
    appliance_start
    for client in "${one_clients[@]}"; do peer_connect "$client" || wrong "$client does not connect"; done
}

# logged FILTER — whether the appliance has logged such a line since it started; FILTER is jq's, of the line's fields.
logged() { tail -n +$((log_seen + 1)) "$(appliance_log)" | jq -R "fromjson? | .fields | select($1)" | grep -q .; }
drop_logged() { logged ".message == \"packets dropped\" and .reason == \"$1\""; }
dropped_at_least() { (($(drops "${@:2}") >= $1)); }
connections() { appliance_show connections | jq length; }

# datagrams NAME COUNT — to the port where nobody answers, each from a port of its own: so many connections.
datagrams() {
    # shellcheck disable=SC2016  # expands inside the node
    node_exec "$1" bash -c 'for ((i = 0; i < $1; i++)); do echo once >"/dev/udp/$2/9" || exit 1; done' bash "$2" "$dvipa"
}

fault_full_table() {
    step "The connection tables are full during a download"
    # 16 for each of the two cores: 200 datagrams fill both, whichever core each of them hashes to.
    shortage_begin 'idle: adaptive' '  connections: 16'
    datagrams_unheard
    fetch_begin client1
    datagrams client1 200
    must "the download still runs" kill -0 "$fetch_pid"
    # A few may have been lost on their way here.
    must "most of the others are dropped as connection_table_full" wait_until 5 dropped_at_least 150 connection_table_full
    must "as many connections as there is room for: $(connections)" test "$(connections)" -eq 32
    must "somebody new finds no room" not node_exec client2 curl -s --max-time 2 -o /dev/null --head "http://$dvipa/"
    must "it is logged" wait_until 5 drop_logged connection_table_full
    must "the established download goes on to its end" fetch_ends_well
    say "waiting for the entries to age"
    must "what nobody answers is forgotten" wait_until 60 datagram_forgotten
    must "somebody new finds room again" fetches client2
    datagrams_heard
    shortage_end
}

buffers_in_use() { appliance_show ports | jq 'map(.mempool_in_use) | max'; }
buffers_missed() { appliance_show ports | jq '.[] | select(.name == "net0") | .rx_no_mbuf'; }
buffers_home() { (($(buffers_in_use) == 0)); }

# core_starve CORE, core_feed — something more urgent takes nearly all of the processor of one data core, so that what
# other cores hand over to it waits.
core_starve() {
    timeout 60 taskset -c "$1" chrt --fifo 1 bash -c 'while :; do :; done' {demo_lock}>&- &
    starve_pid=$!
}
core_feed() {
    kill "$starve_pid"
    wait "$starve_pid" 2>/dev/null || true
}

# flood_make — datagrams of client2 that the appliance has taken already, from many outer ports, so that they come by
# both receive queues, whichever core owns them.
flood_make() {
    local file port
    file=$(node_dir router)/flood.pcap
    record client2 "$file" datagrams client2 64
    flood_files=()
    for port in {31001..31008}; do
        tcprewrite --infile="$file" --outfile="${file%.pcap}.$port.pcap" --portmap="$(datagram_port "$file"):$port" \
            --fixcsum >/dev/null
        flood_files+=("${file%.pcap}.$port.pcap")
    done
}
flood() { in_net router tcpreplay --quiet --pps=20000 --loop=100 --intf1=phalanx "${flood_files[@]}" >/dev/null; }

fault_no_buffers() {
    step "All packet buffers are in use during a download"
    shortage_begin '^  args:' '  mbufs: 256'
    datagrams_unheard
    flood_make
    must "no buffer is missing yet" test "$(buffers_missed)" -eq 0
    fetch_begin client1
    core_starve 0
    flood
    core_feed
    must "$(buffers_missed) polls of the network port found no buffer" test "$(buffers_missed)" -gt 0
    must "it is logged" logged '.message == "no free packet buffer, reception waits for one"'
    must "and that there are buffers again" wait_until 5 logged '.message == "packet buffers are free again"'
    must "the download goes on to its end" fetch_ends_well
    must "every buffer came home" wait_until 5 buffers_home
    must "the SAs stand" wait_until 5 one_pair client2
    must "the next download works" fetches client2
    datagrams_heard
    shortage_end
}
