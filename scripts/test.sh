#!/usr/bin/env bash
# All checks and tests, in the order of what fails fastest. Every step runs even if one before it failed; the last line
# counts. NANOVISOR_SOAK=1 samples nothing. With arguments, only the named steps:
#   scripts/test.sh [lint|unit|integration|emulated|cri]...      (cri: in a soak alone, if it is not named)
# A missing /dev/kvm or missing root is a failure in CI (CI=true) and a message elsewhere.
source "$(dirname "$0")/lib.sh"
cd "$REPO"

log="$(mktemp "${TMPDIR:-/tmp}/nanovisor-test.XXXXXX")"
trap 'rm -f "$log"' EXIT
failed=()
skipped=0

step() {
    local name="$1" start=$SECONDS
    shift
    say "$name"
    # Not `if step`: a function called in a condition runs without errexit.
    set +e
    (set -e; "$@") 2>&1 | tee -a "$log"
    local status=${PIPESTATUS[0]}
    set -e
    [[ $status -eq 0 ]] || failed+=("$name")
    say "$name: $([[ $status -eq 0 ]] && echo ok || echo FAILED) in $((SECONDS - start)) s"
}

lint() { scripts/lint.sh; }

# One set of packages for every build here: another set may switch features of dependencies and so compile them anew.
crates=(--workspace --exclude nanovisor-tests --locked)

unit() {
    local status=0
    cargo test "${crates[@]}" --no-fail-fast || status=$?
    # The build that plays a sandbox process under an attacker's control. It is the last: it replaces the other.
    cargo test "${crates[@]}" --features runtime/compromised --test walls --test defects --test kill_points --no-fail-fast || status=$?
    return $status
}

# The binary that programs run in: with the checks of a debug build, and without waiting for a release build; a soak
# takes the release. Its path goes to NANOVISOR_BIN.
binary() {
    [[ -z "${NANOVISOR_BIN:-}" ]] || return 0
    if [[ "${NANOVISOR_SOAK:-}" == 1 ]]; then
        cargo build --release --locked -p runtime
        export NANOVISOR_BIN="$NANOVISOR"
    else
        cargo build "${crates[@]}"
        export NANOVISOR_BIN="$TARGET_DIR/$TRIPLE/debug/nanovisor"
    fi
}

integration() {
    binary
    local image rootfs
    image="$(scripts/build-rootfs.sh image)"
    rootfs="$(scripts/build-rootfs.sh dir)"
    NANOVISOR_IMAGE="$image" NANOVISOR_ROOTFS="$rootfs" cargo test --locked -p nanovisor-tests --no-fail-fast
}

emulated() {
    binary
    scripts/test-emulated.sh
}

cri() {
    binary
    scripts/cri-pod.sh
}

need_root() {
    [[ $EUID -eq 0 ]] && return
    skip_or_fail "not root: a root file system, namespaces and cgroups need it"
    return 1
}

[[ -r /dev/kvm && -w /dev/kvm ]] || {
    skip_or_fail "no usable /dev/kvm: the kvm platform is tested in the emulated machine only"
    export NANOVISOR_NO_KVM=1
}

if [[ $# -eq 0 ]]; then
    set -- lint unit integration emulated
    [[ "${NANOVISOR_SOAK:-}" != 1 ]] || set -- "$@" cri
fi
for name in "$@"; do
    case "$name" in
    lint | unit | emulated | cri) step "$name" "$name" ;;
    integration) if need_root; then step integration integration; else skipped=$((skipped + 1)); fi ;;
    *) die "unknown step '$name': lint, unit, integration, emulated or cri" ;;
    esac
done

# cargo's own lines, one a test binary, summed.
read -r passed broken ignored < <(awk '/^test result: / {
    for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i }
} END { print p + 0, f + 0, s + 0 }' "$log")
echo
[[ ${#failed[@]} -eq 0 ]] || echo "failed steps: ${failed[*]}"
# A failed step that is no test binary (lint, a build) counts as one failure.
[[ ${#failed[@]} -eq 0 || $broken -gt 0 ]] || broken=${#failed[@]}
echo "$passed passed, $broken failed, $((ignored + skipped)) skipped"
[[ ${#failed[@]} -eq 0 && $broken -eq 0 ]]
