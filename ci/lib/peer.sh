# shellcheck shell=bash
# The clients: strongSwan, as Debian ships it, in nodes of their own.

# name → Debian suite, raw_esp and what follows from it, and what a newcomer should know about it.
declare -A peer_suite=([client1]=trixie [client2]=bookworm [client3]=trixie)
declare -A peer_raw_esp=([client1]=yes [client2]=no [client3]=yes)
declare -A peer_encap=([client1]=none [client2]=udp [client3]=none)
declare -A peer_address=([client1]=$client1_address [client2]=$client2_address [client3]=$client3_address)
# Who is not named here has the words below it.
declare -A peer_mode=() peer_esp_proposals=()
esp_proposals=aes128gcm16-x25519
declare -A peer_encap_words=([none]="is native (IP protocol 50)" [udp]="is inside UDP port 4500")
declare -A peer_about=(
    [client1]="on the open network, speaks native ESP (IP protocol 50)"
    [client2]="behind a NAT, speaks ESP inside UDP port 4500"
    [client3]="on another open network, speaks native ESP"
)

# secret_make FILE — a fresh pre-shared key, in a form that swanctl and phalanx read alike.
secret_make() { (umask 077 && printf '0s%s\n' "$(head -c 32 /dev/urandom | base64 -w 0)" >"$1"); }

# peer_configure NAME SECRET_FILE — fills the templates in; they are the place to read what a client needs.
peer_configure() {
    local name=$1 dir template
    dir=$(node_dir "$name")
    for template in strongswan.conf swanctl.conf; do
        sed -e "s|@RAW_ESP@|${peer_raw_esp[$name]:-no}|" -e "s|@DVIPA@|$dvipa|" -e "s|@MODE@|${peer_mode[$name]:-tunnel}|" \
            -e "s|@ESP_PROPOSALS@|${peer_esp_proposals[$name]:-$esp_proposals}|" \
            -e "s|@CLIENT_ID@|$name.example|" -e "s|@GATEWAY_ID@|gateway.example|" \
            -e "s|@SECRET@|$(cat "$2")|" "$PHALANX_LIB/templates/client.$template" >"$dir/$template"
    done
}

# peer_start NAME — the daemon and its configuration; a client that cannot start fails the run.
peer_start() {
    local name=$1 log
    log=$(node_dir "$name")/charon.log
    # The daemon's socket buffer holds some 90 packets and drops what comes beyond. A TCP window below that loses
    # none, so that both ends' counters can be compared to the byte.
    in_net "$name" sysctl -q -w net.ipv4.tcp_rmem="4096 65536 65536"
    # One that was killed leaves its socket behind.
    node_exec "$name" rm -f /run/charon.vici
    node_spawn "$name" charon charon-systemd
    if ! wait_until 15 node_exec "$name" test -S /run/charon.vici ||
        ! node_exec "$name" swanctl --load-all --noprompt >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "strongSwan did not start in $name"
    fi
}

# peer_version NAME
peer_version() { node_exec "$1" swanctl --version --raw | sed -n 's/^strongSwan swanctl //p'; }

# peer_connect NAME — IKE_SA and CHILD_SA; false when the gateway does not agree.
peer_connect() { node_exec "$1" swanctl --initiate --child web --timeout 30 >>"$(node_dir "$1")/initiate.log" 2>&1; }

# peer_sas NAME — a JSON array, one object for each CHILD_SA and direction: direction spi bytes packets, as the
# client counts them: IP packets inside the tunnel. Fails when the client cannot tell: that is not an empty list.
peer_sas() {
    local raw
    raw=$(node_exec "$1" swanctl --list-sas --raw 2>/dev/null) || return 1
    { grep -o '[^ {]* {name=[^{}]*}' || (($? == 1)); } <<<"$raw" | awk '
        function say(direction, spi, bytes, packets) {
            printf "%s{\"direction\":\"%s\",\"spi\":\"0x%s\",\"bytes\":%s,\"packets\":%s}",
                separator, direction, spi, bytes, packets
            separator = ","
        }
        BEGIN { printf "[" }
        {
            delete field
            for (i = 1; i <= NF; i++) if (split($i, pair, "=") == 2) field[pair[1]] = pair[2]
            if (!("spi-in" in field)) next
            say("in", field["spi-in"], field["bytes-in"], field["packets-in"])
            say("out", field["spi-out"], field["bytes-out"], field["packets-out"])
        }
        END { print "]" }'
}

# peer_tunnel NAME — JSON: what went through the client's tunnel device, over all SAs, as its kernel counted.
peer_tunnel() {
    ip -n "phx-$1" -s -j link show ipsec0 | jq -c '.[0].stats64 |
        {in: {bytes: .rx.bytes, packets: .rx.packets}, out: {bytes: .tx.bytes, packets: .tx.packets}}'
}

# peer_lost NAME — packets that its sockets dropped before the daemon read them; they explain a gap in counters.
# shellcheck disable=SC2016  # awk's own
peer_lost() { node_exec "$1" awk 'FNR > 1 { lost += $NF } END { print lost + 0 }' /proc/net/raw /proc/net/udp; }
