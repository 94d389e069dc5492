# shellcheck shell=bash
# What every script here shares: strict mode, where things lie, and how to speak and to fail.
# Sourced, never run. Promises: output is plain text unless a terminal reads it; nothing is written outside
# $PHALANX_RUN, $PHALANX_CACHE and the build directory of cargo.
set -Eeuo pipefail
shopt -s inherit_errexit

# A shell that starts a command in the background makes it deaf to SIGINT, and bash cannot listen again by itself. What
# is started here cleans up when it is interrupted, however it was started.
ignored=$(sed -n 's/^SigIgn:[[:space:]]*/0x/p' /proc/self/status)
if ((ignored & 1 << 1)) && [[ $0 == "${BASH_SOURCE[-1]}" && -z ${PHALANX_LISTENS:-} ]]; then
    PHALANX_LISTENS=yes exec env --default-signal=INT "$(realpath "$0")" "$@"
fi
unset ignored PHALANX_LISTENS

PHALANX_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PHALANX_LIB=$PHALANX_TOP/ci/lib
# Outlives the clone, so that a second clone starts warm.
PHALANX_CACHE=${PHALANX_CACHE:-/var/cache/phalanx}
# One demo at a time on a machine: the names of its namespaces are fixed. It needs more room than /run has on a small
# machine, and a place where nobody else may write.
PHALANX_RUN=/var/lib/phalanx-demo
PHALANX_TARGET=${CARGO_TARGET_DIR:-$PHALANX_TOP/target}
export PHALANX_TOP PHALANX_LIB PHALANX_CACHE PHALANX_RUN PHALANX_TARGET

bold='' dim='' red='' green='' plain=''
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

# Handed on when a script starts itself again as root.
step_number=${PHALANX_STEP:-0}
# What runs in the background must not hold the lock of the demo that started it, so each start closes this.
# shellcheck disable=SC2034  # read in other files
exec {demo_lock}</dev/null

# step TITLE — a new chapter of the story.
step() {
    step_number=$((step_number + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$step_number" "$*" "$plain"
}

# say TEXT — one thing that happened or was seen.
say() { printf '   %s\n' "$*"; }

# note TEXT — an aside for the newcomer.
note() { printf '   %s%s%s\n' "$dim" "$*" "$plain"; }

# good TEXT, bad TEXT — the verdict of one check.
good() { printf '   %sok%s    %s\n' "$green" "$plain" "$*"; }
bad() { printf '   %sWRONG%s %s\n' "$red" "$plain" "$*"; }

warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    warn "$*"
    exit 1
}

# progress TEXT — a line that replaces itself on a terminal; elsewhere it is one line among others.
progress() {
    if [[ -t 1 ]]; then printf '\r   %-90s' "$*"; else printf '   %s\n' "$*"; fi
}
progress_end() { if [[ -t 1 ]]; then printf '\n'; fi; }

# as_root CMD… — sudo only where it is needed.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root, and sudo is not installed: run as root, or apt-get install sudo"
    fi
}

# processes_below PID — all that it has started, and what those have started.
processes_below() {
    local child
    for child in $(cat "/proc/$1"/task/*/children 2>/dev/null || true); do
        printf '%s\n' "$child"
        processes_below "$child"
    done
}

# children_end SECONDS — what this shell has started ends with it, and has so long to clean up.
children_end() {
    local pids
    mapfile -t pids < <(processes_below $$)
    ((${#pids[@]})) || return 0
    processes_signal TERM "${pids[@]}"
    wait_until "$1" processes_gone "${pids[@]}" || processes_signal KILL "${pids[@]}"
}
processes_gone() { ! ps -o stat= -p "$*" | grep -qv '^Z'; }

# processes_signal SIGNAL PID… — also those that sudo has started.
processes_signal() {
    kill -s "$@" 2>/dev/null || true
    if ((EUID != 0)) && ps -o user= -p "${*:2}" | grep -qx root; then sudo kill -s "$@" 2>/dev/null || true; fi
}

# interruptible CMD… — a trap waits for the command in the foreground to end; this one it does not wait for.
interruptible() {
    "$@" <&0 &
    wait $!
}

# need_room DIRECTORY MEGABYTES WHAT — before it is begun, not in the middle.
need_room() {
    local place=$1 free
    until [[ -d $place ]]; do place=$(dirname "$place"); done
    free=$(df --output=avail -B 1M "$place" | tail -n 1)
    ((free >= $2)) || die "$3 needs $2 MB below $1, and there are ${free// /} MB"
}

# seconds_since START_NS — with one decimal, START_NS from `date +%s%N`.
seconds_since() {
    local ms=$((($(date +%s%N) - $1) / 1000000))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# grouped NUMBER — 50000000 as 50,000,000: long counters are read by people.
grouped() {
    local n=$1 out=''
    while ((${#n} > 3)); do
        out=,${n: -3}$out
        n=${n:0:-3}
    done
    printf '%s%s' "$n" "$out"
}

# wait_until SECONDS CMD… — polls CMD until it succeeds; fails when the time is up.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}
