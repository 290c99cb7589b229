//! Extended attributes: which are shared, and the bytes of both kinds.

use std::collections::HashMap;

use zerocopy::IntoBytes;

use super::tree::{NodeId, Tree};
use crate::format::{XATTR_HEADER_SIZE, XATTR_PREFIXES, XattrEntry, XattrHeader};

/// Values from this size are stored in the shared area even if nobody shares them: an inode's own area is limited to
/// 256 KiB and belongs near its neighbours.
const LARGE: usize = 2048;

/// An attribute as an image stores it. The order of the fields is the order of the attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnedXattr {
    index: u8,
    suffix: Vec<u8>,
    value: Vec<u8>,
}

impl OwnedXattr {
    /// `Err` says why this attribute cannot be stored.
    pub(super) fn new(name: &[u8], value: Vec<u8>) -> Result<Self, &'static str> {
        let split = XATTR_PREFIXES.iter().find_map(|(index, prefix)| {
            let suffix = name.strip_prefix(prefix.as_bytes())?;
            // The two ACLs are whole names, the others need something behind the dot.
            (suffix.is_empty() != prefix.ends_with('.')).then(|| (*index, suffix.to_vec()))
        });
        let (index, suffix) = split.ok_or("its namespace has no place in the format")?;
        if suffix.len() > 255 || value.len() > usize::from(u16::MAX) {
            return Err("its name or value is too long");
        }
        Ok(Self { index, suffix, value })
    }

    fn size(&self) -> usize {
        (size_of::<XattrEntry>() + self.suffix.len() + self.value.len()).next_multiple_of(4)
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        // new() has checked both lengths.
        let name_len = u8::try_from(self.suffix.len()).unwrap_or(u8::MAX);
        let value_size = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
        let entry = XattrEntry { name_len, name_index: self.index, value_size: value_size.into() };
        bytes.extend_from_slice(entry.as_bytes());
        bytes.extend_from_slice(&self.suffix);
        bytes.extend_from_slice(&self.value);
        bytes.resize(start + self.size(), 0);
    }
}

/// The shared attributes of an image.
#[derive(Debug, Default)]
pub(super) struct Shared<'t> {
    /// Id of each: its offset in the area, in units of 4 bytes.
    ids: HashMap<&'t OwnedXattr, u32>,
    /// The area.
    pub(super) bytes: Vec<u8>,
}

impl<'t> Shared<'t> {
    /// Collects the attributes that two inodes have, or that are large, in the order of `nodes`.
    pub(super) fn collect(tree: &'t Tree, nodes: &[NodeId]) -> Self {
        let all = || nodes.iter().flat_map(|&id| &tree.get(id).xattrs);
        let mut uses: HashMap<&OwnedXattr, u32> = HashMap::new();
        for xattr in all() {
            *uses.entry(xattr).or_default() += 1;
        }
        let mut shared = Self::default();
        for xattr in all() {
            let wanted = xattr.value.len() >= LARGE || uses.get(xattr).is_some_and(|&count| count > 1);
            if wanted
                && !shared.ids.contains_key(xattr)
                && let Ok(id) = u32::try_from(shared.bytes.len() / 4)
            {
                shared.ids.insert(xattr, id);
                xattr.append_to(&mut shared.bytes);
            }
        }
        shared
    }

    /// The xattr area of an inode with `xattrs`; empty when it has none. `None` when they do not fit.
    pub(super) fn body(&self, xattrs: &[OwnedXattr]) -> Option<Vec<u8>> {
        if xattrs.is_empty() {
            return Some(Vec::new());
        }
        let mut ids = Vec::new();
        let mut inline = Vec::new();
        for xattr in xattrs {
            match self.ids.get(xattr) {
                Some(id) if ids.len() < 4 * usize::from(u8::MAX) => ids.extend_from_slice(&id.to_le_bytes()),
                _ => xattr.append_to(&mut inline),
            }
        }
        let shared_count = u8::try_from(ids.len() / 4).ok()?;
        let header = XattrHeader { shared_count, ..XattrHeader::default() };
        let body = [header.as_bytes(), &ids, &inline].concat();
        icount(body.len() as u64).map(|_| body)
    }
}

/// The `xattr_icount` of an xattr area of `size` bytes; `None` when it is too large.
pub(super) fn icount(size: u64) -> Option<u16> {
    match size.checked_sub(XATTR_HEADER_SIZE) {
        None => Some(0),
        Some(rest) => u16::try_from(rest / 4 + 1).ok(),
    }
}
