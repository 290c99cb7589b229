//! `/proc/PID/mounts` and `mountinfo`.

use std::fmt::Write as _;
use std::sync::Arc;

use abi::Errno;

use crate::kernel::task::Task;
use crate::vfs::mount::{Mount, MountFlags};
use crate::vfs::{PathRef, mount_ns};

/// Octal escapes for what separates fields (`mangle`).
fn mangle(path: &[u8]) -> String {
    let mut out = String::new();
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                let _ = write!(out, "\\{byte:03o}");
            }
            byte if byte.is_ascii() => out.push(char::from(*byte)),
            byte => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out
}

fn mount_options(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut out = if mount.is_readonly() { "ro".to_owned() } else { "rw".to_owned() };
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
    ] {
        if flags.contains(flag) {
            out.push_str(name);
        }
    }
    out
}

fn super_options(mount: &Mount) -> String {
    let mode = if mount.sb.readonly { "ro" } else { "rw" };
    if mount.sb.options.is_empty() { mode.to_owned() } else { format!("{mode},{}", mount.sb.options) }
}

/// A mount and where it lies from a task's root.
type Placed = (Arc<Mount>, Vec<u8>);

/// The mounts a task can see.
fn visible(task: &Arc<Task>) -> Result<Vec<Placed>, Errno> {
    let state = task.fs().ok_or(Errno::ENOENT)?.state.lock().clone();
    let (root, table) = (&state.root, &task.kernel.vfs.mounts);
    let shown = |mount: Arc<Mount>| {
        let place = mount.root_path().path_from(root);
        place.reachable.then_some((mount, place.path))
    };
    let top = mount_ns::root_of(table, &state)?;
    let mut all = table.below(&top);
    all.push(top);
    all.sort_by_key(|mount| mount.id);
    Ok(all.into_iter().filter_map(shown).collect())
}

/// `/proc/PID/mounts`.
pub(super) fn mounts(task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, place) in visible(task)? {
        let mut options = mount_options(&mount);
        if !mount.sb.options.is_empty() {
            options = format!("{options},{}", mount.sb.options);
        }
        let (source, place) = (mangle(&mount.sb.source), mangle(&place));
        let _ = writeln!(out, "{source} {place} {} {options} 0 0", mount.sb.fstype);
    }
    Ok(out.into_bytes())
}

/// `/proc/PID/mountinfo`.
pub(super) fn mountinfo(task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, place) in visible(task)? {
        let parent = mount.place().map_or(mount.id, |p| p.mount.id);
        let top = PathRef { mount: mount.clone(), dentry: mount.sb.root.clone() };
        let inside = if Arc::ptr_eq(&mount.root, &mount.sb.root) { b"/".to_vec() } else { within(&mount, &top) };
        let (major, minor) = (nix::sys::stat::major(mount.sb.dev), nix::sys::stat::minor(mount.sb.dev));
        let _ = writeln!(
            out,
            "{} {parent} {major}:{minor} {} {} {} - {} {} {}",
            mount.id,
            mangle(&inside),
            mangle(&place),
            mount_options(&mount),
            mount.sb.fstype,
            mangle(&mount.sb.source),
            super_options(&mount),
        );
    }
    Ok(out.into_bytes())
}

/// `/proc/PID/mountstats`.
pub(super) fn mountstats(task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let mut out = String::new();
    for (mount, place) in visible(task)? {
        let source = mangle(&mount.sb.source);
        let _ = writeln!(out, "device {source} mounted on {} with fstype {}", mangle(&place), mount.sb.fstype);
    }
    Ok(out.into_bytes())
}

/// Where in its file system a bind mount's root lies.
fn within(mount: &Mount, top: &PathRef) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while !Arc::ptr_eq(&at, &top.dentry) {
        names.push(at.name());
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    names.iter().rev().flat_map(|n| [b"/".as_slice(), n.as_slice()].concat()).collect()
}
