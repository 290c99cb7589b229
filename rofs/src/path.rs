//! Walking a path inside an image: for command lines and tests. The sentry walks with its own VFS.

use crate::{Error, FileType, Inode, Reader, Result};

/// What to do with a symbolic link at the end of a path; links on the way are always followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Return the link, like `lstat`.
    No,
    /// Return what it points to, like `stat`.
    Yes,
}

/// Like Linux's `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;
/// Components still to walk: a bound on what nested links can pile up.
const MAX_PENDING: usize = 64 * 1024;

impl Reader<'_> {
    /// Resolves `path` from the root; the image's root is the root of absolute links and of `..`.
    pub fn walk(&self, path: &[u8], follow: Follow) -> Result<Inode> {
        let root = self.root()?;
        let mut parents: Vec<Inode> = Vec::new();
        let mut current = root;
        let mut links = 0;
        let mut pending: Vec<&[u8]> = components(path).rev().collect();
        while let Some(name) = pending.pop() {
            if current.file_type != FileType::Directory {
                return Err(Error::NotADirectory(current.nid));
            }
            match name {
                b"." => continue,
                b".." => {
                    current = parents.pop().unwrap_or(root);
                    continue;
                }
                _ => {}
            }
            let entry = self.lookup(&current, name)?.ok_or(Error::NotFound)?;
            let inode = self.inode(entry.nid)?;
            if inode.file_type == FileType::Symlink && (!pending.is_empty() || follow == Follow::Yes) {
                links += 1;
                let target = self.readlink(&inode)?;
                if links > MAX_LINKS || pending.len() > MAX_PENDING {
                    return Err(Error::TooManyLinks);
                }
                if target.starts_with(b"/") {
                    parents.clear();
                    current = root;
                }
                pending.extend(components(target).rev());
            } else {
                parents.push(current);
                current = inode;
            }
        }
        Ok(current)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}
