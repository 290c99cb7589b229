//! Walks a whole image and reports what is wrong with it.

use std::collections::{HashMap, HashSet};

use crate::format::BLOCK_SIZE;
use crate::{Error, ExtentKind, FileType, Inode, Reader};

/// Something wrong in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file concerned, from the root; empty for the image as a whole.
    pub path: Vec<u8>,
    /// Node id of the file concerned; 0 for the image as a whole.
    pub nid: u64,
    /// What is wrong.
    pub what: String,
}

/// No more problems than this are collected: an image that is not one at all would fill memory with them.
const MAX_PROBLEMS: usize = 1000;

/// Walks everything that can be reached from the root; returns what is wrong, nothing for a sound image.
///
/// Time and memory are bounded by the image's size: structures that overlap, so that the same bytes would be walked
/// again and again, end the walk with a problem.
pub fn verify(reader: &Reader<'_>) -> Vec<Problem> {
    let budget = reader.len().saturating_add(BLOCK_SIZE);
    let mut walk = Walk { reader, problems: Vec::new(), links: HashMap::new(), dirs: HashSet::new(), budget };
    if let Err(error) = reader.verify_checksum() {
        walk.problem(&Spot { path: Vec::new(), nid: 0 }, error.to_string());
    }
    match reader.root() {
        Ok(root) => walk.run(root),
        Err(error) => walk.problem(&Spot { path: b"/".to_vec(), nid: 0 }, error.to_string()),
    }
    walk.problems
}

/// A place in the tree.
struct Spot {
    path: Vec<u8>,
    nid: u64,
}

/// A directory still to walk.
struct Pending {
    dir: Inode,
    parent: u64,
    path: Vec<u8>,
}

/// Links seen of a file that is no directory.
struct Links {
    seen: u32,
    promised: u32,
    path: Vec<u8>,
}

struct Walk<'r, 'a> {
    reader: &'r Reader<'a>,
    problems: Vec<Problem>,
    links: HashMap<u64, Links>,
    /// Directories found so far.
    dirs: HashSet<u64>,
    /// Bytes of directories, chunk tables and xattrs that may still be walked: in a sound image none is shared.
    budget: u64,
}

