#!/usr/bin/env bash
# Runs other projects' own test suites natively and under Convoy, and writes what came of it as a table.
#
#   run.sh RUNNER LIBRARY REPORT [SUITE...]
#
# The rows of suites that are not named stay in REPORT as they are.
# RUNNER is a script that runs one suite: `RUNNER SUITE` natively, `RUNNER SUITE LIBRARY` preloaded, comparing test by test
# (it names each test that passes natively and not preloaded, and fails then); `RUNNER --list` lists the suites.
# Environment: TIMES (3) preloaded runs of each suite, BASE_RUNS (2) native ones: what flickers there does not count.
set -euo pipefail

readonly RUNNER=$1 LIBRARY=$2 REPORT=$3
shift 3
export BASE_RUNS=${BASE_RUNS:-2}
readonly TIMES=${TIMES:-3}
WORK=$(mktemp -d /var/tmp/convoy-outside.XXXXXX)
readonly WORK
trap 'rm -rf "$WORK"' EXIT
chmod 755 "$WORK"

suites() { "$RUNNER" --list | awk '{print $2}'; }

# Sum of a counter over all programs of a run, as they wrote it when they ended.
counted() {
    find "$WORK/stats" -type f -exec cat {} + | grep -o "\"$1\": [0-9]*" | awk '{sum += $2} END {print sum + 0}'
}

# What a suite is a version of: the Debian package it comes from, or what its name says.
version() {
    local package
    case "$1" in
        cpython-*) package=python3.11 ;;
        libuv) package=libuv1 ;;
        redis) package=redis-server ;;
        tcl) package=tcl8.6 ;;
        tokio)
            sed -n 's/^version = "\(.*\)"/\1/p;T;q' "${SUITES_BASE:-/var/tmp/convoy-suites}/build/tokio/tokio/Cargo.toml"
            return
            ;;
        *) package=$1 ;;
    esac
    apt-cache policy "$package" 2>/dev/null | awk '/Candidate:/ {print $2; found = 1} END {if (!found) print "-"}'
}

# Puts a row in the place of the one that REPORT has of the same suite, or behind the last.
row() {
    local line
    line=$(printf '| %s ' "$@")"|"
    if grep -q "^| $1 |" "$REPORT"; then
        awk -v suite="| $1 |" -v line="$line" 'index($0, suite) == 1 {$0 = line} {print}' "$REPORT" >"$WORK/report"
        cat "$WORK/report" >"$REPORT"
    else
        printf '%s\n' "$line" >>"$REPORT"
    fi
}

# An expression for the names of tests that change from run to run.
random_names() { # SUITE
    local names
    names=$(sed -n "s/^$1 //p" "$(dirname "${BASH_SOURCE[0]}")/random-names" | paste -sd '|')
    printf '%s' "${names:-no name}"
}

# Runs a suite under Convoy with SETTINGS (NAME=VALUE ..), and sets `known` and `regressions`.
preloaded() { # SUITE SETTINGS
    local out=$WORK/$1
    rm -rf "$WORK/stats" && mkdir -m 1777 "$WORK/stats"
    SUITE_ENV="CONVOY_STATS=$WORK/stats/ $2" "$RUNNER" "$1" "$LIBRARY" >"$out" 2>&1 || true
    grep -E '^REGRESSION|baseline-stable-pass|passed,' "$out" || tail -n 5 "$out"
    regressions=$(grep '^REGRESSION' "$out" | grep -vcE "^REGRESSION[[:space:]]MISSING[[:space:]]($(random_names "$1"))" || true)
    known=$(grep -o 'baseline-stable-pass [0-9]*' "$out" | awk '{print $2}')
    [ -n "$known" ] || { regressions=1; known=0; }
}

run_suite() { # SUITE; false when a test that passes natively did not pass once
    local suite=$1 known regressions passed="" eager worst=0 usual
    for _ in $(seq "$TIMES"); do
        preloaded "$suite" ""
        [ "$regressions" -le "$worst" ] || worst=$regressions
        passed="$passed${passed:+, }$((known - regressions))"
    done
    usual=$(counted promotions)
    preloaded "$suite" CONVOY_PROMOTE_AFTER=1
    [ "$regressions" -le "$worst" ] || worst=$regressions
    eager=$(counted promotions)
    row "$suite" "$(version "$suite")" "$BASE_RUNS" "$known" "$passed" "$((known - regressions))" "$worst" "$usual" "$eager" \
        "$(counted bytes_sent)"
    [ "$worst" -eq 0 ] && [ "$eager" -gt 0 ]
}

[ -e "$REPORT" ] || cat >"$REPORT" <<'HEAD'
# Test suites of other projects under Convoy

Each suite ran natively, then under Convoy with its default settings as many times as there are numbers, then once with
`CONVOY_PROMOTE_AFTER=1`: connections leave the kernel at their first call ("eager"). Counted are the tests that pass in every
native run; "not" is the worst of the preloaded runs. The connections of such tests are mostly too short to be promoted otherwise,
so the streams that were promoted are those of one usual run and of the eager one, the bytes on the channel those of the eager one.
Written by `./dev compat`.

| suite | version | native runs | pass natively | of these under Convoy | eager | not | streams promoted | eager | bytes on the channel |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|
HEAD
failed=0
for suite in $(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else suites; fi); do
    printf '== %s\n' "$suite"
    run_suite "$suite" || failed=1
done
cat "$REPORT"
exit $failed
