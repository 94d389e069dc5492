# shellcheck shell=bash
# What was on a wire: captures, and what they hold.

# capture_start NODE INTERFACE FILE [OPTION…] — every packet there, from now on; tcpdump's options bound it. The file
# name ends in .pcap: that is what AppArmor lets tcpdump write.
capture_start() {
    local node=$1 interface=$2 file=$3
    shift 3
    setsid ip netns exec "phx-$node" tcpdump -i "$interface" -n -s 0 -B 65536 -Z root -w "$file" "$@" \
        >"$file.log" 2>&1 </dev/null {demo_lock}>&- &
    echo $! >"$file.pid"
    disown
    wait_until 5 grep -qs 'listening on' "$file.log" || die "tcpdump did not start in $node: $(cat "$file.log")"
}

# process_ended PID — a process without an executable is gone, or a zombie.
process_ended() { [[ ! -e /proc/$1/exe ]]; }

# capture_stop FILE — fails when the capture has holes or ended by itself, since then it proves nothing.
capture_stop() {
    local pid dropped
    pid=$(cat "$1.pid")
    if process_ended "$pid"; then return 1; fi
    # The kernel hands packets over in blocks, up to a second late.
    sleep 1.2
    kill -INT "$pid" 2>/dev/null || return 1
    # Only when it has ended is the file whole.
    wait_until 5 process_ended "$pid" || return 1
    dropped=$(sed -n 's/^\([0-9]*\) packets dropped by kernel.*/\1/p' "$1.log")
    [[ $dropped == 0 ]]
}

# capture_count FILE FILTER — fails when the file cannot be read to its end.
capture_count() {
    local said
    said=$(tcpdump --count -n -r "$1" "$2" 2>/dev/null) || return 1
    [[ $said =~ ^([0-9]+)\ packet ]] || return 1
    printf '%s\n' "${BASH_REMATCH[1]}"
}

filter_native='ip proto 50'
# RFC 3948: what does not start with four zero bytes and is more than a keepalive is ESP.
filter_encapsulated='udp port 4500 and udp[4:2] > 12 and udp[8:4] != 0'
filter_ike='udp port 500 or (udp port 4500 and udp[4:2] > 12 and udp[8:4] = 0)'
# The clients' wires carry TCP for the service alone, so any TCP outside ESP is the service's, in clear.
filter_clear='tcp'

# capture_holds FILE TEXT — whether the bytes of TEXT stand anywhere in it.
capture_holds() { LC_ALL=C grep -qaF -- "$2" "$1"; }
