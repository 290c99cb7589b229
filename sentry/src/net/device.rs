//! Device requests that any socket takes (`netdevice(7)`): there is the loopback device alone.

use abi::{Errno, UserAddr};

use crate::kernel::op::{SyscallResult, ok};
use crate::kernel::task::CurrentTask;

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
/// Bytes of `struct ifreq`, of which the first 16 are the name.
const IFREQ: usize = 40;
const NAME: usize = 16;

/// Serves the `SIOCGIF*` requests.
///
/// # Errors
/// `ENODEV` for any device but `lo`; `ENOTTY` for other requests; `EFAULT`.
pub fn ioctl(cx: &mut CurrentTask<'_>, cmd: u32, arg: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    if cmd == SIOCGIFCONF {
        return configuration(cx, arg);
    }
    if ![SIOCGIFNAME, SIOCGIFFLAGS, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFTXQLEN]
        .contains(&cmd)
    {
        return Err(Errno::ENOTTY);
    }
    let mut request: [u8; IFREQ] = mm.read_obj(arg)?;
    if cmd == SIOCGIFNAME {
        let index = i32::from_le_bytes([request[16], request[17], request[18], request[19]]);
        if index != 1 {
            return Err(Errno::ENODEV);
        }
        request[..NAME].fill(0);
        request[..2].copy_from_slice(b"lo");
    } else if request[..NAME].split(|b| *b == 0).next() == Some(b"lo") {
        let (at, end) = (NAME, NAME + 4);
        match cmd {
            SIOCGIFFLAGS => request[at..at + 2].copy_from_slice(&0x49u16.to_le_bytes()),
            SIOCGIFMTU => request[at..end].copy_from_slice(&65_536u32.to_le_bytes()),
            SIOCGIFHWADDR => {
                request[at..].fill(0);
                request[at..at + 2].copy_from_slice(&772u16.to_le_bytes());
            }
            SIOCGIFTXQLEN => request[at..end].copy_from_slice(&1000u32.to_le_bytes()),
            SIOCGIFMETRIC => request[at..end].fill(0),
            _ => request[at..end].copy_from_slice(&1u32.to_le_bytes()),
        }
    } else {
        return Err(Errno::ENODEV);
    }
    mm.write_obj(arg, &request)?;
    ok()
}

/// SIOCGIFCONF: `struct ifconf` with the devices that have an IPv4 address.
fn configuration(cx: &mut CurrentTask<'_>, arg: UserAddr) -> SyscallResult {
    let mm = cx.mm()?;
    let mut conf: [u8; 16] = mm.read_obj(arg)?;
    let room = i32::from_le_bytes([conf[0], conf[1], conf[2], conf[3]]);
    let buffer = u64::from_le_bytes([conf[8], conf[9], conf[10], conf[11], conf[12], conf[13], conf[14], conf[15]]);
    let mut len = IFREQ as i32;
    if buffer != 0 {
        if room < len {
            len = 0;
        } else {
            let mut entry = [0u8; IFREQ];
            entry[..2].copy_from_slice(b"lo");
            entry[16..18].copy_from_slice(&(libc::AF_INET as u16).to_le_bytes());
            entry[20..24].copy_from_slice(&[127, 0, 0, 1]);
            mm.write_bytes(UserAddr(buffer), &entry)?;
        }
    }
    conf[..4].copy_from_slice(&len.to_le_bytes());
    mm.write_obj(arg, &conf)?;
    ok()
}
