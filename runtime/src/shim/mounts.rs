//! The root file system that containerd asks for: mounts of a snapshotter, made in the bundle and taken down again.

use std::path::{Component, Path, PathBuf};
use std::thread;

use containerd_shim_protos::api::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::failure::{Failure, Result};

/// Bytes of options that the kernel takes: a page, with its end.
const MAX_DATA: usize = 4095;

/// Mounts `all` on `target`, one over the other. Of a failure nothing is left.
///
/// # Errors
/// An option that is none; what `mount(2)` says.
pub fn mount_all(all: &[Mount], target: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Failure::runtime(format!("{}: {e}", target.display()));
    if !all.is_empty() {
        std::fs::create_dir_all(target).map_err(failed)?;
    }
    for wanted in all {
        if let Err(failure) = mount_one(wanted, target) {
            unmount_all(target);
            return Err(failure);
        }
    }
    Ok(())
}

/// Takes down all that is mounted on `target`.
pub fn unmount_all(target: &Path) {
    // As many as a snapshotter may have put there, and an end if one does not go.
    for _ in 0..64 {
        if umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_err() {
            return;
        }
    }
}

fn mount_one(wanted: &Mount, target: &Path) -> Result<()> {
    let mut options = Parsed::read(&wanted.options);
    let base = if options.data().len() > MAX_DATA { options.shorten() } else { None };
    if options.data().len() > MAX_DATA {
        return Err(Failure::runtime(format!("mounting {}: its options are longer than a page", target.display())));
    }
    let doing = |e: nix::Error| {
        let text = format!("mounting {} ({}) on {}: {e}", wanted.source, wanted.type_, target.display());
        Failure::runtime(text)
    };
    let go = || {
        let flags = options.flags;
        let kind = (!wanted.type_.is_empty() && !flags.contains(MsFlags::MS_BIND)).then_some(wanted.type_.as_str());
        mount(Some(wanted.source.as_str()), target, kind, flags, Some(options.data().as_str()))?;
        // A bind takes its other flags only when it is there.
        if flags.contains(MsFlags::MS_BIND) && flags.contains(MsFlags::MS_RDONLY) {
            let again = (flags & !MsFlags::MS_REC) | MsFlags::MS_REMOUNT;
            mount(None::<&str>, target, None::<&str>, again, None::<&str>)?;
        }
        Ok(())
    };
    match base {
        None => go().map_err(doing),
        Some(base) => in_directory(&base, go).map_err(doing),
    }
}

/// Runs `go` in a thread with a working directory of its own, for names that are relative to it.
fn in_directory(base: &Path, go: impl FnOnce() -> nix::Result<()> + Send) -> nix::Result<()> {
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(base)?;
            go()
        });
        there.join().unwrap_or(Err(nix::Error::EIO))
    })
}

/// Options by what they are.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: MsFlags,
    data: Vec<String>,
}

impl Parsed {
    fn read(options: &[String]) -> Self {
        let mut parsed = Parsed { flags: MsFlags::empty(), data: Vec::new() };
        for option in options {
            match flag(option) {
                Some((flag, set)) => parsed.flags.set(flag, set),
                None => parsed.data.push(option.clone()),
            }
        }
        parsed
    }

    fn data(&self) -> String {
        self.data.join(",")
    }

    /// Makes the names of overlay's lower directories relative to what they have in common; answers that.
    fn shorten(&mut self) -> Option<PathBuf> {
        let at = self.data.iter().position(|option| option.starts_with("lowerdir="))?;
        let list = self.data.get(at)?.strip_prefix("lowerdir=")?.to_owned();
        let dirs: Vec<&Path> = list.split(':').map(Path::new).collect();
        let base = dirs.iter().skip(1).try_fold(dirs.first()?.parent()?.to_owned(), |base, dir| common(&base, dir))?;
        let short: Vec<_> =
            dirs.iter().map(|dir| dir.strip_prefix(&base).ok()?.to_str()).collect::<Option<Vec<_>>>()?;
        *self.data.get_mut(at)? = format!("lowerdir={}", short.join(":"));
        Some(base)
    }
}

fn common(a: &Path, b: &Path) -> Option<PathBuf> {
    let same: PathBuf = a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    (same.components().next() == Some(Component::RootDir)).then_some(same)
}

fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
        "defaults" => (MsFlags::empty(), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Parsed {
        Parsed::read(&options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_flags_or_the_file_system_s() {
        let all = parsed(&["ro", "nosuid", "workdir=/w", "rw", "index=off"]);
        assert_eq!((all.flags, all.data().as_str()), (MsFlags::MS_NOSUID, "workdir=/w,index=off"));
        assert_eq!(parsed(&["rbind", "ro"]).flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
    }

    #[test]
    fn many_lower_directories_are_named_from_where_they_lie() {
        let lower: Vec<String> = (0..200).map(|n| format!("/var/lib/x/snapshots/{n}/fs")).collect();
        let mut all = parsed(&["upperdir=/u", &format!("lowerdir={}", lower.join(":"))]);
        assert!(all.data().len() > MAX_DATA);
        assert_eq!(all.shorten().unwrap(), Path::new("/var/lib/x/snapshots"));
        assert!(all.data().len() < MAX_DATA && all.data().contains("lowerdir=0/fs:1/fs:"));
        assert!(parsed(&["lowerdir=a:b"]).shorten().is_none());
    }
}
