# shellcheck shell=bash
# promtool, Prometheus' own checker of metrics. Debian has it only in a package that would also bring a server and
# start it, so the program is taken out of the package and nothing is installed.

# promtool_path — the machine's own, or the one in the cache.
promtool_path() { command -v promtool || printf '%s/promtool' "$PHALANX_CACHE"; }

# promtool_ready — fetches it if it is missing; silent when it is not.
promtool_ready() {
    [[ ! -x $(promtool_path) ]] || return 0
    say "missing: promtool (checking the metrics); fetching it, alone, out of Debian's prometheus package"
    # shellcheck disable=SC2016  # expands in the new shell
    as_root env "PHALANX_CACHE=$PHALANX_CACHE" bash -c '. "$1" && promtool_fetch' bash "$PHALANX_LIB/all.sh"
}

# promtool_fetch — runs as root. apt-get checks the package's signature; a rename makes the program appear whole.
promtool_fetch() (
    install -d -m 755 "$PHALANX_CACHE"
    exec {lock}>"$PHALANX_CACHE/.promtool.lock"
    flock "$lock"
    [[ ! -x $PHALANX_CACHE/promtool ]] || exit 0
    fresh=$(mktemp -d "$PHALANX_CACHE/.promtool.making.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    cd "$fresh"
    # Images often come without package lists.
    if ! apt-get -q download prometheus >log 2>&1; then
        { apt-get -q -o DPkg::Lock::Timeout=600 update || true; } >>log 2>&1
        apt-get -q download prometheus >>log 2>&1 || die "apt-get could not fetch prometheus: $(tail -n 5 log)"
    fi
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    chmod 755 usr/bin/promtool
    mv usr/bin/promtool "$PHALANX_CACHE/promtool"
)
