#!/usr/bin/env bash
# Measures Convoy between two hosts beside plain TCP, in alternating runs, and prints medians.
#
#   bench/hosts.sh namespaces   two network namespaces of this machine joined by a veth pair (needs root)
#   bench/hosts.sh machine      inside a machine that has the commands hostA and hostB (10.9.0.1, 10.9.0.2):
#                               what ./dev bench-rdma runs in a virtual machine with Soft-RoCE
#
# Environment: RELEASE (where convoy, libconvoy.so and load-* are), CONVOY_FABRIC (tcp), ROUNDS (3), SECONDS_EACH (2),
# REQUESTS (of redis-benchmark, 200000), ONLY (measure only what this pattern is found in: "redis"),
# PIN=1 gives each host one processor of its own, as two hosts have, RSOCKETS=1 measures librspreload.so too.
set -euo pipefail

readonly MODE=${1:-namespaces}
readonly RELEASE=${RELEASE:-target/release}
readonly FABRIC=${CONVOY_FABRIC:-tcp}
readonly ROUNDS=${ROUNDS:-3}
readonly PERIOD=${SECONDS_EACH:-2}
readonly REQUESTS=${REQUESTS:-200000}
# The hosts of a machine share /tmp and have a /dev/shm each.
if [ "$MODE" = machine ]; then WORK=$(mktemp -d /tmp/convoy-bench.XXXXXX); else WORK=$(mktemp -d /dev/shm/convoy-bench.XXXXXX); fi
readonly WORK
AGENTS=()
PORT=$((20000 + RANDOM % 10000))

clean_up() {
    local agent
    for agent in "${AGENTS[@]}"; do kill "$agent" 2>/dev/null || true; done
    wait
    if [ "$MODE" = namespaces ]; then
        ip netns del "cvb$$a" 2>/dev/null || true
        ip netns del "cvb$$b" 2>/dev/null || true
    fi
    rm -rf "$WORK"
}
trap clean_up EXIT

# With REPLACE=1 the shell that runs this becomes the command, so that its process id is the command's.
pinned() {
    local command=("${@:2}")
    [ "${PIN:-0}" != 1 ] || command=(taskset -c "$1" "${command[@]}")
    replaced "${command[@]}"
}

replaced() { if [ "${REPLACE:-0}" = 1 ]; then exec "$@"; else "$@"; fi; }

if [ "$MODE" = namespaces ]; then
    readonly SERVER=10.79.0.2 DEVICE=cvveth
    host_a() { pinned 0 ip netns exec "cvb$$a" "$@"; }
    host_b() { pinned 1 ip netns exec "cvb$$b" "$@"; }
    ip netns add "cvb$$a"
    ip netns add "cvb$$b"
    ip link add $DEVICE netns "cvb$$a" type veth peer name $DEVICE netns "cvb$$b"
    ip -n "cvb$$a" addr add 10.79.0.1/24 dev $DEVICE
    ip -n "cvb$$b" addr add $SERVER/24 dev $DEVICE
    for name in "cvb$$a" "cvb$$b"; do
        ip -n "$name" link set lo up
        ip -n "$name" link set $DEVICE up
    done
else
    readonly SERVER=10.9.0.2 DEVICE=eth0
    host_a() { replaced hostA "$@"; }
    host_b() { replaced hostB "$@"; }
fi

mkdir "$WORK/stats"
[ "$MODE" = machine ] || export CONVOY_DIR=$WORK
export CONVOY_FABRIC=$FABRIC

# Bytes that both hosts have sent so far.
wire_bytes() {
    local total=0 host
    for host in host_a host_b; do
        total=$((total + $($host cat /sys/class/net/$DEVICE/statistics/tx_bytes)))
    done
    printf '%s' "$total"
}

wait_for() { # FILE TEXT
    local turn
    for turn in $(seq 300); do
        if grep -q "$2" "$1" 2>/dev/null; then return; fi
        sleep 0.1
    done
    printf 'nothing of "%s" in %s after %s turns:\n' "$2" "$1" "$turn" >&2
    cat "$1" >&2
    exit 1
}

start_agents() {
    local host
    for host in host_a host_b; do
        REPLACE=1 CONVOY_LOG=info $host "$RELEASE/convoy" agent --insecure >"$WORK/$host.log" 2>&1 &
        AGENTS+=($!)
        wait_for "$WORK/$host.log" "agent is ready"
    done
}

preload=()
# What goes in front of a program, as an array in `preload`.
choose_preload() { # KIND
    preload=()
    case "$1" in
        convoy) preload=(env "LD_PRELOAD=$RELEASE/libconvoy.so" "CONVOY_STATS=$WORK/stats/") ;;
        rsockets) preload=(env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/rsocket/librspreload.so RDMAV_FORK_SAFE=1) ;;
    esac
}