impl Walk<'_, '_> {
    fn problem(&mut self, spot: &Spot, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: spot.path.clone(), nid: spot.nid, what: what.into() });
        }
    }

    /// Takes `bytes` from the budget; `None` when it is used up.
    fn spend(&mut self, spot: &Spot, bytes: u64) -> Option<()> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Some(())
            }
            None => {
                self.budget = 0;
                self.problem(spot, "structures overlap: the walk ends here");
                None
            }
        }
    }

    fn run(&mut self, root: Inode) {
        self.dirs.insert(root.nid);
        let spot = Spot { path: b"/".to_vec(), nid: root.nid };
        let mut pending = vec![Pending { dir: root, parent: root.nid, path: Vec::new() }];
        if self.attributes(&root, &spot).is_none() {
            return;
        }
        while let Some(next) = pending.pop() {
            if self.problems.len() >= MAX_PROBLEMS || self.directory(&next, &mut pending).is_none() {
                return;
            }
        }
        self.check_links();
    }

    fn check_links(&mut self) {
        let links = std::mem::take(&mut self.links);
        let mut wrong: Vec<_> = links.into_iter().filter(|(_, links)| links.seen != links.promised).collect();
        wrong.sort_unstable_by(|a, b| a.1.path.cmp(&b.1.path));
        for (nid, Links { seen, promised, path }) in wrong {
            self.problem(&Spot { path, nid }, format!("link count {promised}, but {seen} names lead here"));
        }
    }

    /// Walks one directory; `None` ends the whole walk.
    fn directory(&mut self, this: &Pending, pending: &mut Vec<Pending>) -> Option<()> {
        let spot = Spot { path: [&this.path[..], b"/"].concat(), nid: this.dir.nid };
        self.spend(&spot, this.dir.size)?;
        let entries = match self.reader.read_dir(&this.dir, 0) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(&spot, error.to_string());
                return Some(());
            }
        };
        let (mut dots, mut subdirs, mut last): (u8, u32, &[u8]) = (0, 0, b"");
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.problem(&spot, error.to_string());
                    break;
                }
            };
            if entry.name <= last {
                self.problem(&spot, format!("entry {} is out of order", entry.name.escape_ascii()));
            }
            last = entry.name;
            let own = match entry.name {
                b"." => Some(this.dir.nid),
                b".." => Some(this.parent),
                _ => None,
            };
            if let Some(expected) = own {
                dots += 1;
                if entry.nid != expected || entry.file_type != FileType::Directory {
                    self.problem(&spot, format!("{} leads astray", entry.name.escape_ascii()));
                }
                continue;
            }
            let path = [&this.path[..], b"/", entry.name].concat();
            if let Some(child) = self.child(&this.dir, entry, path)? {
                subdirs = subdirs.saturating_add(1);
                pending.push(child);
            }
        }
        if dots != 2 {
            self.problem(&spot, "lacks . or ..");
        }
        if this.dir.nlink != subdirs.saturating_add(2) {
            self.problem(&spot, format!("link count {}, expected {}", this.dir.nlink, subdirs.saturating_add(2)));
        }
        Some(())
    }

    /// Checks what an entry leads to; a directory is returned. The outer `None` ends the whole walk.
    fn child(&mut self, dir: &Inode, entry: crate::DirEntry<'_>, path: Vec<u8>) -> Option<Option<Pending>> {
        let spot = Spot { path, nid: entry.nid };
        let inode = match self.reader.inode(entry.nid) {
            Ok(inode) => inode,
            Err(error) => {
                self.problem(&spot, error.to_string());
                return Some(None);
            }
        };
        if inode.file_type != entry.file_type {
            self.problem(&spot, format!("is a {:?}, its directory says {:?}", inode.file_type, entry.file_type));
        }
        if inode.file_type == FileType::Directory {
            if !self.dirs.insert(entry.nid) {
                self.problem(&spot, "a second name for a directory");
                return Some(None);
            }
            self.attributes(&inode, &spot)?;
            return Some(Some(Pending { dir: inode, parent: dir.nid, path: spot.path }));
        }
        if let Some(links) = self.links.get_mut(&entry.nid) {
            links.seen = links.seen.saturating_add(1);
            return Some(None);
        }
        self.attributes(&inode, &spot)?;
        self.links.insert(entry.nid, Links { seen: 1, promised: inode.nlink, path: spot.path });
        Some(None)
    }

    /// Checks xattrs and data of an inode; `None` ends the whole walk.
    fn attributes(&mut self, inode: &Inode, spot: &Spot) -> Option<()> {
        self.spend(spot, inode.xattrs.1)?;
        match self.reader.xattrs(inode) {
            Ok(xattrs) => {
                if let Some(error) = xattrs.filter_map(Result::err).next() {
                    self.problem(spot, error.to_string());
                }
            }
            Err(error) => self.problem(spot, error.to_string()),
        }
        match inode.file_type {
            FileType::Symlink => {
                if let Err(error) = self.reader.readlink(inode) {
                    self.problem(spot, error.to_string());
                }
            }
            FileType::Regular => {
                self.spend(spot, inode.table_size())?;
                if let Err(error) = self.data(inode) {
                    self.problem(spot, error.to_string());
                }
            }
            _ => {}
        }
        Some(())
    }

    fn data(&self, inode: &Inode) -> Result<(), Error> {
        for extent in self.reader.extents(inode, 0..inode.size) {
            let extent = extent?;
            if extent.kind != ExtentKind::Hole {
                self.reader.extent_bytes(&extent)?;
            }
        }
        Ok(())
    }
}
