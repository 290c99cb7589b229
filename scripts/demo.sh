#!/usr/bin/env bash
# The demo: the three programs of demo/ natively and in a sandbox on each platform, outputs and statuses compared, then
# the start times side by side. The programs go in by standard input, so the image needs nothing of ours.
#   scripts/demo.sh [PLATFORM]...      kvm and ptrace unless named
source "$(dirname "$0")/lib.sh"
cd "$REPO"

[[ $EUID -eq 0 ]] || die "the demo runs the programs natively in a chroot to compare: run it as root"
# Mounts for the native runs live in a namespace of their own and are gone with it.
if [[ -z "${NANOVISOR_DEMO_INNER:-}" ]]; then
    NANOVISOR_DEMO_INNER=1 exec unshare --mount --propagation private "$0" "$@"
fi

platforms=("$@")
[[ ${#platforms[@]} -gt 0 ]] || platforms=(kvm ptrace)
image="$(scripts/build-rootfs.sh image)"
root="$(scripts/build-rootfs.sh dir)"
work="$(mktemp -d "${TMPDIR:-/tmp}/nanovisor-demo.XXXXXX")"
view="$work/root"
trap 'umount -R -l "$view" 2>/dev/null; rm -rf --one-file-system "$work"' EXIT
mkdir "$view"
mount --bind "$root" "$view"
mount -o remount,bind,ro "$view"
mount -t proc proc "$view/proc"
mount --rbind /dev "$view/dev"
mount -t tmpfs tmpfs "$view/tmp"

# The same environment on every side; the programs end with these statuses.
clean=(/usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root)
declare -A expected=([pipeline.sh]=0 [demo.py]=0 [demo.js]=5)
declare -A interpreter=([pipeline.sh]="/bin/bash -s" [demo.py]="/usr/bin/python3 -" [demo.js]="/usr/bin/node -")
declare -A what=(
    [pipeline.sh]="a shell pipeline over the image"
    [demo.py]="Python: threads, subprocess, sqlite3, multiprocessing, signals"
    [demo.js]="Node: timers, worker_threads, child_process, fs, zlib, crypto"
)
failed=0

# Runs one program with a command before its interpreter; keeps output, errors and status.
record() {
    local out="$1" program="$2" status=0
    shift 2
    # shellcheck disable=SC2086
    timeout 180 "$@" "${clean[@]}" ${interpreter[$program]} <"demo/$program" >"$out.out" 2>"$out.err" || status=$?
    echo "exit status $status" >>"$out.out"
}

compare() {
    local platform="$1" program="$2" native="$work/native.$program" ours="$work/$platform.$program" start=$SECONDS
    record "$ours" "$program" "$NANOVISOR" do --image "$image" --platform "$platform" --
    if cmp -s "$native.out" "$ours.out"; then
        printf '  %-8s %s: the same as native (%d s)\n' "$platform" "$program" $((SECONDS - start))
    else
        failed=$((failed + 1))
        printf '  %-8s %s: DIFFERS from native\n' "$platform" "$program"
        diff "$native.out" "$ours.out" | head -20 | sed 's/^/      /' || true
        tail -5 "$ours.err" | sed 's/^/      stderr: /'
    fi
}

for program in pipeline.sh demo.py demo.js; do
    say "${what[$program]}"
    record "$work/native.$program" "$program" chroot "$view"
    sed 's/^/    /' "$work/native.$program.out"
    sed 's/^/    stderr: /' "$work/native.$program.err"
    tail -1 "$work/native.$program.out" | grep -qx "exit status ${expected[$program]}" ||
        die "$program does not work natively: see above"
    for platform in "${platforms[@]}"; do
        if [[ "$platform" == kvm && ! -w /dev/kvm ]]; then
            skip_or_fail "kvm: no usable /dev/kvm"
            continue
        fi
        compare "$platform" "$program"
    done
done

say "start times"
benches/run.py --only starts --starts 5 --root "$root" --image "$image" --no-goals || failed=$((failed + 1))

if [[ $failed -gt 0 ]]; then
    echo "demo: $failed differences"
    exit 1
fi
echo "demo: every output is the native one"
