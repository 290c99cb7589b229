//! The small root file system of the guest programs: busybox, the programs, the C library, a few files in /etc.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compile::{Link, Program};
use crate::env;

/// Where programs are in the guest.
pub const PROGRAMS: &str = "/t";

/// Makes the root file system anew and returns its folder.
///
/// # Errors
/// busybox is missing, or the disk does not let us.
pub fn build(programs: &[Program], compiled: &Path) -> Result<PathBuf, String> {
    let root = env::scratch().join("root");
    make(&root, programs, compiled).map_err(|e| format!("building {}: {e}", root.display()))?;
    Ok(root)
}

fn make(root: &Path, programs: &[Program], compiled: &Path) -> std::io::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    for dir in ["bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "t", "tmp", "usr/bin", "var/tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o1777))?;
    }
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1\tlocalhost\n")?;
    busybox(root)?;
    for program in programs {
        for link in &program.links {
            let name = format!("{}{}", program.name, link.suffix());
            let from = compiled.join(&name);
            if !from.exists() {
                continue;
            }
            if *link == Link::Dynamic {
                libraries(root, &from)?;
            }
            fs::copy(&from, root.join("t").join(&name))?;
        }
    }
    lower(root)?;
    extras(root)
}

/// Files that the image brings, for programs that change them (`fs_overlay`).
fn lower(root: &Path) -> std::io::Result<()> {
    let at = root.join("lower");
    for dir in ["dir/sub", "empty", "many", "deep/er/est", "sticky"] {
        fs::create_dir_all(at.join(dir))?;
    }
    let text = |name: &str| format!("{name} as the image has it\n");
    for name in ["file", "hard1", "dir/a", "dir/b", "dir/sub/x", "victim", "map", "deep/er/est/file"] {
        fs::write(at.join(name), text(name))?;
    }
    let numbers: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    fs::write(at.join("big"), numbers)?;
    for (name, mode) in [("exec", 0o755), ("suid", 0o6755)] {
        fs::write(at.join(name), text(name))?;
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::set_permissions(at.join("sticky"), fs::Permissions::from_mode(0o1777))?;
    fs::hard_link(at.join("hard1"), at.join("hard2"))?;
    symlink("file", at.join("link"))?;
    for n in 0..500 {
        fs::write(at.join(format!("many/file-{n}")), "")?;
    }
    Ok(())
}

fn busybox(root: &Path) -> std::io::Result<()> {
    let missing = || std::io::Error::other("no static busybox; run `make setup`");
    let path = ["/usr/bin/busybox", "/bin/busybox"].iter().find(|p| Path::new(p).exists()).ok_or_else(missing)?;
    fs::copy(path, root.join("bin/busybox"))?;
    let list = Command::new(path).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// The libraries that a program is linked with, at the paths at which they are here.
fn libraries(root: &Path, program: &Path) -> std::io::Result<()> {
    let ldd = Command::new("ldd").arg(program).output()?;
    for path in String::from_utf8_lossy(&ldd.stdout).split_whitespace().filter(|w| w.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        if !to.exists() {
            fs::copy(path, &to)?;
        }
        // The C library loads this one at run time, for pthread_cancel.
        let unwinder = Path::new(path).with_file_name("libgcc_s.so.1");
        let to = root.join(unwinder.to_string_lossy().trim_start_matches('/'));
        if unwinder.exists() && !to.exists() {
            fs::copy(&unwinder, &to)?;
        }
    }
    Ok(())
}

/// What is bad on purpose: the command-line tests run these.
fn extras(root: &Path) -> std::io::Result<()> {
    let bad = root.join("bad");
    fs::create_dir_all(&bad)?;
    let put = |name: &str, mode: u32, bytes: &[u8]| {
        fs::write(bad.join(name), bytes)?;
        fs::set_permissions(bad.join(name), fs::Permissions::from_mode(mode))
    };
    put("plain-text", 0o644, b"no program\n")?;
    put("no-interpreter", 0o755, b"#!/no/such/interpreter\n")?;
    put("script", 0o755, b"#!/bin/sh -e\necho script \"$0\" \"$@\"\n")?;
    put("empty", 0o755, b"")?;
    let mut elf = fs::read(root.join("bin/busybox"))?;
    elf.truncate(200_000);
    put("truncated-elf", 0o755, &elf)?;
    elf.truncate(64);
    put("header-only", 0o755, &elf)?;
    // e_machine 183: AArch64.
    if let Some(machine) = elf.get_mut(18..20) {
        machine.copy_from_slice(&183u16.to_le_bytes());
    }
    put("aarch64", 0o755, &elf)
}

/// Makes an image of `root` by the command under test.
///
/// # Errors
/// What the command says.
pub fn image(root: &Path) -> Result<PathBuf, String> {
    let out = env::scratch().join("guest.img");
    let output = Command::new(env::nanovisor()?)
        .args(["image", "build"])
        .args([root, &out])
        .output()
        .map_err(|e| format!("nanovisor image build: {e}"))?;
    if output.status.success() {
        return Ok(out);
    }
    Err(format!("nanovisor image build: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
