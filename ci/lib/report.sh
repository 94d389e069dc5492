# shellcheck shell=bash
# What was seen, for people and for machines.

# report_sas TABLE SUMS — one line for each SA and direction, both ends side by side.
report_sas() {
    local direction spi cb cp ab ap
    printf '   %-24s %28s   %28s\n' "SA (as the client sees it)" "client: bytes / packets" "appliance: bytes / packets"
    while read -r direction spi cb cp ab ap; do
        printf '   %-4s %-19s %18s / %7s   %18s / %7s\n' "$direction" "$spi" \
            "$(grouped "$cb")" "$(grouped "$cp")" "$(grouped "$ab")" "$(grouped "$ap")"
    done < <(
        jq -r '.[] | "\(.direction) \(.spi) \(.client.bytes) \(.client.packets) \(.appliance.bytes) \(.appliance.packets)"' <<<"$1"
        jq -r 'to_entries[] | .key as $d | .value | "\($d) all \(.client.bytes) \(.client.packets) \(.appliance.bytes) \(.appliance.packets)"' <<<"$2"
    )
}

# report_drops — the appliance's drops by reason, those that happened.
report_drops() {
    local drops=$1
    if [[ $(jq 'map(.packets) | add // 0' <<<"$drops") == 0 ]]; then
        say "dropped: nothing"
        return
    fi
    say "dropped, by reason:"
    jq -r '.[] | select(.packets > 0) | "      \(.packets) \(.reason): \(.meaning // "")"' <<<"$drops"
}

# report_balance BALANCE — every packet has exactly one end.
report_balance() {
    say "$(jq -r '"received \(.received) = delivered \(.delivered) + forwarded \(.forwarded) + punted \(.punted)"
        + " + merged \(.merged) + dropped \(.dropped) + held \(.held), difference \(.difference)"' <<<"$1")"
}

# report_cores CORES — the poll loops, and how much of the work each had.
report_cores() {
    jq -r '.[] | select(.role == "data") | "\(.thread) on processor \(.cpu): \(.busy_polls) polls found packets,"
        + " \(.handed_over) packets handed to the core that owns their connection or SA"' <<<"$1" |
        while read -r line; do say "$line"; done
}

# json_client NAME KEY JSON… — one client's result; the fixed keys come first, details follow.
json_client() {
    local name=$1 arguments=(-n -c --arg name "$1")
    shift
    # shellcheck disable=SC2016  # jq's own
    local filter='{name: $name}'
    while (($#)); do
        arguments+=(--argjson "$1" "$2")
        filter+=" + {$1: \$$1}"
        shift 2
    done
    jq "${arguments[@]}" "$filter"
}
