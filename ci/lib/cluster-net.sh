# shellcheck shell=bash
# The network of the cluster's demo: that of the other one, with a cluster where the one appliance was.
#
#   client1 ── 198.51.100.0/25 ──┐                          ┌── d1 ──┐
#   client2 ── nat ── …128/25 ───┤ router ── 192.0.2.0/24 ──┼── t1 ──┼── 10.255.0.0/24, trusted
#   client3 ── 198.18.0.0/24 ────┘        (a switch: lan)   └── t2 ──┘   (a switch: trunk)
#
#   t1 ── 10.9.1.0/24 ── web1      t2 ── 10.9.2.0/24 ── web2      all ── 10.254.0.0/24 ── etcd
#
# The web servers hold the DVIPA on their loopbacks. On the network, d1 alone answers for it.

declare -A cluster_network=() cluster_trusted=() cluster_management=() cluster_inside=() cluster_web=() cluster_web_node=()

# cluster_sized TARGETS — the distributor d1 and so many targets, t1, t2, …, each with its web server; at most six.
cluster_sized() {
    local number member
    cluster_members=(d1) cluster_targets=() cluster_webs=()
    for ((number = 1; number <= $1; number++)); do
        member=t$number
        cluster_members+=("$member") cluster_targets+=("$member") cluster_webs+=("web$number")
        cluster_inside[$member]=10.9.$number.1
        cluster_web[$member]=10.9.$number.80
        cluster_web_node[$member]=web$number
    done
    number=0
    for member in "${cluster_members[@]}"; do
        cluster_network[$member]=192.0.2.$((10 + number))
        number=$((number + 1))
        cluster_trusted[$member]=10.255.0.$number
        cluster_management[$member]=10.254.0.$number
    done
}
cluster_sized 2
client3_address=198.18.0.11
client3_router=198.18.0.1
etcd_address=10.254.0.7
# What the widest packet of the network needs beside itself on its way between members.
trusted_mtu=1700
export cluster_members cluster_targets cluster_webs client3_address etcd_address

# switch NODE — a bridge; cables are plugged in by plug.
switch() {
    ip -n "phx-$1" link add bridge type bridge
    ip -n "phx-$1" link set bridge up
}

# plug NODE IF SWITCH PORT [MTU]
plug() {
    link "$1" "$2" "$3" "$4"
    ip -n "phx-$3" link set "$4" master bridge
    if [[ -n ${5:-} ]]; then
        ip -n "phx-$1" link set "$2" mtu "$5"
        ip -n "phx-$3" link set "$4" mtu "$5"
    fi
}

# cluster_network_up — the nodes must stand.
cluster_network_up() {
    link client1 eth0 router client1
    link client2 eth0 nat inside
    link nat outside router nat
    link client3 eth0 router client3
    clients_addresses
    address client3 "$client3_address/24" eth0
    address router "$client3_router/24" client3
    route client3 default via "$client3_router"
    cluster_fabric_up
}

# cluster_fabric_up — all but the clients, up to the router.
cluster_fabric_up() {
    local member
    for member in lan trunk etcd; do switch "$member"; done
    plug router phalanx lan router
    for member in "${cluster_members[@]}"; do
        plug "$member" net0 lan "$member"
        plug "$member" tr0 trunk "$member" "$trusted_mtu"
        plug "$member" mg0 etcd "$member"
        address "$member" "${cluster_management[$member]}/24" mg0
    done
    address etcd "$etcd_address/24" bridge
    address router "$network_router/24" phalanx
    in_net router sysctl -q -w net.ipv4.ip_forward=1
    for member in "${cluster_targets[@]}"; do cluster_web_up "$member"; done
    route router "$dvipa/32" dev phalanx
}

# cluster_web_up TARGET — the web server behind it.
cluster_web_up() {
    local node=${cluster_web_node[$1]}
    link "$1" in0 "$node" eth0
    address "$node" "${cluster_web[$1]}/24" eth0
    address "$node" "$dvipa/32" lo
    in_net "$node" sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    route "$node" default via "${cluster_inside[$1]}"
}
