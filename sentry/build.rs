//! Compiles the vDSO (vdso/vdso.c) with the host's C compiler.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=vdso/vdso.c");
    println!("cargo:rerun-if-changed=vdso/vdso.lds");
    println!("cargo:rerun-if-env-changed=CC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("vdso.so");
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&cc)
        .args(["-O2", "-g0", "-m64", "-fPIC", "-shared", "-nostdlib", "-ffreestanding", "-fno-stack-protector"])
        .args(["-fcf-protection=none", "-fno-builtin", "-fno-jump-tables", "-mno-sse", "-Wall", "-Werror"])
        .args(["-Wl,-soname,linux-vdso.so.1", "-Wl,--hash-style=both", "-Wl,-Bsymbolic", "-Wl,--eh-frame-hdr"])
        .args(["-Wl,--build-id=sha1", "-Wl,-z,max-page-size=4096", "-Wl,--strip-all", "-Wl,--no-undefined"])
        .args(["-Wl,-T,vdso/vdso.lds", "vdso/vdso.c", "-o"])
        .arg(&out)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} cannot compile sentry/vdso/vdso.c: {status}", cc.display()),
        Err(e) => panic!("no C compiler ({}): {e}; install gcc or set CC", cc.display()),
    }
}
