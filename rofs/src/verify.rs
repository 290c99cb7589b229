//! Walks a whole image and reports what is wrong with it.

use std::collections::{HashMap, HashSet};

use crate::format::BLOCK_SIZE;
use crate::{DirEntry, Error, ExtentKind, FileType, Inode, Reader};

/// Something wrong in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file concerned, from the root; empty for the image as a whole. Only the end of a very long one.
    pub path: Vec<u8>,
    /// Node id of the file concerned; 0 for the image as a whole.
    pub nid: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{} (inode {}): {}", self.path.escape_ascii(), self.nid, self.what)
    }
}

/// No more problems than this are collected: an image that is not one at all would fill memory with them.
const MAX_PROBLEMS: usize = 1000;
/// Longest path in a report; directories of a hostile image nest without bound.
const MAX_PATH: usize = 4096;

/// Walks everything that can be reached from the root; returns what is wrong, nothing for a sound image.
///
/// Time and memory are bounded by the image's size: structures that overlap, so that the same bytes would be walked
/// again and again, end the walk with a problem.
pub fn verify(reader: &Reader<'_>) -> Vec<Problem> {
    let budget = reader.len().saturating_add(BLOCK_SIZE);
    let problems = Vec::new();
    let mut walk = Walk { reader, problems, names: Vec::new(), links: HashMap::new(), dirs: HashSet::new(), budget };
    if let Err(error) = reader.verify_checksum() {
        walk.problems.push(Problem { path: Vec::new(), nid: 0, what: error.to_string() });
    }
    match reader.root() {
        Ok(root) => walk.run(root),
        Err(error) => walk.problems.push(Problem { path: b"/".to_vec(), nid: 0, what: error.to_string() }),
    }
    walk.problems
}

/// A file on the walk: the directory that named it (an index into `names`), its name, its node id.
#[derive(Debug, Clone, Copy)]
struct Spot<'a> {
    parent: usize,
    name: &'a [u8],
    nid: u64,
}

/// Links seen of a file that is no directory.
struct Links<'a> {
    seen: u32,
    promised: u32,
    first: Spot<'a>,
}

struct Walk<'r, 'a> {
    reader: &'r Reader<'a>,
    problems: Vec<Problem>,
    /// The directories walked; the first is the root, its own parent. Names are slices of the image.
    names: Vec<Spot<'a>>,
    links: HashMap<u64, Links<'a>>,
    /// Directories found so far.
    dirs: HashSet<u64>,
    /// Bytes of directories, chunk tables and xattrs that may still be walked: in a sound image none is shared.
    budget: u64,
}

impl<'a> Walk<'_, 'a> {
    fn problem(&mut self, spot: &Spot<'a>, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let path = self.path(spot);
            self.problems.push(Problem { path, nid: spot.nid, what: what.into() });
        }
    }

    fn path(&self, spot: &Spot<'a>) -> Vec<u8> {
        let (mut parts, mut len, mut spot) = (Vec::new(), 0, Some(spot));
        while let Some(here) = spot.filter(|here| !here.name.is_empty() && len < MAX_PATH) {
            parts.push(here.name);
            len += here.name.len() + 1;
            spot = self.names.get(here.parent);
        }
        parts.push(if len < MAX_PATH { b"" } else { b"..." });
        parts.reverse();
        if parts.len() == 1 { b"/".to_vec() } else { parts.join(&b'/') }
    }

    /// Takes `bytes` from the budget; `None` when it is used up.
    fn spend(&mut self, spot: &Spot<'a>, bytes: u64) -> Option<()> {
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
        let spot = Spot { parent: 0, name: b"", nid: root.nid };
        self.dirs.insert(root.nid);
        self.names.push(spot);
        if self.attributes(&root, &spot).is_none() {
            return;
        }
        let mut pending = vec![0];
        while let Some(next) = pending.pop() {
            if self.problems.len() >= MAX_PROBLEMS || self.directory(next, &mut pending).is_none() {
                return;
            }
        }
        self.check_links();
    }

    fn check_links(&mut self) {
        let links = std::mem::take(&mut self.links);
        let mut wrong: Vec<_> = links.into_values().filter(|links| links.seen != links.promised).collect();
        wrong.sort_unstable_by_key(|links| links.first.nid);
        for Links { seen, promised, first } in wrong {
            self.problem(&first, format!("link count {promised}, but {seen} names lead here"));
        }
    }

    /// Walks the directory `index` of `names`; `None` ends the whole walk.
    fn directory(&mut self, index: usize, pending: &mut Vec<usize>) -> Option<()> {
        let spot = *self.names.get(index)?;
        let parent = self.names.get(spot.parent)?.nid;
        let found = self.reader.inode(spot.nid).and_then(|dir| Ok((dir, self.reader.read_dir(&dir, 0)?)));
        let (dir, entries) = match found {
            Ok(found) => found,
            Err(error) => {
                self.problem(&spot, error.to_string());
                return Some(());
            }
        };
        self.spend(&spot, dir.size)?;
        let (mut dots, mut subdirs, mut last): (u32, u32, &[u8]) = (0, 0, b"");
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
                b"." => Some(spot.nid),
                b".." => Some(parent),
                _ => None,
            };
            if let Some(expected) = own {
                dots = dots.saturating_add(1);
                if entry.nid != expected || entry.file_type != FileType::Directory {
                    self.problem(&spot, format!("{} leads astray", entry.name.escape_ascii()));
                }
            } else if self.child(index, entry)? {
                subdirs = subdirs.saturating_add(1);
                pending.push(self.names.len() - 1);
            }
        }
        if dots != 2 {
            self.problem(&spot, "lacks . or ..");
        }
        if dir.nlink != subdirs.saturating_add(2) {
            self.problem(&spot, format!("link count {}, expected {}", dir.nlink, subdirs.saturating_add(2)));
        }
        Some(())
    }

    /// Checks what an entry leads to; true when it is a directory, entered as the last of `names`. `None` ends the walk.
    fn child(&mut self, parent: usize, entry: DirEntry<'a>) -> Option<bool> {
        let spot = Spot { parent, name: entry.name, nid: entry.nid };
        let inode = match self.reader.inode(entry.nid) {
            Ok(inode) => inode,
            Err(error) => {
                self.problem(&spot, error.to_string());
                return Some(false);
            }
        };
        if inode.file_type != entry.file_type {
            self.problem(&spot, format!("is a {:?}, its directory says {:?}", inode.file_type, entry.file_type));
        }
        if inode.file_type == FileType::Directory {
            if !self.dirs.insert(entry.nid) {
                self.problem(&spot, "a second name for a directory");
                return Some(false);
            }
            self.attributes(&inode, &spot)?;
            self.names.push(spot);
            return Some(true);
        }
        if let Some(links) = self.links.get_mut(&entry.nid) {
            links.seen = links.seen.saturating_add(1);
            return Some(false);
        }
        self.attributes(&inode, &spot)?;
        self.links.insert(entry.nid, Links { seen: 1, promised: inode.nlink, first: spot });
        Some(false)
    }

    /// Checks xattrs and data of an inode; `None` ends the whole walk.
    fn attributes(&mut self, inode: &Inode, spot: &Spot<'a>) -> Option<()> {
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
