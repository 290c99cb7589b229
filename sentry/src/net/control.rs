//! Control messages (`cmsg(3)`): descriptors and credentials in flight.

use std::sync::Arc;

use abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::kernel::task::CurrentTask;
use crate::syscalls::fd::nofile;
use crate::vfs::{FdNum, FileDescription};

/// Most descriptors of one message (`SCM_MAX_FD`).
pub const SCM_MAX_FD: usize = 253;
/// Most bytes of control data taken from a guest (`net.core.optmem_max`).
const MAX_CONTROL: usize = 20480;

/// `struct ucred`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    serde::Serialize,
    serde::Deserialize,
)]
#[repr(C)]
pub struct Ucred {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Ucred {
    /// The current task's.
    #[must_use]
    pub fn of(cx: &CurrentTask<'_>) -> Self {
        let creds = cx.creds();
        Ucred { pid: cx.task.group.tgid.0, uid: creds.uid[0], gid: creds.gid[0] }
    }
}

/// Control data of one message.
#[derive(Clone, Default)]
pub struct Control {
    /// SCM_RIGHTS.
    pub rights: Vec<Arc<FileDescription>>,
    /// SCM_CREDENTIALS: who sent it.
    pub creds: Option<Ucred>,
}

impl Control {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rights.is_empty() && self.creds.is_none()
    }

    /// Parses what a guest passes to `sendmsg`.
    ///
    /// # Errors
    /// `EINVAL` for malformed or unknown messages; `EBADF`; `EPERM` for others' credentials; `ENOBUFS` for too much.
    pub fn from_guest(cx: &CurrentTask<'_>, at: UserAddr, len: usize) -> Result<Self, Errno> {
        if len > MAX_CONTROL {
            return Err(Errno::ENOBUFS);
        }
        let mut raw = vec![0u8; len];
        cx.mm()?.read_bytes(at, &mut raw)?;
        let mut control = Control::default();
        let mut rest = raw.as_slice();
        while rest.len() >= 16 {
            let (header, _) = <[u64; 2]>::read_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
            let total = usize::try_from(header[0]).map_err(|_| Errno::EINVAL)?;
            if total < 16 || total > rest.len() {
                return Err(Errno::EINVAL);
            }
            let (level, kind) = ((header[1] & 0xffff_ffff) as i32, (header[1] >> 32) as i32);
            control.parse_one(cx, level, kind, &rest[16..total])?;
            rest = rest.get(total.next_multiple_of(8)..).unwrap_or(&[]);
        }
        Ok(control)
    }

    fn parse_one(&mut self, cx: &CurrentTask<'_>, level: i32, kind: i32, data: &[u8]) -> Result<(), Errno> {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let fds = cx.fds()?;
                for raw in data.chunks_exact(4) {
                    let number = i32::from_le_bytes(raw.try_into().map_err(|_| Errno::EINVAL)?);
                    self.rights.push(fds.get(FdNum(number))?);
                }
                if self.rights.len() > SCM_MAX_FD { Err(Errno::EINVAL) } else { Ok(()) }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let given = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                let creds = cx.creds();
                const CAP_SYS_ADMIN: u32 = 21;
                let own = given.pid == cx.task.group.tgid.0
                    && creds.uid[..3].contains(&given.uid)
                    && creds.gid[..3].contains(&given.gid);
                if !own && !creds.has_cap(CAP_SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                self.creds = Some(given);
                Ok(())
            }
            (libc::SOL_SOCKET, _) => Err(Errno::EINVAL),
            // Other levels are other families' business.
            _ => Ok(()),
        }
    }

    /// Gives the control data to a guest's buffer of `len` bytes; answers bytes used and whether something was cut
    /// off. Descriptors are installed here; those that don't fit are closed.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn to_guest(
        self,
        cx: &CurrentTask<'_>,
        at: UserAddr,
        len: usize,
        cloexec: bool,
    ) -> Result<(usize, bool), Errno> {
        let mut out = Vec::new();
        let mut truncated = false;
        if let Some(creds) = self.creds {
            truncated |= !put(&mut out, len, libc::SCM_CREDENTIALS, creds.as_bytes());
        }
        if !self.rights.is_empty() {
            let room = len.saturating_sub(out.len() + 16) / 4;
            truncated |= room < self.rights.len();
            let mut numbers = Vec::new();
            for file in self.rights.into_iter().take(room) {
                match cx.fds()?.install(file, cloexec, 0, nofile(cx)) {
                    Ok(fd) => numbers.push(fd.0),
                    Err(_) => truncated = true,
                }
            }
            if !numbers.is_empty() {
                put(&mut out, len, libc::SCM_RIGHTS, numbers.as_slice().as_bytes());
            }
        }
        cx.mm()?.write_bytes(at, &out)?;
        Ok((out.len(), truncated))
    }
}

/// Appends one SOL_SOCKET message if it fits into `limit`, padded where there is room.
fn put(out: &mut Vec<u8>, limit: usize, kind: i32, data: &[u8]) -> bool {
    if out.len() + 16 + data.len() > limit {
        return false;
    }
    out.extend_from_slice(&(16 + data.len() as u64).to_le_bytes());
    out.extend_from_slice(&libc::SOL_SOCKET.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8).min(limit), 0);
    true
}
