# shellcheck shell=bash
# Nodes: machines in miniature. Each is a network namespace phx-NAME plus mount, process and host-name
# namespaces, held by one process (node-init.sh). To end a node is to end that process.

# node_dir NAME — the node's own files: configuration, logs, captures.
node_dir() { printf '%s/nodes/%s' "$PHALANX_RUN" "$1"; }

# node_init NAME — the pid of the node's first process; fails when the node does not stand.
node_init() {
    local pid
    pid=$(cat "$(node_dir "$1")/init.pid" 2>/dev/null) || return 1
    [[ -d /proc/$pid ]] || return 1
    printf '%s' "$pid"
}

# node_start NAME [TREE] — the network namespace and its first process.
node_start() {
    local name=$1 tree=${2:-/} dir holder
    dir=$(node_dir "$name")
    mkdir -p "$dir"
    ip netns add "phx-$name"
    # Router solicitations would only muddy the captures; the demo speaks IPv4.
    ip netns exec "phx-$name" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "phx-$name" link set lo up
    setsid ip netns exec "phx-$name" unshare --mount --propagation private --uts --pid --fork --kill-child \
        "$PHALANX_LIB/node-init.sh" "$name" "$tree" "$dir" >"$dir/init.log" 2>&1 </dev/null {demo_lock}>&- &
    holder=$!
    disown
    if ! wait_until 5 test -e "$dir/ready"; then
        cat "$dir/init.log" >&2
        die "node $name did not come up"
    fi
    cut -d' ' -f1 "/proc/$holder/task/$holder/children" >"$dir/init.pid"
}

# node_exec NAME CMD… — in the node's namespaces; the machine's own nodes find the freshly built phalanx.
node_exec() {
    local name=$1 pid
    shift
    pid=$(node_init "$name") || die "node $name is not up"
    nsenter --target "$pid" --net --mount --uts --pid -- \
        env PATH="$PHALANX_TARGET/release:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}

# node_spawn NAME LABEL CMD… — in the background; output goes to LABEL.log, the pid inside the node to LABEL.pid, and
# the exit status, once there is one, to LABEL.status.
node_spawn() {
    local name=$1 label=$2 dir
    shift 2
    dir=$(node_dir "$name")
    # Of an earlier start, it would be taken for this one's.
    rm -f "$dir/$label.pid"
    # shellcheck disable=SC2016  # expands inside the node
    node_exec "$name" setsid sh -c '"$@" 3>&- 4>&- & echo $! >&3; exec 3>&-; wait $!; echo $? >&4' "$label" "$@" \
        3>"$dir/$label.pid" 4>"$dir/$label.status" >>"$dir/$label.log" 2>&1 </dev/null {demo_lock}>&- &
    disown
    wait_until 5 test -s "$dir/$label.pid" || die "$label did not start in $name"
}

# node_signal NAME LABEL SIGNAL — to a process that node_spawn started; true when it was there.
node_signal() {
    local pid
    pid=$(cat "$(node_dir "$1")/$2.pid" 2>/dev/null) || return 1
    node_exec "$1" kill -s "$3" "$pid" 2>/dev/null
}

# node_runs NAME LABEL — whether that process still runs.
node_runs() { node_signal "$1" "$2" 0; }

# node_status NAME LABEL — the exit status of a process that has just ended.
node_status() {
    local file
    file=$(node_dir "$1")/$2.status
    wait_until 2 test -s "$file" || return 1
    cat "$file"
}

# node_stop NAME — ends its first process, and with it everything in the node.
node_stop() {
    local pid
    if pid=$(node_init "$1"); then kill -KILL "$pid" 2>/dev/null || true; fi
}

# nodes_standing — the names of all nodes, from the kernel's list: it cannot be out of date.
nodes_standing() { ip netns list 2>/dev/null | sed -n 's/^phx-\([^ ]*\).*/\1/p'; }

# nodes_down — every node, its processes, its network and its files; safe to call at any time, and twice.
nodes_down() {
    local name pid
    for name in $(nodes_standing); do
        node_stop "$name"
        # What was started by hand inside the namespace is the demo's too: it is in no other network.
        for pid in $(ip netns pids "phx-$name" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
        ip netns delete "phx-$name" 2>/dev/null || true
    done
    # What was killed may take a moment to end.
    wait_until 5 rm -rf "$PHALANX_RUN" 2>/dev/null || warn "$PHALANX_RUN cannot be removed"
}
