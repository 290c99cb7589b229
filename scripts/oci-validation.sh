#!/usr/bin/env bash
# Runs the validation programs of OCI's runtime-tools (from the Go module proxy) against nanovisor and, beside it, runc.
# Prints a line a program: checks passed and failed by each. docs/oci.md says why some cannot pass.
#   scripts/oci-validation.sh [PROGRAM]...      NANOVISOR_BIN=path/to/nanovisor
source "$(dirname "$0")/lib.sh"
module=github.com/opencontainers/runtime-tools@v0.9.0
[[ -x "$NANOVISOR" ]] || die "no $NANOVISOR: run 'make build', or set NANOVISOR_BIN"
[[ $EUID -eq 0 ]] || die "needs root"
have go || die "no go: install golang-go"
tools="$(cache_dir)/runtime-tools"

fetch() {
    [[ -x "$tools/runtimetest" ]] && return
    say "building the validation programs (a few minutes)"
    local work source
    work="$(mktemp -d "$(cache_dir)/runtime-tools.XXXXXX")"
    source="$(cd "$work" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')"
    cp -r "$source/." "$work" && chmod -R u+w "$work"
    (
        cd "$work"
        # It was made before modules: these are the versions of its own list that its source still fits.
        printf 'module github.com/opencontainers/runtime-tools\ngo 1.22\nrequire github.com/opencontainers/runtime-spec v1.0.2\n' >go.mod
        go mod edit -replace github.com/satori/go.uuid=github.com/satori/go.uuid@v1.1.0 \
            -replace github.com/opencontainers/selinux=github.com/opencontainers/selinux@v1.6.0 \
            -replace github.com/urfave/cli=github.com/urfave/cli@v1.20.0
        export GOFLAGS=-mod=mod
        go mod tidy >&2
        mkdir bin
        for program in validation/*/; do
            program="$(basename "$program")"
            [[ "$program" == util ]] || go build -o "bin/$program" "./validation/$program"
        done
        CGO_ENABLED=0 go build -o runtimetest ./cmd/runtimetest
    ) || die "could not build them; what is half done is in $work"
    rm -rf "$tools" && mv "$work" "$tools"
}

# Passed and failed checks of one program with one runtime.
checks() {
    local output
    output="$(cd "$tools" && RUNTIME="$2" timeout 120 "bin/$1" 2>&1 || true)"
    printf '%s/%s' "$(grep -c '^ok' <<<"$output")" "$(grep -c '^not ok' <<<"$output")"
}

with_lock runtime-tools fetch
[[ $# -gt 0 ]] || mapfile -t programs < <(ls "$tools/bin")
[[ $# -eq 0 ]] || programs=("$@")
printf '%-32s %-14s %s\n' "ok/not ok" nanovisor runc
for program in "${programs[@]}"; do
    ours="$(checks "$program" "$NANOVISOR")"
    theirs=-
    have runc && theirs="$(checks "$program" runc)"
    printf '%-32s %-14s %s\n' "$program" "$ours" "$theirs"
done
