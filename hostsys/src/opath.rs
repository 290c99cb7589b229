//! Files held by O_PATH descriptors: found by one name at a time, read, changed and opened without naming them again.
//!
//! What Linux lets do through such a descriptor alone is done so (`AT_EMPTY_PATH`). For the rest there is [`Magic`]: a
//! checked descriptor of this process's `/proc/self/fd`, whose entry leads to the very file that is held.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Error, Result, check};

/// Finds `name`, one component, in `dir`: a symlink itself, never what it leads to.
///
/// # Errors
/// `EXDEV` or `ELOOP` for a name that leads elsewhere; what `openat2` says.
pub fn find(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    open_in(dir, name, OFlag::O_PATH, Mode::empty())
}

/// [`find`] where the host knows the name without asking a disk or a server.
///
/// # Errors
/// `EAGAIN` where it does not; as [`find`].
pub fn find_cached(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let how = how(OFlag::O_PATH, Mode::empty(), RESOLVE | ResolveFlag::from_bits_retain(RESOLVE_CACHED));
    openat2(dir, name, how).map_err(|e| Error::new("openat2", e))
}

/// Nothing but the name itself, in the directory itself.
const RESOLVE: ResolveFlag =
    ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS).union(ResolveFlag::RESOLVE_NO_SYMLINKS);
/// `openat2(2)`; Linux 5.12.
const RESOLVE_CACHED: u64 = 0x20;

fn how(flags: OFlag, mode: Mode, resolve: ResolveFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode).resolve(resolve)
}

/// Opens or makes `name`, one component, in `dir`; a symlink is refused.
///
/// # Errors
/// As [`find`].
pub fn open_in(dir: BorrowedFd<'_>, name: &CStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let how = how(flags, mode, RESOLVE);
    // EAGAIN: a rename elsewhere made the kernel unsure (openat2(2)); it is rare, and never lasts.
    let mut tries = 0;
    loop {
        match openat2(dir, name, how) {
            Err(Errno::EAGAIN) if tries < 16 => tries += 1,
            other => return other.map_err(|e| Error::new("openat2", e)),
        }
    }
}

/// A symlink's target, of at most `PATH_MAX` bytes.
///
/// # Errors
/// `ENOENT` where `link` is no symlink (`readlinkat(2)`, empty path).
pub fn read_link(link: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    // SAFETY: the buffer is writable for its length.
    let rc = unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    let len = check("readlinkat", rc as i64)?;
    buf.truncate(usize::try_from(len).unwrap_or(0));
    Ok(buf)
}

/// The door from a held file to an opened one.
pub struct Magic {
    dir: OwnedFd,
    /// What stands before a descriptor's number in a path.
    prefix: &'static str,
}

impl Magic {
    /// Opens `/proc/self/fd` and checks that it is procfs.
    ///
    /// # Errors
    /// What `open` says; `ENOTSUP` where something else is mounted there.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(c"/proc/self/fd", flags, Mode::empty())
            .map_err(|e| Error::new("open /proc/self/fd", e))?;
        Self::checked(dir)
    }

    /// The door in `dir`, an O_PATH descriptor of this process's `/proc/self/fd`, wherever its procfs is mounted; it
    /// becomes the working directory, so that paths need no `/proc` in the root.
    ///
    /// # Errors
    /// `ENOTSUP` where it is not procfs; what `fchdir` says.
    pub fn in_dir(dir: OwnedFd) -> Result<Self> {
        Self::checked(dir)?.enter()
    }

    fn checked(dir: OwnedFd) -> Result<Self> {
        let fs = fstatfs(&dir).map_err(|e| Error::new("fstatfs (/proc/self/fd)", e))?;
        if fs.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Error::new("fstatfs (/proc/self/fd is not procfs)", Errno::ENOTSUP));
        }
        Ok(Magic { dir, prefix: "/proc/self/fd/" })
    }

    /// Makes it this process's working directory, so that its paths need no `/proc` in the root.
    ///
    /// # Errors
    /// What `fchdir` says.
    pub fn enter(mut self) -> Result<Self> {
        nix::unistd::fchdir(&self.dir).map_err(|e| Error::new("fchdir (/proc/self/fd)", e))?;
        self.prefix = "";
        Ok(self)
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The name of `file` in [`Magic::fd`].
    #[must_use]
    pub fn name(&self, file: BorrowedFd<'_>) -> String {
        file.as_raw_fd().to_string()
    }

    /// A path that leads to `file`, for calls that take nothing else.
    #[must_use]
    pub fn path(&self, file: BorrowedFd<'_>) -> String {
        format!("{}{}", self.prefix, file.as_raw_fd())
    }

    /// Opens a held file anew. The caller has made sure of its type: opening a device or a FIFO has effects.
    ///
    /// # Errors
    /// What `open` says.
    pub fn reopen(&self, file: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        nix::fcntl::openat(&self.dir, self.name(file).as_str(), flags, Mode::empty())
            .map_err(|e| Error::new("openat (reopen)", e))
    }

    fn c_path(&self, file: BorrowedFd<'_>) -> CString {
        CString::new(self.path(file)).unwrap_or_default()
    }

    /// The value of an extended attribute, of at most `max` bytes.
    ///
    /// # Errors
    /// `ERANGE` for a longer one; what `getxattr` says.
    pub fn xattr(&self, file: BorrowedFd<'_>, name: &CStr, max: usize) -> Result<Vec<u8>> {
        let (path, mut buf) = (self.c_path(file), vec![0u8; max]);
        // SAFETY: strings end in NUL; the buffer is writable for its length.
        let rc = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        let len = check("getxattr", rc as i64)?;
        buf.truncate(usize::try_from(len).unwrap_or(0));
        Ok(buf)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// What `setxattr` says.
    pub fn set_xattr(&self, file: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> Result<()> {
        let path = self.c_path(file);
        // SAFETY: strings end in NUL; the value is readable for its length.
        let rc = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
        check("setxattr", i64::from(rc)).map(|_| ())
    }

    /// The names of all extended attributes, of at most `max` bytes in all.
    ///
    /// # Errors
    /// What `listxattr` says.
    pub fn xattrs(&self, file: BorrowedFd<'_>, max: usize) -> Result<Vec<Vec<u8>>> {
        let (path, mut buf) = (self.c_path(file), vec![0u8; max]);
        // SAFETY: the path ends in NUL; the buffer is writable for its length.
        let rc = unsafe { libc::listxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        let len = usize::try_from(check("listxattr", rc as i64)?).unwrap_or(0);
        let names = buf.get(..len).unwrap_or_default().split(|b| *b == 0);
        Ok(names.filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// What `removexattr` says.
    pub fn remove_xattr(&self, file: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let path = self.c_path(file);
        // SAFETY: strings end in NUL.
        check("removexattr", i64::from(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })).map(|_| ())
    }
}

/// A Unix socket of type `kind` (SOCK_*), close-on-exec.
///
/// # Errors
/// What `socket` says.
pub fn unix_socket(kind: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative answer is a fresh descriptor.
    unsafe {
        let fd = check("socket", i64::from(libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0)))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}
