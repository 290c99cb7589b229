//! Descriptors: which are open, closing the rest, opening without leaving a directory, opening anew.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::{Error, Result, check};

/// Closes every descriptor from `first` on.
///
/// # Errors
/// What `close_range` says.
pub fn close_from(first: RawFd) -> Result<()> {
    close_between(first, RawFd::MAX)
}

/// Closes the descriptors from `first` to `last`, both included.
fn close_between(first: RawFd, last: RawFd) -> Result<()> {
    let invalid = |_| Error::new("close_range", Errno::EINVAL);
    let first = libc::c_uint::try_from(first).map_err(invalid)?;
    let last = libc::c_uint::try_from(last).map_err(invalid)?;
    // SAFETY: the caller gives these descriptors up; owners among them are never used again (it execs or exits next).
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    check("close_range", rc).map(|_| ())
}

/// Closes every descriptor from 3 on but `kept`: for a forked child that never goes back to those who hold the others.
///
/// # Errors
/// What `close_range` says.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let mut first: RawFd = 3;
    for number in numbers.into_iter().filter(|number| *number >= 3) {
        if number > first {
            close_between(first, number - 1)?;
        }
        first = number.saturating_add(1);
    }
    close_from(first)
}

/// Takes over descriptor number `fd`, which was left open for this process by the one before it (across an exec).
///
/// # Errors
/// `EBADF` where it is not open.
pub fn inherited(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: only looked at; closed numbers answer EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|e| Error::new("fcntl (inherited descriptor)", e))?;
    // SAFETY: open, and by the contract of the exec nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves `fd` to number `to`, which stays open across an exec. Whatever was open there is closed.
///
/// # Errors
/// What `dup2` or `fcntl` say.
pub fn place(fd: BorrowedFd<'_>, to: RawFd) -> Result<()> {
    if fd.as_raw_fd() == to {
        let keep = FcntlArg::F_SETFD(FdFlag::empty());
        return fcntl(fd, keep).map(|_| ()).map_err(|e| Error::new("fcntl(F_SETFD)", e));
    }
    // SAFETY: replaces a descriptor number; the caller owns the layout between fork and exec.
    check("dup2", i64::from(unsafe { libc::dup2(fd.as_raw_fd(), to) })).map(|_| ())
}

/// A copy of `fd` with a number of at least `least`, close-on-exec.
///
/// # Errors
/// `EMFILE` out of numbers.
pub fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd> {
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least)).map_err(|e| Error::new("fcntl(F_DUPFD)", e))?;
    // SAFETY: a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// The open descriptors in `from..to`: one poll asks for all, since it marks closed numbers POLLNVAL.
///
/// # Errors
/// `EINVAL` where the range is larger than RLIMIT_NOFILE.
pub fn open_in(from: RawFd, to: RawFd) -> Result<Vec<RawFd>> {
    let mut set: Vec<libc::pollfd> = (from..to).map(|fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
    // SAFETY: `set` is a valid array of that length.
    let rc = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, 0) };
    check("poll (descriptor check)", i64::from(rc))?;
    Ok(set.iter().filter(|p| p.revents & libc::POLLNVAL == 0).map(|p| p.fd).collect())
}

/// Opens `path` below `dir`: neither `..`, nor an absolute or magic link, nor a mount leads out (`openat2(2)`).
///
/// # Errors
/// `EXDEV` for a path that leads out; what `openat2` says.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    openat2(dir, path, how).map_err(|e| Error::new("openat2", e))
}

/// A descriptor for the same pipe or terminal with an open file description of its own, which does not block.
///
/// O_NONBLOCK belongs to the description, which we share with whoever started us: setting it there breaks them. Files
/// and sockets are returned as copies (a file never blocks and its offset must stay shared; a socket has MSG_DONTWAIT).
///
/// # Errors
/// What `fstat` or `dup` say. A pipe that cannot be opened again is copied instead.
pub fn without_blocking(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let copy = || dup_above(fd, 3);
    let stat = fstat(fd).map_err(|e| Error::new("fstat (standard stream)", e))?;
    let fresh = is(&stat, SFlag::S_IFIFO) || (is(&stat, SFlag::S_IFCHR) && nix::unistd::isatty(fd) == Ok(true));
    if !fresh {
        return copy();
    }
    let mode = fcntl(fd, FcntlArg::F_GETFL).map_err(|e| Error::new("fcntl(F_GETFL)", e))?;
    let flags = OFlag::from_bits_truncate(mode) & OFlag::O_ACCMODE;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let extra = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path.as_str(), flags | extra, Mode::empty()).or_else(|_| copy())
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// A copy of one of the three standard streams, or /dev/null where the caller left it closed.
///
/// # Errors
/// What `dup` or opening /dev/null say.
pub fn standard_stream(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: only looked at; a closed number answers EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match dup_above(fd.as_fd(), 3) {
        Err(e) if e.errno() == libc::EBADF => dev_null(),
        other => other,
    }
}

/// A copy of descriptor `number`, which whoever started us left open for us.
///
/// # Errors
/// `EBADF` where it is not open.
pub fn copy_of(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: only looked at; a closed number answers EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number.max(0)) };
    dup_above(fd.as_fd(), 3)
}

/// /dev/null, for reading and writing.
///
/// # Errors
/// What `open` says.
pub fn dev_null() -> Result<OwnedFd> {
    nix::fcntl::open(c"/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::new("open /dev/null", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_found() {
        let null = dev_null().unwrap();
        let number = null.as_raw_fd();
        assert!(open_in(number, number + 1).unwrap().contains(&number));
        drop(null);
        let high = dup_above(dev_null().unwrap().as_fd(), 600).unwrap();
        assert_eq!(open_in(600, 700).unwrap(), vec![high.as_raw_fd()]);
    }

    #[test]
    fn a_path_beneath_cannot_escape() {
        let dir = nix::fcntl::open(c"/usr", OFlag::O_PATH, Mode::empty()).unwrap();
        let err = open_beneath(dir.as_fd(), c"../etc/passwd", OFlag::O_RDONLY).unwrap_err();
        assert_eq!(err.errno(), libc::EXDEV);
        open_beneath(dir.as_fd(), c"bin", OFlag::O_PATH).unwrap();
    }

    #[test]
    fn a_pipe_is_opened_anew_without_blocking() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        let fresh = without_blocking(read.as_fd()).unwrap();
        let flags = |fd: &OwnedFd| OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(flags(&fresh).contains(OFlag::O_NONBLOCK));
        assert!(!flags(&read).contains(OFlag::O_NONBLOCK));
        assert_eq!(nix::unistd::read(&fresh, &mut [0u8; 1]), Err(Errno::EAGAIN));
    }
}
