//! Builds from a tar stream, with the meaning that extracting it as root into an empty directory would have: later
//! entries replace earlier ones, missing parents appear, links on the way to a file are followed inside the tree.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{BuildError, Result};
use super::tar_stream::{Entry, TarStream};
use super::tree::{Body, Meta, Node, NodeId, ROOT, implicit_dir};
use super::xattrs::OwnedXattr;
use super::{Builder, ProgressFn, Summary};
use crate::FileType;
use crate::format::{NAME_MAX, SYMLINK_MAX};
use crate::inode::encode_dev;

/// Symbolic links followed on the way to one file, like Linux.
const MAX_LINKS: u32 = 40;

/// Builds an image at `out` from the uncompressed tar archive `tar`; `name` stands for it in messages.
pub fn from_tar<'p>(tar: &mut dyn Read, name: &Path, out: &Path, progress: &'p mut ProgressFn<'p>) -> Result<Summary> {
    let mut builder = Builder::new(out, progress)?;
    let mut stream = TarStream::new(tar);
    while let Some(entry) = stream.next().map_err(|error| BuildError::read(name, error))? {
        let path = Path::new(OsStr::from_bytes(&entry.path)).to_owned();
        builder.files += 1;
        builder.report(&path)?;
        builder.add_entry(&entry, &mut stream, &path)?;
    }
    builder.finish()
}

impl Builder<'_> {
    fn add_entry(&mut self, entry: &Entry, stream: &mut TarStream<'_>, path: &Path) -> Result<()> {
        let target = self.locate(&entry.path, path)?;
        let node = Node {
            meta: Meta { perm: entry.perm, uid: entry.uid, gid: entry.gid, mtime: entry.mtime },
            xattrs: xattrs(entry, path),
            body: match entry.kind {
                b'0' => Body::File(self.store(path, entry.size, &mut stream.data(entry))?),
                b'1' => return self.add_link(entry, target, path),
                b'2' => Body::Symlink(link_target(entry, path)?),
                b'3' => special(FileType::CharDevice, entry, path)?,
                b'4' => special(FileType::BlockDevice, entry, path)?,
                b'5' => Body::Dir(Default::default()),
                b'6' => Body::Special(FileType::Fifo, 0),
                kind => {
                    let kind = char::from(kind).escape_default();
                    return Err(BuildError::invalid(path, format!("tar entry of the unknown type '{kind}'")));
                }
            },
        };
        let existing = self.existing(target);
        let is_dir = matches!(node.body, Body::Dir(_));
        if is_dir && let Some(id) = existing.filter(|&id| self.tree.entries(id).is_some()) {
            // A directory that is there already keeps its entries.
            let old = self.tree.get_mut(id);
            (old.meta, old.xattrs) = (node.meta, node.xattrs);
            return Ok(());
        }
        self.may_replace(existing, path)?;
        let Some((dir, name)) = target else {
            return Err(BuildError::invalid(path, "the root must be a directory"));
        };
        let id = self.tree.push(node);
        self.tree.link(dir, name, id);
        Ok(())
    }

    fn add_link(&mut self, entry: &Entry, target: Option<(NodeId, &[u8])>, path: &Path) -> Result<()> {
        let to = Path::new(OsStr::from_bytes(&entry.link));
        let source = self.locate(&entry.link, path)?;
        let source = self.existing(source).filter(|&id| self.tree.entries(id).is_none());
        let (Some(source), Some((dir, name))) = (source, target) else {
            let what = format!("hard link to {}, which is not an earlier file of the archive", to.display());
            return Err(BuildError::invalid(path, what));
        };
        let existing = self.existing(target);
        self.may_replace(existing, path)?;
        self.tree.link(dir, name, source);
        Ok(())
    }

    /// The node that a place holds; the root's place is `None`.
    fn existing(&self, place: Option<(NodeId, &[u8])>) -> Option<NodeId> {
        match place {
            None => Some(ROOT),
            Some((dir, name)) => self.tree.entries(dir)?.get(name).copied(),
        }
    }

    fn may_replace(&self, existing: Option<NodeId>, path: &Path) -> Result<()> {
        let entries = existing.and_then(|id| self.tree.entries(id));
        if entries.is_some_and(|entries| !entries.is_empty()) {
            return Err(BuildError::invalid(path, "replaces a directory that is not empty"));
        }
        Ok(())
    }

    /// The directory and name that `raw` means; `None` for the root itself. Creates missing directories.
    fn locate<'e>(&mut self, raw: &'e [u8], path: &Path) -> Result<Option<(NodeId, &'e [u8])>> {
        let mut names: Vec<&[u8]> = components(raw).collect();
        if names.contains(&&b".."[..]) {
            return Err(BuildError::invalid(path, "a path with .. in an archive"));
        }
        if names.iter().any(|name| name.len() > NAME_MAX || name.contains(&0)) {
            return Err(BuildError::invalid(path, "a name longer than 255 bytes, or with a NUL"));
        }
        let Some(last) = names.pop() else { return Ok(None) };
        let dir = self.directory(names.into_iter().map(<[u8]>::to_vec).collect(), path)?;
        Ok(Some((dir, last)))
    }

    /// Walks to the directory `names`.
    fn directory(&mut self, mut names: Vec<Vec<u8>>, path: &Path) -> Result<NodeId> {
        names.reverse();
        let (mut trail, mut links) = (vec![ROOT], 0);
        while let Some(name) = names.pop() {
            let here = trail.last().copied().unwrap_or(ROOT);
            if name == b".." {
                trail.pop();
                continue;
            }
            let Some(child) = self.existing(Some((here, &name))) else {
                let node = Node { meta: implicit_dir(), xattrs: Vec::new(), body: Body::Dir(Default::default()) };
                let child = self.tree.push(node);
                self.tree.link(here, &name, child);
                trail.push(child);
                continue;
            };
            match &self.tree.get(child).body {
                Body::Dir(_) => trail.push(child),
                Body::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(BuildError::invalid(path, "too many symbolic links on the way"));
                    }
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    names.extend(components(target).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().rev());
                }
                _ => return Err(BuildError::invalid(path, "lies below something that is not a directory")),
            }
        }
        Ok(trail.last().copied().unwrap_or(ROOT))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

fn link_target(entry: &Entry, path: &Path) -> Result<Box<[u8]>> {
    let len = entry.link.len() as u64;
    if len == 0 || len > SYMLINK_MAX || entry.link.contains(&0) {
        return Err(BuildError::invalid(path, "symbolic link that is empty, longer than 4095 bytes, or with a NUL"));
    }
    Ok(entry.link.as_slice().into())
}

fn special(file_type: FileType, entry: &Entry, path: &Path) -> Result<Body> {
    let rdev = encode_dev(entry.device.0, entry.device.1);
    let rdev = rdev.ok_or_else(|| BuildError::invalid(path, "device number too large for the format"))?;
    Ok(Body::Special(file_type, rdev))
}

fn xattrs(entry: &Entry, path: &Path) -> Vec<OwnedXattr> {
    let mut xattrs = Vec::new();
    for (name, value) in &entry.xattrs {
        match OwnedXattr::new(name, value.clone()) {
            Ok(xattr) => xattrs.push(xattr),
            Err(why) => {
                log::warn!("{}: extended attribute {} left out: {why}", path.display(), name.escape_ascii());
            }
        }
    }
    xattrs.sort_unstable();
    xattrs
}
