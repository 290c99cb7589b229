"""Writes an OCI image archive with a static busybox in it: `containerd_image.py OUT NAME`."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile

BUSYBOX = "/bin/busybox"


def add(archive, name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def layer():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "root", "run", "var"):
            add(archive, name, type=tarfile.DIRTYPE, mode=0o755)
        add(archive, "tmp", type=tarfile.DIRTYPE, mode=0o1777)
        with open(BUSYBOX, "rb") as busybox:
            add(archive, "bin/busybox", busybox.read(), mode=0o755)
        for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
            if applet != "busybox":
                add(archive, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        add(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", mode=0o644)
        add(archive, "etc/group", b"root:x:0:\n", mode=0o644)
    return buffer.getvalue()


def main(out, name):
    blobs = {}

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    content = layer()
    diff = f"sha256:{hashlib.sha256(content).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [blob(content, "layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name}
    with tarfile.open(out, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for digest, data in blobs.items():
            add(archive, f"blobs/sha256/{digest}", data)


main(*sys.argv[1:])
