//! Images of directories, kept: `--root DIR` images a directory once per content.
//!
//! An image is named by the directory's identity and by a stamp of what is in it (names, sizes, times, owners, inode
//! numbers), so that a changed directory gets a new image and its old one goes. Builders of one directory take turns by
//! a lock; the image appears complete or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::build;
use crate::failure::{Failure, Result, Status};

/// Changes when the builder makes other images of the same content.
const VERSION: &[u8] = b"nanovisor image 1";

/// The image of directory `root`, made now if the cache has none of its present content.
///
/// # Errors
/// No directory; the cache cannot be written; what the builder says.
pub fn image_of(root: &Path) -> Result<(PathBuf, File)> {
    let top = root_metadata(root)?;
    let dir = directory()?;
    let id = hex(&Sha256::digest([top.dev().to_le_bytes(), top.ino().to_le_bytes()].concat()), 8);
    let stamp =
        stamp(root, &top).map_err(|e| Failure::io(Status::ImageBuild, &format!("--root {}", root.display()), &e))?;
    let name = format!("{id}-{stamp}.erofs");
    let path = dir.join(&name);
    if let Ok(file) = super::open(&path) {
        return Ok((path, file));
    }
    let _turn = lock(&dir.join(format!("{id}.lock")))?;
    // Another builder may have had its turn before us. What is there and broken is made anew.
    if super::open(&path).is_err() {
        log::debug!("imaging {} as {}", root.display(), path.display());
        build::from_dir(root, &path)?;
        drop_older(&dir, &format!("{id}-"), &name);
    }
    super::open(&path).map(|file| (path, file))
}

fn root_metadata(root: &Path) -> Result<Metadata> {
    let refuse = |why: String| Failure::new(Status::ImageMissing, format!("--root {}: {why}", root.display()));
    let meta = fs::metadata(root).map_err(|e| refuse(e.to_string()))?;
    if meta.is_dir() { Ok(meta) } else { Err(refuse("not a directory; --image is for image files".into())) }
}

/// `${XDG_CACHE_HOME:-~/.cache}`: where this user's caches lie, if anywhere.
pub fn base() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
}

/// `base()/nanovisor/images`, made if need be, for this user's eyes alone.
fn directory() -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(base) = base() else {
        return Err(Failure::runtime("no place for the image cache: set HOME or XDG_CACHE_HOME, or use --image"));
    };
    let dir = base.join("nanovisor/images");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| {
        let e = io::Error::new(e.kind(), format!("{e}; set XDG_CACHE_HOME, or use --image"));
        let status = if e.kind() == io::ErrorKind::StorageFull { Status::DiskFull } else { Status::Runtime };
        Failure::io(status, &format!("image cache {}", dir.display()), &e)
    })?;
    Ok(dir)
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let doing = |e: io::Error| Failure::io(Status::Runtime, &format!("image cache {}", path.display()), &e);
    let file = File::options().create(true).write(true).truncate(false).open(path).map_err(doing)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| doing(e.into()))
}

/// Removes the images of the directory's earlier contents. Sandboxes that run from one keep it by their descriptor.
fn drop_older(dir: &Path, prefix: &str, keep: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.as_bytes().starts_with(prefix.as_bytes()) && name.as_bytes().ends_with(b".erofs");
        if ours && name != OsStr::new(keep) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A digest of what a directory holds, as far as a change shows in it. Contents are not read.
fn stamp(root: &Path, top: &Metadata) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    add(&mut hash, b"/", top);
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
        let mut names: Vec<_> = fs::read_dir(&dir).map_err(named)?.collect::<io::Result<_>>().map_err(named)?;
        names.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in names {
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(named)?,
            };
            add(&mut hash, entry.file_name().as_bytes(), &meta);
            // The builder leaves other file systems out.
            if meta.is_dir() && meta.dev() == top.dev() {
                pending.push(entry.path());
            }
        }
        hash.update([0xff]);
    }
    Ok(hex(&hash.finalize(), 16))
}

fn add(hash: &mut Sha256, name: &[u8], meta: &Metadata) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    let unsigned =
        [meta.ino(), u64::from(meta.mode()), u64::from(meta.uid()), u64::from(meta.gid()), meta.size(), meta.rdev()];
    let signed = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    unsigned.into_iter().for_each(|value| hash.update(value.to_le_bytes()));
    signed.into_iter().for_each(|value| hash.update(value.to_le_bytes()));
}

fn hex(digest: &[u8], bytes: usize) -> String {
    digest.iter().take(bytes).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_sees_changes() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = || super::stamp(dir.path(), &fs::metadata(dir.path()).unwrap()).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "one").unwrap();
        let first = stamp();
        assert_eq!(first, stamp());
        fs::write(dir.path().join("sub/file"), "longer").unwrap();
        let second = stamp();
        assert_ne!(first, second);
        fs::rename(dir.path().join("sub/file"), dir.path().join("sub/other")).unwrap();
        assert_ne!(second, stamp());
    }

    #[test]
    fn older_images_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a-1.erofs", "a-2.erofs", "b-1.erofs", "a.lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        drop_older(dir.path(), "a-", "a-2.erofs");
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a-2.erofs", "a.lock", "b-1.erofs"]);
    }
}
