//! Directories: lookup by binary search in the mapped blocks, listing from a stable cookie.
//!
//! A block holds entries of 12 bytes, then their names; all names of a directory are sorted as bytes, `.` and `..`
//! among them. The first name's offset gives the number of entries.

use std::cmp::Ordering;

use zerocopy::FromBytes;

use crate::format::{BLOCK_SIZE, DIRENT_SIZE, Dirent, NAME_MAX};
use crate::inode::{FileType, Inode, blocks};
use crate::{Error, Reader, Result};

/// A directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Its name: 1 to 255 bytes without `/` and NUL; `.` and `..` are listed too.
    pub name: &'a [u8],
    /// Node id, for [`Reader::inode`].
    pub nid: u64,
    /// The type, as the directory records it.
    pub file_type: FileType,
    /// Cookie of the next entry: continue with `read_dir(dir, next)`. Stable for the life of the image.
    pub next: u64,
}

/// Iterator over a directory; stops behind the first error.
#[derive(Debug, Clone)]
pub struct ReadDir<'a> {
    reader: Reader<'a>,
    dir: Inode,
    pos: u64,
    block: Option<(u64, DirBlock<'a>)>,
}

impl<'a> Reader<'a> {
    /// Looks `name` up in `dir`; `None` when it is not there.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<DirEntry<'a>>> {
        check_dir(dir)?;
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        // The last block whose first name is not above `name`.
        let (mut low, mut high) = (0, blocks(dir.size));
        while high - low > 1 {
            let mid = low + (high - low) / 2;
            let first = self.dir_block(dir, mid)?.entry(0)?;
            if first.name <= name { low = mid } else { high = mid }
        }
        if high == 0 { Ok(None) } else { self.dir_block(dir, low)?.find(name) }
    }

    /// Lists `dir` from `cookie`: 0, or the `next` of an entry. Any other cookie is taken to the next entry.
    pub fn read_dir(&self, dir: &Inode, cookie: u64) -> Result<ReadDir<'a>> {
        check_dir(dir)?;
        Ok(ReadDir { reader: *self, dir: *dir, pos: cookie, block: None })
    }

    fn dir_block(&self, dir: &Inode, index: u64) -> Result<DirBlock<'a>> {
        DirBlock::parse(self.block(dir, index)?, dir.nid, index * BLOCK_SIZE)
    }
}

impl<'a> ReadDir<'a> {
    fn step(&mut self) -> Result<Option<DirEntry<'a>>> {
        while self.pos < self.dir.size {
            let index = self.pos / BLOCK_SIZE;
            let block = match self.block {
                Some((cached, block)) if cached == index => block,
                _ => self.reader.dir_block(&self.dir, index)?,
            };
            self.block = Some((index, block));
            // Below 4096 / 12.
            let slot = ((self.pos % BLOCK_SIZE) as usize).div_ceil(DIRENT_SIZE);
            if slot < block.count {
                let entry = block.entry(slot)?;
                self.pos = entry.next;
                return Ok(Some(entry));
            }
            self.pos = (index + 1) * BLOCK_SIZE;
        }
        Ok(None)
    }
}

impl<'a> Iterator for ReadDir<'a> {
    type Item = Result<DirEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.pos = u64::MAX;
        }
        step.transpose()
    }
}

/// One block of a directory.
#[derive(Debug, Clone, Copy)]
struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
    nid: u64,
    /// Byte offset of this block in the directory.
    start: u64,
}

impl<'a> DirBlock<'a> {
    fn parse(bytes: &'a [u8], nid: u64, start: u64) -> Result<Self> {
        let block = Self { bytes, count: 1, nid, start };
        let names = usize::from(block.dirent(0)?.nameoff.get());
        if names < DIRENT_SIZE || names > bytes.len() || names % DIRENT_SIZE != 0 {
            return Err(block.corrupt("directory block with an impossible first name offset"));
        }
        Ok(Self { count: names / DIRENT_SIZE, ..block })
    }

    fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { nid: self.nid, what }
    }

    fn dirent(&self, index: usize) -> Result<Dirent> {
        let bytes = self.bytes.get(index * DIRENT_SIZE..).unwrap_or_default();
        let (dirent, _) =
            Dirent::read_from_prefix(bytes).map_err(|_| self.corrupt("directory block shorter than its entries"))?;
        Ok(dirent)
    }

    /// Entry `index`, below `count`.
    fn entry(&self, index: usize) -> Result<DirEntry<'a>> {
        let dirent = self.dirent(index)?;
        let name = self.name(index, &dirent)?;
        let file_type = FileType::from_dirent(dirent.file_type)
            .ok_or_else(|| self.corrupt("directory entry of an unknown type"))?;
        let after = if index + 1 < self.count { (index + 1) * DIRENT_SIZE } else { BLOCK_SIZE as usize };
        Ok(DirEntry { name, nid: dirent.nid.get(), file_type, next: self.start + after as u64 })
    }

    fn name(&self, index: usize, dirent: &Dirent) -> Result<&'a [u8]> {
        let start = usize::from(dirent.nameoff.get());
        let last = index + 1 >= self.count;
        let end = if last { self.bytes.len() } else { usize::from(self.dirent(index + 1)?.nameoff.get()) };
        let names_start = self.count * DIRENT_SIZE;
        let name = self.bytes.get(start..end).filter(|_| start >= names_start);
        let name = name.ok_or_else(|| self.corrupt("directory entry with a bad name offset"))?;
        // Only the last name of a block may be followed by padding.
        let len = if last { name.iter().position(|&byte| byte == 0).unwrap_or(name.len()) } else { name.len() };
        let name = name.get(..len).unwrap_or_default();
        if name.is_empty() || name.len() > NAME_MAX || name.iter().any(|&byte| byte == 0 || byte == b'/') {
            return Err(self.corrupt("directory entry with a bad name"));
        }
        Ok(name)
    }

    fn find(&self, name: &[u8]) -> Result<Option<DirEntry<'a>>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let mid = low + (high - low) / 2;
            let entry = self.entry(mid)?;
            match entry.name.cmp(name) {
                Ordering::Equal => return Ok(Some(entry)),
                Ordering::Less => low = mid + 1,
                Ordering::Greater => high = mid,
            }
        }
        Ok(None)
    }
}

fn check_dir(dir: &Inode) -> Result<()> {
    if dir.file_type == FileType::Directory { Ok(()) } else { Err(Error::NotADirectory(dir.nid)) }
}
