//! Frame files in the descriptor table that all stubs share.
//!
//! The table belongs to the stubs alone: sharing the sandbox process's own would be simpler, but then a stub that
//! broke out of SYSEMU could map or close any of its descriptors. A file that appears after boot (donated by a gofer)
//! travels by SCM_RIGHTS to the master stub, once for all stubs.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use memory::{FileId, FrameFile};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use parking_lot::Mutex;

use crate::layout::{FD_FIRST_FILE, FD_SOCKET};
use crate::master::{Master, Seized};

/// Which descriptor of the stubs' table is which file.
#[derive(Default)]
pub struct Files {
    known: Mutex<HashMap<FileId, Entry>>,
}

struct Entry {
    fd: i32,
    file: Weak<FrameFile>,
}

// What the scratch page holds during recvmsg: msghdr, iovec, control buffer, data.
const IOV: u64 = 64;
const DATA: u64 = 96;
const CONTROL: u64 = 128;
const CONTROL_LEN: u64 = 24;

impl Files {
    /// The stubs' descriptor of `file`.
    ///
    /// # Errors
    /// `InvalidInput` for a file without a descriptor; what the host says.
    pub fn descriptor(&self, master: &Master, file: &Arc<FrameFile>) -> io::Result<i32> {
        let mut known = self.known.lock();
        if let Some(entry) = known.get(&file.id()) {
            return Ok(entry.fd);
        }
        let fd = master.with(|stub| {
            let gone: Vec<FileId> =
                known.iter().filter(|(_, e)| e.file.strong_count() == 0).map(|(&id, _)| id).collect();
            for id in gone {
                if let Some(entry) = known.remove(&id) {
                    stub.call(libc::SYS_close, [entry.fd as u64, 0, 0, 0, 0, 0])?;
                }
            }
            send(master, stub, file)
        })?;
        known.insert(file.id(), Entry { fd, file: Arc::downgrade(file) });
        Ok(fd)
    }
}

fn send(master: &Master, stub: &Seized<'_>, file: &FrameFile) -> io::Result<i32> {
    let fd = file.fd().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "memory without a descriptor"))?;
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(master.socket().as_raw_fd(), &[IoSlice::new(b"f")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let base = master.layout().scratch();
    let page = base as *mut u64;
    let put = |offset: u64, value: u64| {
        // SAFETY: the scratch page is shared memory of ours for as long as the master lives; the master's lock is held.
        unsafe { page.add(offset as usize / 8).write_volatile(value) }
    };
    let header = [0, 0, base + IOV, 1, base + CONTROL, CONTROL_LEN, 0];
    header.iter().zip(0..).for_each(|(&word, i)| put(8 * i, word));
    put(IOV, base + DATA);
    put(IOV + 8, 1);
    put(CONTROL, 0);
    let flags = libc::MSG_DONTWAIT as u64;
    stub.call(libc::SYS_recvmsg, [FD_SOCKET as u64, base, flags, 0, 0, 0])?;
    let get = |offset: u64| {
        // SAFETY: as above.
        unsafe { page.add(offset as usize / 8).read_volatile() }
    };
    let (len, kind, fd) = (get(CONTROL), get(CONTROL + 8), get(CONTROL + 16) as u32 as i32);
    let rights = libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32;
    if len != 20 || kind != rights || fd < FD_FIRST_FILE {
        return Err(io::Error::other("a stub could not take a descriptor (limit on open files?)"));
    }
    Ok(fd)
}
