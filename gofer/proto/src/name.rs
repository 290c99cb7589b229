//! Names of directory entries and of extended attributes.

use abi::Errno;

/// Longest name (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// Checks that `name` is one component: not empty, no slash, no NUL, neither `.` nor `..`.
///
/// # Errors
/// `EINVAL`; `ENAMETOOLONG`.
pub fn check(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let bad = name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/'));
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Checks the name of an extended attribute (`XATTR_NAME_MAX` is 255).
///
/// # Errors
/// `EINVAL`; `ERANGE` as Linux says for a length of none or too much.
pub fn check_xattr(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    if name.contains(&0) { Err(Errno::EINVAL) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_pass() {
        for good in [&b"a"[..], b"...", b"..a", b" ", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../a", b"a\0", b"/etc"] {
            assert_eq!(check(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(check(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
    }
}
