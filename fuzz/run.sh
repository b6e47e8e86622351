#!/usr/bin/env bash
# Builds and runs the fuzz targets in the ways that need special builds; ./dev fuzz and ./dev lie call it.
#
#   run.sh fuzz DIRECTORY MINUTES [minimise|''] [TARGET..]     libFuzzer and ASan
#   run.sh coverage DIRECTORY [TARGET..]                       what the corpus covers
#   run.sh racing DIRECTORY SECONDS SEED                       tests/racing.rs under ASan
#
# The flags for coverage are stable; -Zsanitizer is not, RUSTC_BOOTSTRAP lets a stable toolchain take it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HOST=x86_64-unknown-linux-gnu
readonly ASAN="-Zsanitizer=address -Cdebug-assertions -Coverflow-checks"
readonly SANCOV="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
# Of the corpus of one target: bytes and files that are kept at most.
readonly MOST_KEPT=19000
readonly MOST_FILES=100
export ASAN_OPTIONS=detect_leaks=0

say() { printf '>> %s\n' "$*"; }
die() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

all_targets() { sed -n 's/.*Target { name: "\([a-z]*\)".*/\1/p' fuzz/src/targets.rs; }

one_target() {
    local directory=$1 seconds=$2 target=$3
    local work=$directory/work/$target log=$directory/$target.log
    mkdir -p "$work"
    CONVOY_FUZZ_TARGET=$target "$directory/$HOST/release/convoy-fuzz" "$work" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -max_len=4096 -timeout=600 -rss_limit_mb=3072 \
        -artifact_prefix="$directory/$target-" -print_final_stats=1 >"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    return 1
}

numbers() {
    awk -v target="$2" '/DONE/ { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1) } }
        /number_of_executed_units/ { runs = $2 }
        END { printf "%-10s %12d executions, coverage %d edges, %d features\n", target, runs, cov, ft }' "$1/$2.log"
}

# The fewest inputs that reach all that is reached; of many of these some of each size.
minimise() {
    local directory=$1 target=$2
    local merged=$directory/merged/$target kept=0 number=0 step size path
    rm -rf "$merged"
    mkdir -p "$merged"
    CONVOY_FUZZ_TARGET=$target "$directory/$HOST/release/convoy-fuzz" -set_cover_merge=1 -max_len=1024 "$merged" \
        "$directory/work/$target" "fuzz/corpus/$target" >"$directory/$target.merge.log" 2>&1
    rm -f "fuzz/corpus/$target"/*
    step=$((($(find "$merged" -type f | wc -l) + MOST_FILES - 1) / MOST_FILES))
    find "$merged" -type f -printf '%s %p\n' | sort -n | while read -r size path; do
        number=$((number + 1))
        [ $((number % step)) -eq 0 ] || continue
        kept=$((kept + size))
        [ "$kept" -le "$MOST_KEPT" ] || break
        cp "$path" "fuzz/corpus/$target/"
    done
}

fuzz() {
    local directory=$1 minutes=$2 after=$3 target failed=0
    shift 3
    local targets=("$@")
    [ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(all_targets)
    local seconds=$((minutes * 60 / ${#targets[@]}))
    [ "$seconds" -gt 0 ] || die "fewer minutes than there is time for"
    CARGO_TARGET_DIR=$directory RUSTC_BOOTSTRAP=1 RUSTFLAGS="$SANCOV $ASAN" \
        cargo build --locked --release --config profile.release.lto=false --target "$HOST" -p convoy-fuzz --features libfuzzer
    for target in "${targets[@]}"; do
        [ -d "fuzz/corpus/$target" ] || die "there is no target '$target'; there are: $(all_targets | tr '\n' ' ')"
        one_target "$directory" "$seconds" "$target" || failed=1
        numbers "$directory" "$target"
        [ "$after" != minimise ] || minimise "$directory" "$target"
    done
    [ "$failed" -eq 0 ] || die "found something; the inputs are $directory/TARGET-*"
    say "nothing found; the corpus has $(find fuzz/corpus -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }') bytes"
}

# llvm-cov must be as new as the compiler: of the toolchain, or Debian's.
llvm_tool() {
    local major path
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for path in "$(rustc --print sysroot)/lib/rustlib/$HOST/bin/$1" "/usr/lib/llvm-$major/bin/$1"; do
        [ ! -x "$path" ] || { printf '%s' "$path"; return; }
    done
    die "no $1 for LLVM $major: rustup component add llvm-tools, or apt-get install llvm-$major"
}

coverage() {
    local directory=$1 test profdata cov
    shift
    profdata=$(llvm_tool llvm-profdata)
    cov=$(llvm_tool llvm-cov)
    export CARGO_TARGET_DIR=$directory
    rm -rf "$directory/raw"
    RUSTFLAGS=-Cinstrument-coverage CONVOY_FUZZ_INPUTS=${CONVOY_FUZZ_INPUTS:-0} LLVM_PROFILE_FILE="$directory/raw/%p-%m.profraw" \
        cargo test --locked --quiet --target "$HOST" -p convoy-fuzz --test short -- "$@"
    test=$(find "$directory/$HOST/debug/deps" -name 'short-*' -executable -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
    "$profdata" merge -sparse "$directory"/raw/*.profraw -o "$directory/fuzz.profdata"
    "$cov" report "$test" -instr-profile="$directory/fuzz.profdata" \
        --sources aggregator/src runtime/src/shm runtime/src/registry runtime/src/registry.rs runtime/src/port runtime/src/port.rs \
        runtime/src/channel runtime/src/channel.rs runtime/src/agent/protocol.rs runtime/src/agent/record.rs runtime/src/config \
        control/src/secure control/src/hello.rs control/src/policy agent/src/daemon/message.rs agent/src/daemon/serve |
        awk '/^TOTAL/ || /[.]rs / { printf "%-44s %10s regions %8s, %6s lines %8s\n", $1, $2, $4, $8, $10 }'
}

racing() {
    CARGO_TARGET_DIR=$1 RUSTC_BOOTSTRAP=1 RUSTFLAGS="$ASAN" RACING_SECONDS=$2 RACING_SEED=$3 \
        cargo test --locked --release --config profile.release.lto=false --config profile.release.codegen-units=16 \
        --target "$HOST" -p convoy-fuzz --test racing -- --nocapture
}

[ "$(uname -m)" = x86_64 ] || die "the sanitizers are set up for x86_64"
command=$1
shift
case "$command" in
    fuzz | coverage | racing) "$command" "$@" ;;
    *) die "unknown command '$command'" ;;
esac
