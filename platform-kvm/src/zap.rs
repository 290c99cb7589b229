//! Making a shadowing KVM drop translations to frames.
//!
//! Such a KVM keeps its own copy of each translation and does not see the host process store to guest page tables.
//! It does follow changes of the *host's* page tables (MMU notifiers), so a change there that changes nothing for
//! the host drops all translations to a frame:
//! - for a mapped file, `madvise(MADV_DONTNEED)`: its content stays in the page cache;
//! - for anonymous memory, where that would lose the content, lifting a write protection that was never there, by
//!   userfaultfd: no page changes, no mapping splits, nobody else sees it;
//! - where there is no userfaultfd, everything is dropped ([`Vm::forget_shadows`]).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use memory::{FileKind, FrameFile};
use parking_lot::RwLock;

use crate::vm::Vm;

const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
/// `UFFDIO_WRITEPROTECT`, for the seccomp filter too.
pub const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
const UFFD_API: u64 = 0xaa;
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
const REGISTER_MODE_WP: u64 = 2;

/// Drops shadow translations, frame by frame where it can.
pub struct Zapper {
    uffd: RwLock<Option<OwnedFd>>,
}

/// Past this many separate ranges, dropping everything is cheaper.
const RUNS_MAX: usize = 256;

impl Zapper {
    /// One that does not know the sandbox's memory yet.
    pub fn new() -> Self {
        Zapper { uffd: RwLock::new(None) }
    }

    /// Prepares the sandbox's own (anonymous) memory.
    ///
    /// # Errors
    /// Where the host has no userfaultfd for us; zapping then drops everything.
    pub fn attach(&self, file: &FrameFile) -> io::Result<()> {
        // SAFETY: creates a descriptor.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor; descriptors fit in an int.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) };
        ioctl(&fd, UFFDIO_API, &mut [UFFD_API, FEATURE_PAGEFAULT_FLAG_WP, 0])?;
        let (start, len) = (file.host_addr(0) as u64, file.size());
        ioctl(&fd, UFFDIO_REGISTER, &mut [start, len, REGISTER_MODE_WP, 0])?;
        *self.uffd.write() = Some(fd);
        Ok(())
    }

    /// Drops all shadow translations to the guest-physical `runs`.
    pub fn zap(&self, vm: &Arc<Vm>, runs: &[(u64, u64)]) {
        if runs.len() > RUNS_MAX {
            vm.forget_shadows();
            return;
        }
        for &(gpa, len) in runs {
            if let Err(e) = self.zap_run(vm, gpa, len) {
                log::debug!("kvm: cannot zap {len:#x} bytes at {gpa:#x}: {e}; flushing all");
                vm.forget_shadows();
                return;
            }
        }
    }

    fn zap_run(&self, vm: &Vm, gpa: u64, len: u64) -> io::Result<()> {
        let mut at = gpa;
        while at < gpa + len {
            let Some((window, offset)) = vm.frame_at(at) else { return Err(io::ErrorKind::NotFound.into()) };
            let part = (window.offset + window.len - offset).min(gpa + len - at);
            self.zap_file(&window.file, offset, part)?;
            at += part;
        }
        Ok(())
    }

    fn zap_file(&self, file: &FrameFile, offset: u64, len: u64) -> io::Result<()> {
        let start = file.host_addr(offset);
        if file.kind() == FileKind::Memory && file.fd().is_none() {
            let uffd = self.uffd.read();
            let Some(fd) = &*uffd else { return Err(io::ErrorKind::Unsupported.into()) };
            return ioctl(fd, UFFDIO_WRITEPROTECT, &mut [start as u64, len, 0]);
        }
        // SAFETY: a shared file mapping: its content lives in the page cache, only host translations go.
        match unsafe { libc::madvise(start as *mut libc::c_void, len as usize, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn ioctl<const N: usize>(fd: &OwnedFd, request: u64, words: &mut [u64; N]) -> io::Result<()> {
    // SAFETY: each request here takes a structure of exactly these words.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
