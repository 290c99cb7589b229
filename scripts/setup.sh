#!/usr/bin/env bash
# Installs what a part of the project needs and does nothing when it is there.
#   scripts/setup.sh build|image|test|qemu|bench|demo ...
#   scripts/setup.sh go      prints the command of a Go that is new enough
# Debian 12 with apt and a Rust toolchain is assumed; on another system it says what to install by hand.
source "$(dirname "$0")/lib.sh"

BUILD_PACKAGES=(gcc libc6-dev make git)
IMAGE_PACKAGES=(mmdebstrap erofs-utils xz-utils debian-archive-keyring)
TEST_PACKAGES=(busybox-static python3 strace procps containerd docker.io)
QEMU_PACKAGES=(qemu-system-x86 busybox-static)
BENCH_PACKAGES=(runc python3)
KERNEL_PACKAGE=linux-image-cloud-amd64
RUNSC_MODULE=gvisor.dev/gvisor/runsc
# Newer than any toolchain runsc has asked for so far; used only where the machine's own Go is too old to fetch one.
GO_TOOLCHAIN=1.26.0

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; elif have sudo; then sudo -- "$@"; else
        die "installing packages needs root: run as root, or install sudo, or install by hand: $*"
    fi
}

apt_get() {
    # Lock::Timeout waits for another apt instead of failing; Retries covers a flaky mirror.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

missing_packages() {
    local package status
    for package in "$@"; do
        status="$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)"
        [[ "$status" == installed ]] || printf '%s\n' "$package"
    done
}

# True when apt knows a version of every package that could be downloaded.
apt_knows() {
    local package
    for package in "$@"; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 1
    done
}

apt_update() {
    # One broken third-party source must not stop us: what counts is whether the packages are found afterwards.
    apt_get update >/dev/null || warn "apt-get update reported errors; going on with the lists there are"
}

ensure_packages() {
    local wanted
    # dpkg first: one fork when all is there.
    if [[ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" == "$#" ]]; then return; fi
    have apt-get || die "no apt-get here; install these (or their like) by hand: $*"
    mapfile -t wanted < <(missing_packages "$@")
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    say "installing ${wanted[*]}"
    apt_knows "${wanted[@]}" || apt_update
    if ! apt_get install -y --no-install-recommends "${wanted[@]}" >&2; then
        # Old lists name versions that the mirror has dropped.
        apt_update
        apt_get install -y --no-install-recommends "${wanted[@]}" >&2 ||
            die "apt-get could not install: ${wanted[*]}. See its message above; then run 'make setup' again"
    fi
}

ensure_rust() {
    have cargo || die "no cargo: install Rust 1.90 or newer (rustup, or a distribution's package), then try again"
    local component
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        have rustup && rustup component add "${component/fmt/rustfmt}" >&2 && continue
        die "no 'cargo $component': install the rustfmt and clippy components of your Rust toolchain"
    done
}

# Downloads the cloud kernel and unpacks it in the cache. Nothing is installed: it only ever runs in the emulator.
fetch_kernel() {
    local cache="$1" work package
    [[ -e "$cache/kernel/vmlinuz" ]] && return
    say "fetching $KERNEL_PACKAGE for the emulated machine (unpacked, not installed)"
    apt_knows "$KERNEL_PACKAGE" || apt_update
    package="$(apt-cache depends "$KERNEL_PACKAGE" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)"
    [[ -n "$package" ]] || die "apt knows no kernel behind $KERNEL_PACKAGE; check the apt sources"
    work="$(mktemp -d "$cache/kernel.XXXXXX")"
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    if ! (cd "$work" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package" >&2); then
        apt_update
        (cd "$work" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package" >&2) || die "could not download $package"
    fi
    dpkg-deb -x "$work"/*.deb "$work/root"
    mkdir "$work/kernel"
    cp "$work"/root/boot/vmlinuz-* "$work/kernel/vmlinuz"
    mv "$work"/root/lib/modules/* "$work/kernel/modules"
    printf '%s\n' "$package" >"$work/kernel/package"
    rm -rf "$cache/kernel"
    mv "$work/kernel" "$cache/kernel"
    rm -rf "$work"
    trap - EXIT
}

# A Go that can build runsc and the CRI client: the machine's, if it is 1.21 or newer (those fetch the toolchain a module asks for by
# themselves); else one fetched as a module.
go_command() {
    local cache="$1" minor
    if ! have go && [[ ! -x /usr/local/go/bin/go ]]; then ensure_packages golang-go ca-certificates; fi
    have go || PATH="$PATH:/usr/local/go/bin"
    minor="$(go version | sed -n 's/.*go1\.\([0-9]*\).*/\1/p')"
    if ((${minor:-0} >= 21)); then
        command -v go
        return
    fi
    local module="golang.org/toolchain@v0.0.1-go$GO_TOOLCHAIN.linux-amd64" home="$cache/go-$GO_TOOLCHAIN"
    if [[ ! -x "$home/bin/go" ]]; then
        say "fetching Go $GO_TOOLCHAIN as a module (the machine's is 1.$minor)"
        local work source
        work="$(mktemp -d "$cache/go.XXXXXX")"
        source="$(cd "$work" && GOFLAGS=-modcacherw GOPATH="$work/path" go mod download -json "$module" |
            sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')"
        if [[ ! -d "$source" ]]; then
            rm -rf "$work"
            die "could not fetch $module"
        fi
        mv "$source" "$work/go"
        chmod -R u+w "$work/go"
        # Module archives carry no modes.
        chmod +x "$work"/go/bin/* "$work"/go/pkg/tool/*/* 2>/dev/null || true
        rm -rf "$home" && mv "$work/go" "$home"
        rm -rf "$work"
    fi
    printf '%s\n' "$home/bin/go"
}

fetch_runsc() {
    local cache="$1" go work
    [[ -x "$cache/bin/runsc" ]] && return
    say "building runsc from the Go module proxy (a minute or two)"
    go="$(go_command "$cache")" || return 1
    work="$(mktemp -d "$cache/runsc.XXXXXX")"
    # CGO off: runsc must be static to run from its own empty root.
    if ! GOTOOLCHAIN=auto CGO_ENABLED=0 GOBIN="$work" "$go" install "$RUNSC_MODULE@latest" >&2; then
        rm -rf "$work"
        return 1
    fi
    mkdir -p "$cache/bin"
    mv "$work/runsc" "$cache/bin/runsc"
    rm -rf "$work"
}

setup_build() {
    ensure_rust
    ensure_packages "${BUILD_PACKAGES[@]}"
}
setup_image() { ensure_packages "${IMAGE_PACKAGES[@]}"; }
setup_qemu() {
    ensure_packages "${QEMU_PACKAGES[@]}"
    local cache
    cache="$(cache_dir)"
    [[ -e "$cache/kernel/vmlinuz" ]] || with_lock kernel fetch_kernel "$cache"
}
setup_test() {
    setup_build
    ensure_packages "${IMAGE_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    setup_qemu
}
setup_demo() {
    setup_build
    ensure_packages "${IMAGE_PACKAGES[@]}" python3
}
setup_go() { go_command "$(cache_dir)"; }
setup_bench() {
    setup_build
    ensure_packages "${IMAGE_PACKAGES[@]}" "${BENCH_PACKAGES[@]}"
    local cache
    cache="$(cache_dir)"
    # The benchmark still runs without it, and its column says why it is empty.
    [[ -x "$cache/bin/runsc" ]] || with_lock runsc fetch_runsc "$cache" || warn "runsc could not be built; its columns stay empty"
}

[[ $# -gt 0 ]] || set -- build
for group in "$@"; do
    case "$group" in
    build | image | qemu | test | demo | bench | go) "setup_$group" ;;
    all) setup_test && setup_bench ;;
    *) die "unknown group '$group': build, image, qemu, test, demo, bench, go or all" ;;
    esac
done
