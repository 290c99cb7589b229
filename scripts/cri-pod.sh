#!/usr/bin/env bash
# One pod through containerd's CRI plugin, as a kubelet would run it: nanovisor is containerd's default runtime, two
# containers share a sandbox, one is executed into and stopped, and nothing is left. docs/kubernetes.md tells the set-up.
#   scripts/cri-pod.sh      NANOVISOR_BIN=path/to/nanovisor
source "$(dirname "$0")/lib.sh"
[[ -x "$NANOVISOR" ]] || die "no $NANOVISOR: run 'make build', or set NANOVISOR_BIN"
if [[ $EUID -ne 0 ]] || ! have containerd; then
    skip_or_fail "a pod through CRI (needs root and containerd)"
    exit 0
fi
client="$(cache_dir)/cri-client"
work="$(mktemp -d)"
image=docker.io/library/busybox:test
pause=docker.io/library/pause:test

build_client() {
    [[ -x "$client" && "$client" -nt "$REPO/scripts/cri/main.go" ]] && return
    say "building the CRI client (minutes)"
    local go source
    go="$("$REPO/scripts/setup.sh" go)"
    source="$(mktemp -d "$(cache_dir)/cri.XXXXXX")"
    cp "$REPO/scripts/cri/main.go" "$source"
    (
        cd "$source"
        printf 'module cri\ngo 1.22\nrequire (\n\tk8s.io/cri-api v0.26.15\n\tgoogle.golang.org/grpc v1.58.3\n)\n' >go.mod
        "$go" mod tidy >&2 && "$go" build -o "$client" .
    ) || die "could not build the client; its source is in $source"
    rm -rf "$source"
}

cri() { LOGS="$work/logs" timeout 60 "$client" "$work/sock" "$@"; }

images() {
    local make="$REPO/runtime/tests/containerd/image.py"
    sed 's/"Cmd": \["sh"\]/"Cmd": ["sleep", "1000000"]/' "$make" >"$work/pause.py"
    python3 "$make" "$work/image.tar" "$image"
    python3 "$work/pause.py" "$work/pause.tar" "$pause"
    for archive in image pause; do
        timeout 60 ctr --address "$work/sock" -n k8s.io image import --snapshotter native "$work/$archive.tar" >&2
    done
}

configure() {
    cat >"$work/config.toml" <<END
version = 2
root = "$work/root"
state = "$work/state"
[grpc]
address = "$work/sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "nanovisor"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nanovisor]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["dev.nanovisor.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nanovisor.options]
BinaryName = "$NANOVISOR"
Root = "$work/runtime"
END
}

# Waits until a command answers with what is asked for.
until_is() {
    local wanted="$1"
    shift
    for _ in $(seq 300); do
        [[ "$("$@" 2>/dev/null || true)" == "$wanted" ]] && return
        sleep 0.1
    done
    die "never '$wanted': $*"
}

is() { [[ "$1" == "$2" ]] || die "'$1' instead of '$2'; containerd's log: $(tail -5 "$work/log")"; }

finish() {
    kill "$daemon" 2>/dev/null && wait "$daemon" || true
    rm -rf --one-file-system "$work"
}

with_lock cri-client build_client
NANOVISOR="$(realpath "$NANOVISOR")"
configure
mkdir "$work/logs"
containerd --config "$work/config.toml" >"$work/log" 2>&1 &
daemon=$!
trap finish EXIT
until_is yes bash -c "ctr --address '$work/sock' version >/dev/null && echo yes"
images
pod="$(cri run-pod nanovisor)"
first="$(cri create "$pod" first "$image" 'echo $$ $(hostname); sleep 1000')"
second="$(cri create "$pod" second "$image" 'exit 3')"
cri start "$first"
cri start "$second"
until_is "CONTAINER_EXITED 3" cri state "$second"
until_is "1 pod" sed 's/.* F //' "$work/logs/first.log"
is "$(cri exec "$first" hostname)" pod
status=0
cri exec "$first" sh -c 'exit 5' || status=$?
is "$status" 5
is "$(cri state "$first")" "CONTAINER_RUNNING 0"
cri stop "$first"
is "$(cri state "$first")" "CONTAINER_EXITED 137"
cri remove "$first"
cri remove "$second"
cri stop-pod "$pod"
cri remove-pod "$pod"
is "$(ls "$work/runtime/k8s.io")" ""
echo "a pod of two containers ran through CRI, and nothing of it is left"
