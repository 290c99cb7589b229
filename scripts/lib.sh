# Shared by the scripts in this folder: source it, don't run it.
# shellcheck shell=bash

set -euo pipefail

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TRIPLE=x86_64-unknown-linux-gnu
TARGET_DIR="${CARGO_TARGET_DIR:-$REPO/target}"
# The release binary. Cargo puts it under the triple because .cargo/config.toml names one.
NANOVISOR="${NANOVISOR_BIN:-$TARGET_DIR/$TRIPLE/release/nanovisor}"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Everything that is slow to make and safe to lose: root file systems, images, the emulated machine's kernel, runsc.
# One per user, shared by clones; NANOVISOR_CACHE moves it.
cache_dir() {
    local dir="${NANOVISOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/nanovisor}"
    mkdir -p "$dir" || die "cannot make the cache folder $dir; set NANOVISOR_CACHE to a writable one"
    printf '%s\n' "$dir"
}

in_ci() { [[ "${CI:-}" == true || "${CI:-}" == 1 ]]; }

# Says that a part cannot run here: a failure in CI, where nothing may be silently left out; a message elsewhere.
skip_or_fail() {
    if in_ci; then die "$* (CI=true: this may not be skipped)"; fi
    printf 'skipped: %s\n' "$*" >&2
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command under an exclusive lock on a file in the cache, so that two makes at once do the work once.
with_lock() {
    local name="$1"
    shift
    local lock
    lock="$(cache_dir)/$name.lock"
    (
        flock -n 9 || {
            say "waiting for another build of $name"
            flock 9
        }
        "$@" 9>&-
    ) 9>"$lock"
}
