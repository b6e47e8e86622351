#!/usr/bin/env bash
# Programs between two hosts with RDMA devices, through agents: bytes are compared, counters must show that they went by the
# fabric, an agent is killed under load. Small, because virtual machines are slow.
#
# Environment: HOST_A, HOST_B    what to put in front of a command so that it runs on that host ("hostA", "ssh node1")
#              ADDRESS_B         B's address
#              COMMAND, LIBRARY, STREAM  the convoy command, libconvoy.so, the test program; at the same place on both
#              PROVIDER          of libfabric (verbs)
#              PORT              first of 50 ports (7100)
set -euo pipefail

PROVIDER=${PROVIDER:-verbs}
PORT=${PORT:-7100}
WORK=$(mktemp -d /tmp/convoy-rdma.XXXXXX)
PIDS=()

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
    say "FAILED: $*"
    tail -n 40 "$WORK"/*.log "$WORK"/*.out 2>/dev/null || true
    exit 1
}
clean_up() {
    local pid
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    rm -rf "$WORK"
}
trap clean_up EXIT

on() { # HOST COMMAND...   the shell that runs this in the background becomes the command
    local words
    read -ra words <<<"$1"
    if [ "${REPLACE:-0}" = 1 ]; then exec "${words[@]}" "${@:2}"; else "${words[@]}" "${@:2}"; fi
}

until_true() { # WHAT COMMAND...
    local _
    for _ in $(seq 1200); do
        if "${@:2}" 2>/dev/null; then return; fi
        sleep 0.1
    done
    fail "this does not come about: $1"
}

wait_for() { until_true "'$2' in $1" grep -q "$2" "$1"; } # FILE TEXT

AGENT=0
start_agent() { # HOST LETTER
    REPLACE=1 on "$1" env CONVOY_FABRIC="$PROVIDER" CONVOY_GATHER=always CONVOY_LOG=info NO_COLOR=1 \
        "$COMMAND" agent --insecure >"$WORK/agent$2.log" 2>&1 &
    AGENT=$!
    PIDS+=("$AGENT")
    wait_for "$WORK/agent$2.log" "agent is ready"
}

under_convoy=(env LD_PRELOAD="$LIBRARY" CONVOY_STATS="$WORK/stats/" NO_COLOR=1)
mkdir "$WORK/stats"

counted() { cat "$WORK"/stats/*.json 2>/dev/null | grep -o "\"$1\": *[0-9]*" | awk -F: '{sum += $2} END {print sum + 0}'; }

streams() { # SCENARIO CONNECTIONS BYTES IO
    PORT=$((PORT + 1))
    on "$HOST_B" "${under_convoy[@]}" "$STREAM" "$1" --listen "$ADDRESS_B:$PORT" --connections "$2" --bytes "$3" --io "$4" \
        >"$WORK/server.out" 2>&1 &
    local server=$!
    wait_for "$WORK/server.out" listening
    on "$HOST_A" "${under_convoy[@]}" "$STREAM" "$1" --connect "$ADDRESS_B:$PORT" --connections "$2" --bytes "$3" --io "$4" \
        >"$WORK/client.out" 2>&1 || fail "client of $1"
    wait $server || fail "server of $1"
    say "$1, $2 connections, $3 bytes, $4: every byte compared"
}

redis() {
    PORT=$((PORT + 1))
    REPLACE=1 on "$HOST_B" "${under_convoy[@]}" redis-server --port "$PORT" --bind "$ADDRESS_B" --save '' --protected-mode no \
        --dir "$WORK" >"$WORK/redis.out" 2>&1 &
    local server=$! value
    wait_for "$WORK/redis.out" "Ready to accept"
    on "$HOST_A" "${under_convoy[@]}" redis-benchmark -h "$ADDRESS_B" -p "$PORT" -c 20 -n 2000 -t set,get --csv \
        >"$WORK/benchmark.out" 2>&1 || fail "redis-benchmark"
    value=$(printf 'v%.0s' $(seq 5000))
    on "$HOST_A" "${under_convoy[@]}" redis-cli -h "$ADDRESS_B" -p "$PORT" set key "$value" >/dev/null || fail "redis-cli set"
    [ "$(on "$HOST_A" "${under_convoy[@]}" redis-cli -h "$ADDRESS_B" -p "$PORT" get key)" = "$value" ] || fail "redis-cli get"
    kill $server
    wait $server || true
    say "redis: $(grep -c '"[SG]ET"' "$WORK/benchmark.out") benchmarks"
}

# Lost packets: RC sends them again.
losses() {
    local device
    device=$(on "$HOST_A" ip -o route get "$ADDRESS_B" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
    if ! on "$HOST_A" tc qdisc add dev "$device" root netem loss 1% 2>/dev/null; then
        say "losses: skipped, this kernel makes none"
        return
    fi
    streams echo 3 60000 blocking
    on "$HOST_A" tc qdisc del dev "$device" root
    say "with one packet of a hundred lost"
}

has_far_streams() { on "$HOST_A" "$COMMAND" stat --json | grep -q '"streams_far": *[1-9]'; }

progress() { grep -c '^progress' "$WORK/client.out" || true; }

# The traffic of the client gets on from here.
goes_on() {
    local before
    before=$(progress)
    until_true "traffic" more_than "$before"
}
more_than() { [ "$(progress)" -gt "$(($1 + 1))" ]; }

crash() {
    PORT=$((PORT + 1))
    local server client
    on "$HOST_B" "${under_convoy[@]}" "$STREAM" echo --listen "$ADDRESS_B:$PORT" --connections 3 --bytes 0 --pace 2000 \
        >"$WORK/server.out" 2>&1 &
    server=$!
    wait_for "$WORK/server.out" listening
    on "$HOST_A" env LD_PRELOAD="$LIBRARY" CONVOY_STATS="$WORK/stats/" CONVOY_LOG=info "$STREAM" echo --connect "$ADDRESS_B:$PORT" \
        --connections 3 --bytes 0 --pace 2000 --go "$WORK/go" --stop "$WORK/stop" >"$WORK/client.out" 2>&1 &
    client=$!
    wait_for "$WORK/client.out" connected
    until_true "far streams" has_far_streams
    : >"$WORK/go"
    goes_on
    kill -9 "$AGENT"
    wait_for "$WORK/client.out" "has returned to the kernel"
    goes_on
    : >"$WORK/stop"
    wait $client || fail "client across the crash of an agent"
    wait $server || fail "server across the crash of an agent"
    [ "$(counted failovers)" -gt 0 ] || fail "no stream has failed over"
    say "an agent killed under load: every byte compared"
}

start_agent "$HOST_B" B
start_agent "$HOST_A" A
streams echo 4 100000 blocking
streams pingpong 8 5000 level
streams oneway 3 300000 poll
streams halfclose 2 100000 edge
redis
losses
crash
grep -q 'link is up.*rail="'"${PROVIDER%%;*}" "$WORK/agentA.log" || fail "no link over $PROVIDER"
for counter in streams_far bytes_sent bytes_received; do
    [ "$(counted $counter)" -gt 0 ] || fail "$counter is 0"
done
say "PASSED: $(counted streams_far) ends of connections over $PROVIDER, $(counted bytes_sent) bytes"
