//! Options that every socket has (`SOL_SOCKET`; `sk_setsockopt` and `sk_getsockopt` in `net/core/sock.c`).

use abi::{Errno, time::Timeval};
use zerocopy::{FromBytes, IntoBytes};

/// `net.core.wmem_default` and `rmem_default`, which are also the most that a program may ask for (`*_max`).
pub const BUFFER: i32 = 212_992;
/// `SOCK_MIN_SNDBUF`: two packets of 2 KiB with what the kernel keeps about them.
const LEAST_SEND: i32 = 4608;
/// `SOCK_MIN_RCVBUF`.
const LEAST_RECEIVE: i32 = 2304;
/// `CAP_NET_ADMIN`.
const CAP_NET_ADMIN: u32 = 12;
/// `CAP_NET_RAW`.
const CAP_NET_RAW: u32 = 13;

/// What programs have set on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SocketOptions {
    /// SO_RCVTIMEO, nanoseconds; `None` waits forever.
    pub receive_timeout: Option<i64>,
    /// SO_SNDTIMEO.
    pub send_timeout: Option<i64>,
    /// SO_SNDBUF, bytes, as getsockopt tells it: twice what was asked.
    pub send_buffer: i32,
    /// SO_RCVBUF, likewise.
    pub receive_buffer: i32,
    /// SO_RCVLOWAT, bytes.
    pub receive_low: i32,
    /// SO_PRIORITY.
    pub priority: i32,
    /// SO_LINGER: whether, and for how many seconds.
    pub linger: (bool, i32),
    #[serde(with = "switches")]
    switches: Switches,
}

/// [`Switches`] as saved state: a number.
mod switches {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Switches;

    pub fn serialize<Z: Serializer>(switches: &Switches, to: Z) -> Result<Z::Ok, Z::Error> {
        switches.bits().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Switches, D::Error> {
        u8::deserialize(from).map(Switches::from_bits_truncate)
    }
}

bitflags::bitflags! {
    /// The options that are on or off.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    struct Switches: u8 {
        const REUSE_ADDR = 1;
        const KEEP_ALIVE = 2;
        const BROADCAST = 4;
        const OOB_INLINE = 8;
        const DONT_ROUTE = 16;
        const REUSE_PORT = 32;
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            receive_timeout: None,
            send_timeout: None,
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
            receive_low: 1,
            priority: 0,
            linger: (false, 0),
            switches: Switches::default(),
        }
    }
}

fn switch(name: i32) -> Option<Switches> {
    Some(match name {
        libc::SO_REUSEADDR => Switches::REUSE_ADDR,
        libc::SO_KEEPALIVE => Switches::KEEP_ALIVE,
        libc::SO_BROADCAST => Switches::BROADCAST,
        libc::SO_OOBINLINE => Switches::OOB_INLINE,
        libc::SO_DONTROUTE => Switches::DONT_ROUTE,
        libc::SO_REUSEPORT => Switches::REUSE_PORT,
        _ => return None,
    })
}

/// Twice `asked`, for what the kernel keeps about each packet, but `least` at least. A negative size is huge.
fn buffer(asked: i32, most: i32, least: i32) -> i32 {
    let asked = if asked < 0 { most } else { asked.min(most) };
    asked.saturating_mul(2).max(least)
}

fn parse_timeout(raw: &[u8]) -> Result<Option<i64>, Errno> {
    let (tv, _) = Timeval::read_from_prefix(raw).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&tv.usec) {
        return Err(Errno::EDOM);
    }
    let nanos = tv.sec.max(0).saturating_mul(1_000_000_000).saturating_add(tv.usec * 1000);
    Ok((nanos > 0).then_some(nanos))
}

fn timeout(nanos: Option<i64>) -> Vec<u8> {
    let nanos = nanos.unwrap_or(0);
    Timeval { sec: nanos / 1_000_000_000, usec: nanos % 1_000_000_000 / 1000 }.as_bytes().to_vec()
}

fn word(raw: &[u8], at: usize) -> Result<i32, Errno> {
    let bytes = raw.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
    Ok(i32::from_le_bytes(bytes))
}

impl SocketOptions {
    /// The value of option `name`, where it is one of these.
    #[must_use]
    pub fn get(&self, name: i32) -> Option<Vec<u8>> {
        let int = |v: i32| Some(v.to_le_bytes().to_vec());
        if let Some(switch) = switch(name) {
            return int(i32::from(self.switches.contains(switch)));
        }
        match name {
            libc::SO_SNDBUF => int(self.send_buffer),
            libc::SO_RCVBUF => int(self.receive_buffer),
            libc::SO_RCVLOWAT => int(self.receive_low),
            libc::SO_SNDLOWAT => int(1),
            libc::SO_PRIORITY => int(self.priority),
            libc::SO_LINGER => Some([i32::from(self.linger.0), self.linger.1].as_bytes().to_vec()),
            libc::SO_RCVTIMEO => Some(timeout(self.receive_timeout)),
            libc::SO_SNDTIMEO => Some(timeout(self.send_timeout)),
            _ => None,
        }
    }

