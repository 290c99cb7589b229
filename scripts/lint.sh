#!/usr/bin/env bash
# Formatting, clippy with warnings as errors, and the structure check. Runs all three before it fails.
source "$(dirname "$0")/lib.sh"
cd "$REPO"
status=0
say "cargo fmt --check"
cargo fmt --all --check || status=1
say "structure"
scripts/check-structure || status=1
scripts/test-structure || status=1
say "clippy"
cargo clippy --workspace --all-targets --locked -- -D warnings || status=1
cargo clippy -p runtime --all-targets --features compromised --locked -- -D warnings || status=1
exit $status
