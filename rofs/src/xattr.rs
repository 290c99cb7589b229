//! Extended attributes: inline behind the inode, or shared by many inodes.

use zerocopy::little_endian::U32;

use crate::format::{BLOCK_SIZE, XATTR_HEADER_SIZE, XATTR_PREFIXES, XattrEntry, XattrHeader};
use crate::{Error, Inode, Reader, Result};

/// An extended attribute. Its full name is `prefix` followed by `suffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xattr<'a> {
    /// The namespace, like `user.`; the whole name of a POSIX ACL.
    pub prefix: &'static str,
    /// The rest of the name.
    pub suffix: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl Xattr<'_> {
    /// Length of the full name, without allocating it.
    pub fn name_len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// The full name.
    pub fn name(&self) -> Vec<u8> {
        [self.prefix.as_bytes(), self.suffix].concat()
    }

    /// Whether this is the attribute `name`.
    pub fn is_named(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix.as_bytes()) == Some(self.suffix)
    }
}

/// Iterator over an inode's attributes: inline ones first, then shared; stops behind the first error.
#[derive(Debug, Clone)]
pub struct Xattrs<'a> {
    reader: Reader<'a>,
    nid: u64,
    /// Inline entries left: position and end in the image.
    inline: (u64, u64),
    /// Shared ids left: position of the next and count.
    shared: (u64, u8),
}

impl<'a> Reader<'a> {
    /// The extended attributes of `inode`. Entries of namespaces that Linux does not serve are left out.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs<'a>> {
        let (start, len) = inode.xattrs;
        if len == 0 {
            return Ok(Xattrs { reader: *self, nid: inode.nid, inline: (0, 0), shared: (0, 0) });
        }
        let header: XattrHeader = self.structure(start, "extended attributes of an inode")?;
        let ids = start + XATTR_HEADER_SIZE;
        let entries = ids + 4 * u64::from(header.shared_count);
        if entries > start + len {
            return Err(Error::Corrupt { nid: inode.nid, what: "more shared xattrs than there is room for" });
        }
        let inline = (entries, start + len);
        Ok(Xattrs { reader: *self, nid: inode.nid, inline, shared: (ids, header.shared_count) })
    }

    /// The value of the attribute with the full name `name`; `None` when there is none (`ENODATA`).
    pub fn xattr(&self, inode: &Inode, name: &[u8]) -> Result<Option<&'a [u8]>> {
        for xattr in self.xattrs(inode)? {
            let xattr = xattr?;
            if xattr.is_named(name) {
                return Ok(Some(xattr.value));
            }
        }
        Ok(None)
    }

    /// The entry at `pos` and the position behind it; the attribute is `None` in a namespace we do not serve.
    fn xattr_entry(&self, pos: u64) -> Result<(Option<Xattr<'a>>, u64)> {
        const WHAT: &str = "extended attribute";
        let entry: XattrEntry = self.structure(pos, WHAT)?;
        let (name_len, value_len) = (u64::from(entry.name_len), u64::from(entry.value_size.get()));
        let name_at = pos + size_of::<XattrEntry>() as u64;
        let suffix = self.range(name_at, name_len, WHAT)?;
        let value = self.range(name_at + name_len, value_len, WHAT)?;
        let end = (name_at + name_len + value_len).next_multiple_of(4);
        let prefix = XATTR_PREFIXES.iter().find(|(index, _)| *index == entry.name_index);
        Ok((prefix.map(|(_, prefix)| Xattr { prefix, suffix, value }), end))
    }
}

impl<'a> Xattrs<'a> {
    fn step(&mut self) -> Result<Option<Xattr<'a>>> {
        while self.inline.0 < self.inline.1 {
            let (xattr, end) = self.reader.xattr_entry(self.inline.0)?;
            if end > self.inline.1 {
                return Err(Error::Corrupt { nid: self.nid, what: "xattr crosses the end of its area" });
            }
            self.inline.0 = end;
            if xattr.is_some() {
                return Ok(xattr);
            }
        }
        while self.shared.1 > 0 {
            let id = self.reader.structure::<U32>(self.shared.0, "shared xattr id")?.get();
            self.shared = (self.shared.0 + 4, self.shared.1 - 1);
            let base = u64::from(self.reader.superblock().xattr_block) * BLOCK_SIZE;
            let (xattr, _) = self.reader.xattr_entry(base + 4 * u64::from(id))?;
            if xattr.is_some() {
                return Ok(xattr);
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = Result<Xattr<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            (self.inline, self.shared) = ((0, 0), (0, 0));
        }
        step.transpose()
    }
}
