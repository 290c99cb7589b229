#!/usr/bin/env bash
# Makes the root file system that the demo, the tests and the benchmarks run in, and prints the path of what was asked:
#   scripts/build-rootfs.sh tar|dir|image [--extra DIR]
# tar    Debian 12 packages in one tar (mmdebstrap; a minute or two, once)
# dir    the tar unpacked, for chroot, runc and runsc: treat it as read-only
# image  the tar as an EROFS image, by `nanovisor image build`
# --extra lays the files of DIR over the packages (owner root, fixed times); it may be given several times.
#
# NANOVISOR_IMAGE_BUILDER=mkfs makes the image by mkfs.erofs instead, to compare.
#
# Everything is in the cache (scripts/lib.sh), named by a hash of what it was made from: a changed package list, extra
# file or image builder makes a new one, an unchanged one costs milliseconds. Safe to interrupt and to run twice at once.
source "$(dirname "$0")/lib.sh"

SUITE=bookworm
PACKAGES=(
    bash busybox-static coreutils findutils gcc git grep gzip gawk libc6-dev make nodejs procps python3 sed strace tar
    util-linux
)
# What no program here reads. Fewer files make a smaller image and a quicker build.
EXCLUDES=('/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' '/usr/share/lintian/*')
# Raise it when the recipe below changes in a way the lists above don't show.
RECIPE=1
EPOCH=1700000000

hash_of() { sha256sum | cut -c1-16; }

base_key() { printf '%s\n' "$RECIPE" "$SUITE" "$EPOCH" "${PACKAGES[@]}" "${EXCLUDES[@]}" | hash_of; }

# The builder's sources stand for its version: a fixed builder must not serve a stale image.
builder_key() {
    (cd "$REPO" && find rofs/src -name '*.rs' -print0 | LC_ALL=C sort -z | xargs -0 cat) | hash_of
}

extras_key() {
    local dir
    for dir in "$@"; do
        (cd "$dir" && find . -printf '%p %m %l\n' | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    done | hash_of
}

make_base_tar() {
    local out="$1" work exclude
    [[ -e "$out" ]] && return
    have mmdebstrap || die "no mmdebstrap: run 'make setup' (it installs it by apt)"
    say "building a Debian $SUITE root with ${PACKAGES[*]}"
    local options=()
    for exclude in "${EXCLUDES[@]}"; do options+=("--dpkgopt=path-exclude=$exclude"); done
    work="$(mktemp -d "$(dirname "$out")/build.XXXXXX")"
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    # Unpacked next to the result, not in /tmp, which may be small; minbase still has apt, dpkg and the shell.
    if ! TMPDIR="$work" SOURCE_DATE_EPOCH=$EPOCH mmdebstrap --variant=minbase --quiet --format=tar \
        --include="$(IFS=,; echo "${PACKAGES[*]}")" "${options[@]}" \
        --customize-hook='rm -rf "$1"/var/cache/ldconfig/aux-cache "$1"/var/log/*.log "$1"/var/log/apt "$1"/etc/resolv.conf' \
        --customize-hook='echo nanovisor >"$1/etc/hostname"' \
        "$SUITE" "$work/root.tar" >&2; then
        df -h "$work" >&2 || true
        die "mmdebstrap failed: see above (it needs root or user namespaces, the Debian mirror, and about 2 GiB here)"
    fi
    mv "$work/root.tar" "$out"
    rm -rf "$work"
    trap - EXIT
}

# A copy of the base tar with the extra files appended; the base itself when there are none.
make_tar() {
    local base="$1" out="$2" dir
    shift 2
    [[ -e "$out" ]] && return
    cp --reflink=auto "$base" "$out.tmp"
    for dir in "$@"; do
        tar --append --file="$out.tmp" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$EPOCH \
            --no-acls --no-xattrs -C "$dir" .
    done
    mv "$out.tmp" "$out"
}

make_dir() {
    local tar="$1" out="$2"
    [[ -e "$out" ]] && return
    [[ $EUID -eq 0 ]] || die "unpacking a root file system keeps owners and devices and needs root"
    say "unpacking the root file system"
    rm -rf "$out.tmp"
    mkdir "$out.tmp"
    tar --extract --file="$tar" --numeric-owner --same-permissions --same-owner -C "$out.tmp"
    mv "$out.tmp" "$out"
}

# Also false for a binary from before it could build images.
has_builder() { [[ "${NANOVISOR_IMAGE_BUILDER:-}" != mkfs ]] && "$NANOVISOR" image build --help 2>/dev/null | grep -q Usage; }

# The one place that knows how an image is made.
make_image() {
    local tar="$1" out="$2"
    [[ -e "$out" ]] && return
    say "building the image"
    rm -f "$out.tmp"
    if has_builder; then
        "$NANOVISOR" image build "$tar" "$out.tmp" >&2
    else
        # Stand-in: mkfs.erofs takes a folder only.
        make_dir "$tar" "$out.unpacked"
        mkfs.erofs -T $EPOCH "$out.tmp" "$out.unpacked" >/dev/null
        rm -rf "$out.unpacked"
    fi
    mv "$out.tmp" "$out"
}

build() {
    local kind="$1" dir="$2"
    shift 2
    local key name builder=none
    key="$(base_key)"
    name="$dir/debian-$key"
    find "$dir" -mindepth 1 -maxdepth 1 -name 'build.*' -exec rm -rf {} + 2>/dev/null || true
    make_base_tar "$name.tar"
    if [[ $# -gt 0 ]]; then
        local base="$name.tar"
        name="$name-$(extras_key "$@")"
        make_tar "$base" "$name.tar" "$@"
    fi
    local result="$name.tar"
    case "$kind" in
    dir)
        result="$name.root"
        make_dir "$name.tar" "$result"
        ;;
    image)
        if has_builder; then builder="$(builder_key)"; fi
        result="$name-$builder.erofs"
        make_image "$name.tar" "$result"
        ;;
    esac
    # Marks them as in use for the clean-up below. An unpacked root has the time of the packages until then.
    touch "$name.tar" "$result"
    printf '%s\n' "$result"
    # What nothing has asked for in a month.
    find "$dir" -mindepth 1 -maxdepth 1 -mtime +30 -name 'debian-*' -exec rm -rf {} + 2>/dev/null || true
}

kind="${1:-image}"
shift || true
case "$kind" in tar | dir | image) ;; *) die "usage: build-rootfs.sh tar|dir|image [--extra DIR]" ;; esac
extras=()
while [[ $# -gt 0 ]]; do
    case "$1" in
    --extra)
        [[ -d "${2:-}" ]] || die "--extra: '${2:-}' is no folder"
        extras+=("$2")
        shift 2
        ;;
    *) die "unknown argument '$1'" ;;
    esac
done
dir="$(cache_dir)/rootfs"
mkdir -p "$dir"
with_lock rootfs build "$kind" "$dir" "${extras[@]}"
