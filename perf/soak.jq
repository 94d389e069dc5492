# What a soak has seen, as one object, and whether it was right. perf/soak says where the arguments come from.

# Whatever the pace, time ends an SA: rekeyed at the age of 7 s or 8 s at the latest, and taken from the cores a second
# after its end. An SA that is seen for longer than this has been left over; a busy machine may be late.
def sa_seconds_max: 20;

# An SA that is never freed takes some 2,500 bytes a half. What grows without a leak: the rings of commands and events
# have their memory touched place by place until they have gone round once, which was measured as 350 to 400 bytes for
# each half that has ended; and a process that has warmed up may still fill a few pages. No soak is so long that it may
# fill more than so many.
def growth_kb_max($closed): [64 + 0.4 * $closed, 256] | min;

# Not lost: a NAT keepalive has done its work on its way.
def harmless: ["nat_keepalive"];

# While an SA is replaced, a packet may find the old one gone at one end and the new one not yet there at the other: one
# packet in every twentieth rekeying, TCP sends it again.
def of_rekeying: ["no_outbound_sa", "spi_unknown"];
def rekeying_drops_max($rekeys): 1 + $rekeys / 20;

def median: sort | if length == 0 then null else .[length / 2 | floor] end;
def slope:
    (map(.seconds) | add / length) as $x | (map(.rss_kb) | add / length) as $y
    | (map((.seconds - $x) * (.seconds - $x)) | add) as $spread
    | if $spread == 0 then 0 else (map((.seconds - $x) * (.rss_kb - $y)) | add) / $spread * 60 end;
def packets($reasons; $among): map(select((.reason | IN($reasons[])) == $among) | .packets) | add // 0;

# The first third is for warming up; of the rest, its last third is compared with its first.
$samples[($samples | length / 3 | floor):] as $warm
| ($warm | length / 3 | floor) as $third
| ($warm[:$third]) as $early | ($warm[-$third:]) as $late
| (($late | map(.rss_kb) | median) - ($early | map(.rss_kb) | median)) as $growth
| (($late | map(.closed) | median) - ($early | map(.closed) | median)) as $closed_meanwhile
| [$samples[] | .clients as $c | .sas as $s | $c | keys[]
    | select($c[.] == 0 or ($s[. + ".example"].in // 0) == 0 or ($s[. + ".example"].out // 0) == 0)] as $missing
| ([$samples[] | .seconds as $at | .spis[] | {spi: ., $at}] | group_by(.spi) | map((map(.at) | max) - (map(.at) | min))) as $ages
| {
    minutes: $minutes, samples: ($samples | length),
    downloads: ($downloads | length), downloads_wrong: ($downloads | map(select(.ok | not)) | length),
    downloads_right_by_client: ($samples[0].clients | with_entries(.key as $name
        | .value = ($downloads | map(select(.client == $name and .ok)) | length))),
    download_loops_dead: $loops_dead,
    sas_seen: ([$samples[].spis[]] | unique | length), sas_closed: $closed, soft_limits_reached: $soft,
    rekeys: $rekeys, ike_rekeys: $ike, ike_down: $ike_down,
    samples_without_sa: ($missing | length), sa_seconds_max: ($ages | max // 0), pairs_after_silence: $pairs,
    sas_at_once_max: ([$samples[] | .sas[] | .in, .out] | max // 0),
    packets_received: ($samples | last.received // 0), balance_difference: $difference,
    mempool_in_use_start: $mempool[0], mempool_in_use_end: $mempool[1],
    rss_kb_start: $samples[0].rss_kb, rss_kb_end: ($samples | last.rss_kb),
    rss_growth_kb: $growth, rss_growth_kb_max: growth_kb_max($closed_meanwhile),
    rss_growth_bytes_per_sa_closed: (if $closed_meanwhile == 0 then null else $growth * 1024 / $closed_meanwhile | round end),
    rss_slope_kb_per_minute: ($warm | slope | round),
    drops: ($drops | map(select(.packets > 0))),
    drops_of_rekeying: ($drops | packets(of_rekeying; true)),
    drops_unexpected: ($drops | packets(harmless + of_rekeying; false))
}
| ([.rekeys | to_entries[] | select(.key | startswith("child")) | .value] | add) as $child_rekeys
| . + {verdicts: {
    every_download_right: (.downloads_wrong == 0 and .download_loops_dead == 0
        and ([.downloads_right_by_client[] > 0] | length > 0 and all)),
    no_sa_lost: (.samples_without_sa == 0 and .ike_down == 0),
    no_sa_left_over: (.sa_seconds_max <= sa_seconds_max and ([.pairs_after_silence[] == {in: 1, out: 1}] | length > 0 and all)),
    rekeyed_by_both_ends_for_both_causes: ([.rekeys[] > 0] | length == 6 and all),
    soft_limits_of_bytes_told: (.soft_limits_reached > 0),
    every_packet_accounted_for: (.balance_difference == 0),
    nothing_dropped_unexpectedly: (.drops_unexpected == 0),
    few_dropped_by_rekeying: (.drops_of_rekeying <= rekeying_drops_max($child_rekeys)),
    no_buffer_lost: (.mempool_in_use_end <= .mempool_in_use_start),
    memory_level: (.rss_growth_kb <= .rss_growth_kb_max)
}}
| .ok = ([.verdicts[]] | all)
