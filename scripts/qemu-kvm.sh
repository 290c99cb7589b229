#!/usr/bin/env bash
# Runs a command as root on emulated hardware that has SVM, under Debian's kernel and kvm-amd: KVM by nested paging,
# where the guest enters ring 0 on `syscall`, on any host, also one without (or with an unusual) /dev/kvm.
#   scripts/qemu-kvm.sh [--timeout S] [--memory MIB] [--cpus N] [--file HOST[:GUEST]]... [--env K=V]... -- CMD [ARG]...
#   scripts/qemu-kvm.sh --self-test
# Programs must be static. A file without GUEST lands in /, under its own name; a folder is copied whole.
# Output goes to standard output as it comes; the exit status is the command's, 124 after the timeout (wall time),
# 125 when the machine itself failed. The machine boots in about ten seconds and computes 10 to 50 times slower.
source "$(dirname "$0")/lib.sh"

timeout=600 memory=1024 cpus=2 self_test=
files=() envs=()
while [[ $# -gt 0 ]]; do
    case "$1" in
    --timeout) timeout="$2" && shift 2 ;;
    --memory) memory="$2" && shift 2 ;;
    --cpus) cpus="$2" && shift 2 ;;
    --file) files+=("$2") && shift 2 ;;
    --env) envs+=("$2") && shift 2 ;;
    --self-test) self_test=1 && shift ;;
    --) shift && break ;;
    *) die "unknown argument '$1'" ;;
    esac
done

kernel="$(cache_dir)/kernel"
have qemu-system-x86_64 && [[ -e "$kernel/vmlinuz" ]] || {
    echo "error: no emulator or no kernel for it: run 'scripts/setup.sh qemu'" >&2
    exit 125
}
busybox="$(command -v busybox)" || die "no busybox: run 'scripts/setup.sh qemu'"

work="$(mktemp -d "${TMPDIR:-/tmp}/qemu-kvm.XXXXXX")"
trap 'rm -rf "$work"' EXIT

if [[ -n "$self_test" ]]; then
    gcc -O1 -static -o "$work/kvm-smoke" "$REPO/scripts/kvm-smoke.c" || die "cannot compile scripts/kvm-smoke.c"
    files+=("$work/kvm-smoke")
    set -- /kvm-smoke
fi
[[ $# -gt 0 ]] || die "no command after --"

root="$work/root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,root,etc,modules}
cp "$busybox" "$root/bin/busybox"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
for module in virt/lib/irqbypass arch/x86/kvm/kvm drivers/crypto/ccp/ccp arch/x86/kvm/kvm-amd; do
    found="$kernel/modules/kernel/$module.ko"
    # Some are built in, or not needed, in one kernel or another; kvm-amd loads or it doesn't.
    [[ -e "$found" ]] && cp "$found" "$root/modules/"
done
for file in "${files[@]}"; do
    from="${file%%:*}" to="/$(basename "${file%%:*}")"
    [[ "$file" == *:* ]] && to="${file#*:}"
    [[ -e "$from" ]] || die "--file: $from does not exist"
    mkdir -p "$root$(dirname "$to")"
    cp -aL "$from" "$root$to"
done
{
    echo '#!/bin/sh'
    for env in "${envs[@]}"; do printf 'export %q\n' "$env"; done
    printf 'exec'
    printf ' %q' "$@"
    echo
} >"$root/command"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
# The initial root cannot be pivoted away from, which a sandbox does: go on in a mount of the same files over it.
if [ "$1" != moved ]; then
    mkdir -p /newroot
    mount --bind / /newroot
    cd /newroot
    mount --move . /
    exec chroot . /init moved
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ip link set lo up
# The first port carries the command's output, the second the kernel's console and the exit status.
# Bytes as they are: no CR before LF.
stty -F /dev/ttyS0 -opost -echo 2>/dev/null
stty -F /dev/ttyS1 -opost -echo 2>/dev/null
for module in irqbypass ccp kvm kvm-amd; do
    [ -e /modules/$module.ko ] && insmod /modules/$module.ko 2>/tmp/insmod.$module
done
echo "command begins" >/dev/ttyS1
if [ -c /dev/kvm ]; then
    setsid sh /command </dev/null >/dev/ttyS0 2>&1
    status=$?
else
    cat /tmp/insmod.* >/dev/ttyS0
    echo "the emulated machine has no /dev/kvm" >/dev/ttyS0
    status=125
fi
echo "status=$status" >/dev/ttyS1
poweroff -f
INIT
chmod +x "$root/init" "$root/command"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"

# One start of the machine. no_timer_check: on a busy host the emulator delivers the first ticks late, which the kernel
# would take for a broken timer and panic at.
machine() {
    rm -f "$work/console"
    timeout --foreground "$timeout" qemu-system-x86_64 -machine pc -accel tcg,thread=multi -cpu max,+svm \
        -smp "$cpus" -m "$memory" -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$kernel/vmlinuz" -initrd "$work/initrd" -serial stdio -serial "file:$work/console" \
        -append "console=ttyS1 quiet loglevel=3 panic=-1 no5lvl mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on" \
        </dev/null
}

for try in 1 2 3; do
    status=0
    machine || status=$?
    # A machine that stopped before the command began may be started again: nothing of ours has run.
    { [[ $status -ne 124 ]] && ! grep -aq '^command begins' "$work/console" 2>/dev/null; } || break
    echo "the emulated machine stopped before it was up (try $try)" >&2
done
[[ $status -ne 124 ]] || {
    grep -a -v -e '^status=' -e '^command begins' "$work/console" | tail -20 >&2
    echo "error: no end after $timeout s on the emulated machine" >&2
    exit 124
}
reported="$(sed -n 's/^status=\([0-9]*\).*/\1/p' "$work/console" 2>/dev/null | tail -1)"
[[ -n "$reported" ]] || {
    echo "error: the emulated machine stopped without an exit status (qemu: $status); its console:" >&2
    tail -40 "$work/console" >&2
    exit 125
}
exit "$reported"
