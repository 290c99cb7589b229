//! A snapshot in memory that nobody can change any more.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The two files of a snapshot, still to be written.
#[derive(Debug)]
pub struct Writable {
    /// Kernel objects.
    pub state: File,
    /// Guest memory.
    pub pages: File,
}

/// The same, sealed: what is mapped from it stays what it is, whoever else has the descriptors.
#[derive(Debug)]
pub struct Sealed {
    /// Kernel objects.
    pub state: OwnedFd,
    /// Guest memory.
    pub pages: OwnedFd,
}

impl Writable {
    /// Two empty memory files.
    ///
    /// # Errors
    /// What `memfd_create` says.
    pub fn new() -> io::Result<Self> {
        Ok(Writable { state: memory_file(c"nanovisor-state")?, pages: memory_file(c"nanovisor-pages")? })
    }

    /// Seals both.
    ///
    /// # Errors
    /// `EBUSY` where somebody still maps one of them for writing.
    pub fn seal(self) -> io::Result<Sealed> {
        let Writable { state, pages } = self;
        for file in [&state, &pages] {
            fcntl(file, FcntlArg::F_ADD_SEALS(seals()))?;
        }
        Ok(Sealed { state: state.into(), pages: pages.into() })
    }
}

impl Sealed {
    /// Takes over descriptors that are said to be a sealed snapshot.
    ///
    /// # Errors
    /// `InvalidData` where one is not sealed.
    pub fn check(state: OwnedFd, pages: OwnedFd) -> io::Result<Self> {
        for fd in [&state, &pages] {
            let found = SealFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS)?);
            if !found.contains(seals()) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the template's memory is not sealed"));
            }
        }
        Ok(Sealed { state, pages })
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

fn memory_file(name: &CStr) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_sealed_cannot_be_changed() {
        let writable = Writable::new().unwrap();
        (&writable.state).write_all(b"state").unwrap();
        let sealed = writable.seal().unwrap();
        let again = Sealed::check(sealed.state.try_clone().unwrap(), sealed.pages.try_clone().unwrap()).unwrap();
        assert!(File::from(again.state).write_all(b"x").is_err());
        assert!(File::from(again.pages).set_len(4096).is_err());
        let other = Writable::new().unwrap();
        assert!(Sealed::check(other.state.into(), other.pages.into()).is_err());
    }
}
