//! Capabilities of programs: `security.capability` (`include/uapi/linux/capability.h`, `get_vfs_caps_from_disk`).

use crate::kernel::creds::ALL_CAPS;
use crate::vfs::FileDescription;
use crate::vfs::mount::MountFlags;

const NAME: &[u8] = b"security.capability";
/// VFS_CAP_REVISION_MASK and the revisions; the third names a user namespace's root, which is 0 here.
const REVISION: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;

/// What a file gives to those who execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCaps {
    /// Given, within the bounding set.
    pub permitted: u64,
    /// Given to those that have them inheritable.
    pub inheritable: u64,
    /// At once in force.
    pub effective: bool,
}

/// Whether set-id bits and capabilities of `file` mean anything where it is mounted.
#[must_use]
pub fn may_suid(file: &FileDescription) -> bool {
    !file.path.as_ref().is_some_and(|path| path.mount.flags().contains(MountFlags::NOSUID))
}

/// The capabilities of `file`, if it has valid ones.
#[must_use]
pub fn of(file: &FileDescription) -> Option<FileCaps> {
    parse(&file.inode.as_ref()?.xattrs()?.get(NAME).ok()?)
}

fn parse(value: &[u8]) -> Option<FileCaps> {
    let word = |at: usize| {
        let bytes = value.get(at * 4..at * 4 + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let magic = word(0)?;
    let words = match (magic & REVISION, value.len()) {
        (REVISION_1, 12) => 1,
        (REVISION_2, 20) => 2,
        (REVISION_3, 24) if word(5)? == 0 => 2,
        _ => return None,
    };
    let set = |first: usize| {
        let low = word(1 + first).map_or(0, u64::from);
        let high = if words == 2 { word(3 + first).map_or(0, u64::from) } else { 0 };
        (low | high << 32) & ALL_CAPS
    };
    Some(FileCaps { permitted: set(0), inheritable: set(1), effective: magic & EFFECTIVE != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_read_and_others_ignored() {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
        let ping = FileCaps { permitted: 1 << 13, inheritable: 0, effective: true };
        assert_eq!(parse(&words(&[REVISION_2 | 1, 1 << 13, 0, 0, 0])), Some(ping));
        assert_eq!(parse(&words(&[REVISION_3 | 1, 1 << 13, 0, 0, 0, 0])), Some(ping));
        assert_eq!(parse(&words(&[REVISION_3 | 1, 1 << 13, 0, 0, 0, 1000])), None);
        assert_eq!(
            parse(&words(&[REVISION_1, 1, 2])),
            Some(FileCaps { permitted: 1, inheritable: 2, effective: false })
        );
        let high = parse(&words(&[REVISION_2, 0, 0, u32::MAX, 1])).unwrap();
        assert_eq!((high.permitted, high.inheritable), (ALL_CAPS & !0xffff_ffff, 1 << 32));
        for bad in [&b""[..], b"abc", &words(&[REVISION_2, 1, 2]), &words(&[0x0900_0000, 0, 0, 0, 0])] {
            assert_eq!(parse(bad), None);
        }
    }
}
