# shellcheck shell=bash
# The members of the demo's cluster: certificates, configuration, start, questions, end; and the etcd that they share.

# member_phalanx MEMBER ARGUMENT… — the program, in the member's node.
member_phalanx() { node_exec "$1" phalanx "${@:2}"; }

# member_show MEMBER WHAT — as JSON.
member_show() { member_phalanx "$1" show "$2" --json; }

member_log() { printf '%s/phalanx.log' "$(node_dir "$1")"; }

# etcd_start — one server, reached by the members alone.
etcd_start() {
    local url="http://$etcd_address:2379"
    node_spawn etcd etcd etcd --name demo --data-dir "$(node_dir etcd)/data" --listen-client-urls "$url" \
        --advertise-client-urls "$url" --listen-peer-urls http://127.0.0.1:2380 --log-level warn
    wait_until 15 etcd_ask endpoint health || die "etcd did not start: $(tail -n 5 "$(node_dir etcd)/etcd.log")"
}

# etcd_ask ARGUMENT…
etcd_ask() { ETCDCTL_API=3 in_net etcd etcdctl --endpoints "http://$etcd_address:2379" "$@" >/dev/null 2>&1; }

# cluster_secrets CLIENT… — the cluster's own authority, a certificate for each member, the key that wraps SA keys in
# etcd, and the clients' pre-shared keys.
cluster_secrets() {
    local shared member client
    shared=$(node_dir etcd)/pki
    "$PHALANX_TARGET/release/phalanx" pki init --directory "$shared" --cluster demo >/dev/null
    for member in "${cluster_members[@]}"; do
        "$PHALANX_TARGET/release/phalanx" pki issue --directory "$shared" --member "$member" >/dev/null
        mkdir -p "$(node_dir "$member")/pki"
        cp "$shared/ca.pem" "$shared/$member.pem" "$shared/$member.key" "$(node_dir "$member")/pki/"
    done
    (umask 077 && printf '0x%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$shared/wrap.key")
    for member in "${cluster_members[@]}"; do cp "$shared/wrap.key" "$(node_dir "$member")/wrap.key"; done
    for client in "$@"; do secret_make "$(node_dir d1)/$client.psk"; done
}

# member_configure MEMBER PROCESSING SEQUENCE PROTECT CLIENT…
member_configure() {
    local member=$1 processing=$2 sequence=$3 protect=$4 kind=target client other id=0 connections='' secrets='' members='' targets='' file
    shift 4
    file=$(node_dir "$member")/phalanx.yaml
    if [[ $member == d1 ]]; then kind=distributor; fi
    for client in "$@"; do
        connections+=$(sed -e "s|@CLIENT@|$client|g" -e "s|@REMOTE_TS@|${cluster_remote_ts[$client]}|" \
            -e "s|@MODE@|${peer_mode[$client]:-tunnel}|" -e "s|@ESP_PROPOSALS@|${peer_esp_proposals[$client]:-$esp_proposals}|" \
            "$PHALANX_LIB/templates/connection.yaml")$'\n'
        secrets+="  ike-$client: {id: [$client.example], file: $client.psk}"$'\n'
    done
    for other in "${cluster_members[@]}"; do
        id=$((id + 1))
        members+="    - {name: $other, id: $id, address: ${cluster_trusted[$other]}}"$'\n'
    done
    for other in "${cluster_targets[@]}"; do targets+="${targets:+, }{member: $other}"; done
    cat "$PHALANX_LIB/templates/cluster.yaml" "$PHALANX_LIB/templates/$kind.yaml" |
        awk -v connections="$connections" -v secrets="$secrets" -v members="$members" '
            /@CONNECTIONS@/ { printf "%s", connections; next }
            /@SECRETS@/ { printf "%s", secrets; next }
            /@MEMBERS@/ { printf "%s", members; next }
            { print }' |
        sed -e "s|@MEMBER@|$member|g" -e "s|@DATA@|${cluster_cores:-0}|" -e "s|@QPAIRS@|${cluster_qpairs:-}|g" \
            -e "s|@PROCESSING@|$processing|" -e "s|@SEQUENCE@|$sequence|" -e "s|@PROTECT@|$protect|" \
            -e "s|@TARGETS@|$targets|" -e "s|@PEER_WINDOW@|${cluster_peer_window:-128}|" \
            -e "s|@NETWORK@|${cluster_network[$member]}|" -e "s|@TRUSTED@|${cluster_trusted[$member]}|" \
            -e "s|@INSIDE@|${cluster_inside[$member]:-}|" -e "s|@WEB@|${cluster_web[$member]:-}|" >"$file"
    chmod 600 "$file"
}
# What a client behind a NAT has for itself is nobody's business but its own.
# shellcheck disable=SC2034  # read above, by name
declare -A cluster_remote_ts=([client1]=dynamic [client2]=10.1.0.0/16 [client3]=dynamic)

# member_start MEMBER — true when it answers; says why when not.
member_start() {
    local member=$1 deadline=$((SECONDS + 20))
    mkdir -p "$(node_dir "$member")/state"
    node_exec "$member" mkdir -p /run/phalanx
    node_spawn "$member" phalanx phalanx run -c "$(node_dir "$member")/phalanx.yaml" --state "$(node_dir "$member")/state"
    until member_show "$member" ports >/dev/null 2>&1; do
        if ((SECONDS >= deadline)) || ! node_runs "$member" phalanx; then
            tail -n 30 "$(member_log "$member")" >&2
            die "$member did not start (the end of its log stands above)"
        fi
        sleep 0.2
    done
}

# member_stop MEMBER — SIGTERM; false after 10 s.
member_stop() {
    node_signal "$1" phalanx TERM || return 1
    wait_until 10 member_stopped "$1"
}
member_stopped() { ! node_runs "$1" phalanx; }

# cluster_ready — the owner has all targets, ready.
cluster_ready() {
    [[ $(member_show d1 targets 2>/dev/null | jq 'map(select(.state == "ready")) | length') == "${#cluster_targets[@]}" ]]
}