    /// Sets option `name` of a socket of `domain` to `raw`. `has_cap` says whether the caller has a capability.
    ///
    /// # Errors
    /// `EINVAL` for a short value; `EDOM`; `EPERM`; `EOPNOTSUPP`; `ENOPROTOOPT`.
    pub fn set(&mut self, domain: i32, name: i32, raw: &[u8], has_cap: impl Fn(u32) -> bool) -> Result<(), Errno> {
        let value = word(raw, 0)?;
        if let Some(switch) = switch(name) {
            let inet = domain == libc::AF_INET || domain == libc::AF_INET6;
            if name == libc::SO_REUSEPORT && value != 0 && !inet {
                return Err(Errno::EOPNOTSUPP);
            }
            self.switches.set(switch, value != 0);
            return Ok(());
        }
        let forced = |value: i32| if has_cap(CAP_NET_ADMIN) { Ok(value.max(0)) } else { Err(Errno::EPERM) };
        match name {
            libc::SO_SNDBUF => self.send_buffer = buffer(value, BUFFER, LEAST_SEND),
            libc::SO_RCVBUF => self.receive_buffer = buffer(value, BUFFER, LEAST_RECEIVE),
            libc::SO_SNDBUFFORCE => self.send_buffer = buffer(forced(value)?, i32::MAX / 2, LEAST_SEND),
            libc::SO_RCVBUFFORCE => self.receive_buffer = buffer(forced(value)?, i32::MAX / 2, LEAST_RECEIVE),
            libc::SO_RCVLOWAT => self.receive_low = if value < 0 { i32::MAX } else { value.max(1) },
            libc::SO_PRIORITY => {
                if !(0..=6).contains(&value) && !has_cap(CAP_NET_ADMIN) && !has_cap(CAP_NET_RAW) {
                    return Err(Errno::EPERM);
                }
                self.priority = value;
            }
            libc::SO_LINGER => {
                let seconds = word(raw, 4)?;
                // Switched off, it keeps the time.
                self.linger = if value == 0 { (false, self.linger.1) } else { (true, seconds) };
            }
            libc::SO_RCVTIMEO => self.receive_timeout = parse_timeout(raw)?,
            libc::SO_SNDTIMEO => self.send_timeout = parse_timeout(raw)?,
            // The rest cannot be set, or is not known.
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(options: &mut SocketOptions, name: i32, value: i32) -> Result<(), Errno> {
        options.set(libc::AF_UNIX, name, &value.to_le_bytes(), |_| false)
    }

    #[test]
    fn buffers_double_between_their_least_and_their_most() {
        let mut o = SocketOptions::default();
        for (asked, send, receive) in
            [(0, 4608, 2304), (10_000, 20_000, 20_000), (1 << 30, 2 * BUFFER, 2 * BUFFER), (-1, 2 * BUFFER, 2 * BUFFER)]
        {
            assert_eq!(set(&mut o, libc::SO_SNDBUF, asked), Ok(()));
            assert_eq!(set(&mut o, libc::SO_RCVBUF, asked), Ok(()));
            assert_eq!((o.send_buffer, o.receive_buffer), (send, receive), "asked {asked}");
        }
        assert_eq!(set(&mut o, libc::SO_SNDBUFFORCE, 1), Err(Errno::EPERM));
        let forced = o.set(libc::AF_UNIX, libc::SO_SNDBUFFORCE, &(1_i32 << 20).to_le_bytes(), |_| true);
        assert_eq!((forced, o.send_buffer), (Ok(()), 2 << 20));
    }

    #[test]
    fn what_is_set_is_kept() {
        let mut o = SocketOptions::default();
        assert_eq!(set(&mut o, libc::SO_REUSEADDR, 5), Ok(()));
        assert_eq!(o.get(libc::SO_REUSEADDR), Some(vec![1, 0, 0, 0]));
        assert_eq!(set(&mut o, libc::SO_LINGER, 1), Err(Errno::EINVAL));
        assert_eq!(set(&mut o, libc::SO_PRIORITY, 7), Err(Errno::EPERM));
        assert_eq!(set(&mut o, libc::SO_SNDLOWAT, 7), Err(Errno::ENOPROTOOPT));
        assert_eq!(o.set(libc::AF_UNIX, libc::SO_KEEPALIVE, &[1], |_| false), Err(Errno::EINVAL));
    }
}