# What Convoy's counters say about the programs of the last run.
say_counters() { # KIND
    [ "$1" = convoy ] || return 0
    printf 'streams_far %s\n' "$(counted streams_far)"
    printf 'far_share %s\n' "$(awk -v far="$(counted bytes_sent)" -v kernel="$(counted kernel_bytes_sent)" \
        'BEGIN {print far + kernel ? 100 * far / (far + kernel) : 0}')"
    rm -f "$WORK"/stats/*
}

# One run: what the client or the server prints, as "NAME VALUE" lines, and the bytes on the wire.
run() { # KIND PROGRAM SERVER-ARGS CLIENT-ARGS
    local server before server_args=$3
    choose_preload "$1"
    # rsockets know no epoll.
    [ "$1 $2" != "rsockets load-many" ] || server_args="$3 --wait poll"
    PORT=$((PORT + 1))
    # shellcheck disable=SC2086
    REPLACE=1 host_b "${preload[@]}" "$RELEASE/$2" --role server --port $PORT --host $SERVER $server_args >"$WORK/server" 2>&1 &
    server=$!
    wait_for "$WORK/server" ready
    before=$(wire_bytes)
    # shellcheck disable=SC2086
    host_a "${preload[@]}" timeout 60 "$RELEASE/$2" --role client --host $SERVER --port $PORT $4 >"$WORK/client" 2>&1 || true
    for _ in $(seq 100); do kill -0 $server 2>/dev/null || break; sleep 0.1; done
    kill $server 2>/dev/null || true
    wait $server 2>/dev/null || true
    cat "$WORK/client" "$WORK/server"
    say_counters "$1"
    printf 'wire_bytes %s\n' "$(($(wire_bytes) - before))"
}

# redis with 50 clients: requests/s.
run_redis() { # KIND
    local server
    choose_preload "$1"
    PORT=$((PORT + 1))
    REPLACE=1 host_b "${preload[@]}" redis-server --port $PORT --bind $SERVER --save '' --protected-mode no \
        --dir "$WORK" >"$WORK/server" 2>&1 &
    server=$!
    wait_for "$WORK/server" "Ready to accept"
    host_a "${preload[@]}" timeout 120 redis-benchmark -h $SERVER -p $PORT -c 50 -n "$REQUESTS" -t set,get --csv \
        >"$WORK/client" 2>&1 || true
    kill $server
    wait $server 2>/dev/null || true
    awk -F'"' '$2 == "SET" || $2 == "GET" {print tolower($2) "_per_s", $4}' "$WORK/client"
    say_counters "$1"
}

# Sum of a counter over the programs of the last run, as they wrote it when they ended.
counted() { cat "$WORK"/stats/*.json 2>/dev/null | grep -o "\"$1\": *[0-9]*" | awk -F: '{sum += $2} END {print sum + 0}'; }

value() { awk -v name="$1" '$1 == name {print $2; found = 1} END {if (!found) print 0}' "$2"; }
median() { sort -g | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }

measure() { # NAME FIGURE PROGRAM SERVER-ARGS CLIENT-ARGS
    local kinds=(tcp convoy) kind
    [[ "$1" =~ ${ONLY:-.} ]] || return 0
    # With 64 sockets rsockets do not get through, and redis they do not start.
    case "${RSOCKETS:-0} $3 $5" in
        "0 "* | *" redis "* | *"--sockets 64"*) ;;
        *) kinds+=(rsockets) ;;
    esac
    for kind in "${kinds[@]}"; do : >"$WORK/$kind.figures"; : >"$WORK/$kind.wire"; : >"$WORK/$kind.share"; done
    for _ in $(seq "$ROUNDS"); do
        for kind in "${kinds[@]}"; do
            case "$3" in
                redis) run_redis "$kind" >"$WORK/output" ;;
                *) run "$kind" "$3" "$4" "$5" >"$WORK/output" ;;
            esac
            value "$2" "$WORK/output" >>"$WORK/$kind.figures"
            awk '$1 == "bytes" {bytes = $2} $1 == "wire_bytes" && bytes {printf "%.3f\n", $2 / bytes}' \
                "$WORK/output" >>"$WORK/$kind.wire"
            if [ "$kind" = convoy ]; then
                value far_share "$WORK/output" >>"$WORK/$kind.share"
            fi
        done
    done
    for kind in "${kinds[@]}"; do
        printf '%-34s %-9s %14.1f %s' "$1" "$kind" "$(median <"$WORK/$kind.figures")" "$2"
        if [ -s "$WORK/$kind.wire" ]; then
            printf '   %s wire bytes per byte' "$(median <"$WORK/$kind.wire")"
        fi
        [ ! -s "$WORK/$kind.share" ] || printf '   %.0f %% by the fabric, the rest by TCP' "$(median <"$WORK/$kind.share")"
        printf '\n'
    done
}

start_agents
printf 'fabric %s, %s rounds, medians\n' "$FABRIC" "$ROUNDS"
measure "64 sockets x 64 B, one way" messages_per_s load-many "--size 64" "--sockets 64 --size 64 --seconds $PERIOD"
host_a "$RELEASE/convoy" stat | sed -n '/^links/,$p'
measure "64 sockets x 16 B, one way" messages_per_s load-many "--size 16" "--sockets 64 --size 16 --seconds $PERIOD"
measure "one socket x 64 B, one way" messages_per_s load-many "--sockets 1" "--sockets 1 --size 64 --seconds $PERIOD"
measure "64 B round trip (mean)" rtt_us load-pingpong "" "--seconds $PERIOD"
measure "64 B round trip (median)" p50_us load-pingpong "" "--seconds $PERIOD"
measure "128 KiB writes" gb_per_s load-bulk "" "--size 131072 --seconds $PERIOD"
if command -v redis-server >/dev/null; then
    measure "redis-benchmark -c 50, SET" set_per_s redis "" ""
    measure "redis-benchmark -c 50, GET" get_per_s redis "" ""
fi
for host in host_a host_b; do
    links=$(grep -c "link is up" "$WORK/$host.log" || true)
    printf '%s: %s links were made\n' "$host" "$links"
    [ "$links" -gt 0 ] || printf 'NOT ACCELERATED: the agents had no link\n'
done
