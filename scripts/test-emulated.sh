#!/usr/bin/env bash
# The kvm platform on emulated SVM hardware (scripts/qemu-kvm.sh): its test suite, then a few programs in a sandbox.
# Prints cargo's result lines, so that scripts/test.sh can count.
source "$(dirname "$0")/lib.sh"
cd "$REPO"

work="$(mktemp -d "${TMPDIR:-/tmp}/emulated.XXXXXX")"
trap 'rm -rf "$work"' EXIT

scripts/qemu-kvm.sh --timeout 300 --self-test

# The test binaries of one crate, static like everything we build.
test_binaries() {
    cargo test --workspace --exclude nanovisor-tests --locked --no-run --message-format=json 2>/dev/null |
        python3 -c '
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") != "compiler-artifact" or not message["profile"]["test"] or not message.get("executable"):
        continue
    if os.path.basename(os.path.dirname(message["manifest_path"])) == sys.argv[1]:
        print(message["executable"])' "$1"
}

status=0
cargo test --workspace --exclude nanovisor-tests --locked --no-run
mapfile -t binaries < <(test_binaries platform-kvm)
[[ ${#binaries[@]} -gt 0 ]] || die "found no test binary of platform-kvm"

# One case at a time: the test program then names each before it begins, so that a hang is a failure with a name; and
# cases do not share few and slow virtual CPUs. Without debug information there is less to copy into the machine.
mkdir "$work/tests"
for binary in "${binaries[@]}"; do
    name="$(basename "$binary")"
    # By the name before cargo's hash: unit tests, own, suite.
    strip -o "$work/tests/${name%-*}" "$binary"
done
cat >"$work/cases" <<'CASES'
#!/bin/sh
status=0
run() {
    rm -f /tmp/code && : >/tmp/log
    (
        "$1" --test-threads 1 >/tmp/log 2>&1 &
        echo $! >/tmp/pid
        wait $!
        echo $? >/tmp/code
    ) &
    tail -n +1 -f /tmp/log &
    shown=$! idle=0 size=0
    while [ ! -s /tmp/code ]; do
        sleep 1
        now=$(stat -c %s /tmp/log)
        if [ "$now" = "$size" ]; then idle=$((idle + 1)); else idle=0 size=$now; fi
        [ $idle -lt "$CASE_LIMIT" ] || { kill -9 "$(cat /tmp/pid)" && hung=1; }
    done
    sleep 1
    kill $shown
    [ -z "$hung" ] || printf '\nno end after %s s: %s\n' "$CASE_LIMIT" "$(tail -n 1 /tmp/log)"
    # A test program that was ended says no result of its own.
    grep -q '^test result' /tmp/log || echo "test result: FAILED. $(grep -c ' ok$' /tmp/log) passed; 1 failed; 0 ignored"
    [ "$(cat /tmp/code)" -eq 0 ] || status=1
    hung=
}
for binary in /tests/*; do run "$binary"; done
exit $status
CASES
say "emulated SVM: the cases of $(cd "$work/tests" && echo *)"
cases() {
    scripts/qemu-kvm.sh --timeout 400 --memory 2048 --file "$work/tests:/tests" --file "$work/cases:/cases" \
        --env NANOVISOR_EMULATED=1 --env CASE_LIMIT=120 -- sh /cases
}
result=0
cases || result=$?
if [[ $result -eq 124 ]]; then
    # Seen once in many runs: the machine stands still as a whole, with the watch over the cases, which would have named one.
    warn "the emulated machine stood still; once more"
    result=0
    cases || result=$?
fi
[[ $result -eq 0 ]] || status=1

# Programs: the same command natively and in a sandbox on kvm must print the same.
programs() {
    local tree="$work/tree" image="$work/image.erofs" native emulated passed=0 broken=0 i
    mkdir -p "$tree"/{bin,tmp,proc,dev,etc}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    for applet in sh tr ls cat sort uniq wc seq awk sed grep find tar gzip mkdir rm sleep true false sha256sum head; do
        ln -s busybox "$tree/bin/$applet"
    done
    gcc -O2 -static -pthread -o "$tree/bin/nvbench" benches/nvbench.c
    "$NANOVISOR" image build "$tree" "$image" >/dev/null
    local commands=(
        'echo hello | tr a-z A-Z'
        'seq 1 2000 | sort -n | awk "{s+=\$1} END {print s}"'
        'for i in 1 2 3 4 5 6 7 8; do (exit $i); echo $?; done'
        'mkdir -p /tmp/d && cd /tmp/d && seq 1 500 >a && gzip -c a | gzip -dc | sha256sum'
        'sleep 0.1 & sleep 0.1 & wait; echo done'
        'kill -9 $$'
        '/bin/nvbench --check'
    )
    # One machine for all of them: a script that prints each command's output and status between markers.
    for i in "${!commands[@]}"; do
        printf '%s\n' "${commands[$i]}" >"$work/command.$i"
        native="$(chroot "$tree" /bin/sh -c "${commands[$i]}" 2>/dev/null; echo "status $?")"
        [[ "$native" != *"status 127"* ]] || die "the native run of '${commands[$i]}' lacks a program"
        printf '%s\n' "$native" >"$work/native.$i"
        rm -rf "$tree/tmp/d"
    done
    cat >"$work/run" <<'RUN'
#!/bin/sh
for i in "$@"; do
    echo "<<< $i"
    /nanovisor do --image /image.erofs --platform kvm -- /bin/sh -c "$(cat /commands/command.$i)" 2>/errors
    echo "status $?"
    sed 's/^/! /' /errors
done
echo '<<< end'
RUN
    mkdir "$work/commands"
    cp "$work"/command.* "$work/commands/"
    scripts/qemu-kvm.sh --timeout 900 --memory 2048 --file "$NANOVISOR:/nanovisor" --file "$image:/image.erofs" \
        --file "$work/commands:/commands" --file "$work/run:/run.sh" -- sh /run.sh "${!commands[@]}" >"$work/out" || true
    for i in "${!commands[@]}"; do
        emulated="$(sed -n "/^<<< $i\$/,/^<<< /p" "$work/out" | grep -v '^<<< ' | grep -v '^! ')"
        if [[ "$emulated" == "$(cat "$work/native.$i")" ]]; then
            passed=$((passed + 1))
            echo "test emulated program $i ... ok"
        else
            broken=$((broken + 1))
            echo "test emulated program $i ... FAILED: ${commands[$i]}"
            diff "$work/native.$i" <(sed -n "/^<<< $i\$/,/^<<< /p" "$work/out" | grep -v '^<<< ') || true
        fi
    done
    echo "test result: $([[ $broken -eq 0 ]] && echo ok || echo FAILED). $passed passed; $broken failed; 0 ignored"
    [[ $broken -eq 0 ]]
}

[[ $EUID -eq 0 ]] || {
    skip_or_fail "programs on the emulated machine: comparing with chroot needs root"
    exit $status
}
[[ -n "${NANOVISOR_BIN:-}" ]] || cargo build --release --locked -p runtime
say "emulated SVM: programs"
programs || status=1
exit $status
