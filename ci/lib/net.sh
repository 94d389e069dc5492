# shellcheck shell=bash
# The network of the demo. Addresses come from the ranges that are reserved for examples.
#
#   client1 ── 198.51.100.0/25 ──┐
#                                router ── 192.0.2.0/24 ── appliance1 ── 10.9.0.0/24 ── web1
#   client2 ── nat ── 198.51.100.128/25 ┘   (network port)            (inside port)
#
# Nobody but web1 holds the DVIPA, on its loopback. The router takes it for an address on the appliance's own
# segment and asks for it by ARP, so it is the appliance's answer that brings the traffic there. The kernel in
# appliance1 holds no address at all: DPDK reads and writes its two interfaces.

dvipa=203.0.113.80
client1_address=198.51.100.11
client1_router=198.51.100.1
nat_address=198.51.100.140
nat_router=198.51.100.129
nat_inside=10.1.2.1
client2_address=10.1.2.12
network_router=192.0.2.1
network_address=192.0.2.10
inside_address=10.9.0.1
web1_address=10.9.0.80
export dvipa client1_address client1_router nat_address nat_router nat_inside client2_address
export network_router network_address inside_address web1_address

# in_net NODE CMD… — only the network namespace, with the machine's own tools.
in_net() {
    local node=$1
    shift
    ip netns exec "phx-$node" "$@"
}

# link NODE_A IF_A NODE_B IF_B — a cable. Checksums and segmentation are done by the sender: what arrives at a
# DPDK port has to be what would be on a real wire.
link() {
    ip -n "phx-$1" link add "$2" type veth peer name "$4" netns "phx-$3"
    local node interface
    for node in "$1 $2" "$3 $4"; do
        interface=${node#* }
        node=${node% *}
        in_net "$node" ethtool -K "$interface" tx off tso off gso off gro off >/dev/null
        ip -n "phx-$node" link set "$interface" up
    done
}

address() { ip -n "phx-$1" address add "$2" dev "$3"; }
route() { ip -n "phx-$1" route replace "${@:2}"; }

# network_routes — again after a link was pulled: the kernel forgets routes over a link that is down.
network_routes() {
    clients_routes
    route router "$dvipa/32" dev phalanx
    route web1 default via "$inside_address"
}

# clients_addresses — those of client1, of client2 behind its NAT, and the router's towards them.
clients_addresses() {
    address client1 "$client1_address/25" eth0
    address router "$client1_router/25" client1

    address client2 "$client2_address/24" eth0
    address nat "$nat_inside/24" inside
    address nat "$nat_address/25" outside
    address router "$nat_router/25" nat
    in_net nat sysctl -q -w net.ipv4.ip_forward=1
    # Ports of their own, as a NAT with many clients behind it would give: nobody may rely on 500 or 4500.
    in_net nat nft -f - <<-RULES
		table ip nat {
		    chain postrouting {
		        type nat hook postrouting priority srcnat
		        oifname "outside" meta l4proto udp masquerade to :20000-29999
		        oifname "outside" masquerade
		    }
		}
	RULES
    clients_routes
}

clients_routes() {
    route client1 default via "$client1_router"
    route client2 default via "$nat_inside"
    route nat default via "$nat_router"
}

# network_up — the nodes must stand.
network_up() {
    link client1 eth0 router client1
    link client2 eth0 nat inside
    link nat outside router nat
    link router phalanx appliance1 net0
    link appliance1 in0 web1 eth0

    clients_addresses
    address router "$network_router/24" phalanx
    in_net router sysctl -q -w net.ipv4.ip_forward=1

    address web1 "$web1_address/24" eth0
    address web1 "$dvipa/32" lo
    # The DVIPA is for the loopback alone: web1 neither answers ARP for it nor asks in its name.
    in_net web1 sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    network_routes
}
