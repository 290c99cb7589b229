//! `unix(7)` addresses: paths, abstract names, and who is bound to them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::net::unix::UnixSocket;
use crate::net::unix::gc::InFlight;
use crate::net::unix::saved::Binding;
use crate::sync::{Level, Mutex};
use crate::vfs::InodeKey;

/// Bytes of `sun_path`.
const PATH_MAX: usize = 108;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Address {
    /// No name.
    Unnamed,
    /// A path, without its NUL.
    Path(Vec<u8>),
    /// A name in the abstract namespace, without the leading NUL.
    Abstract(Vec<u8>),
}

impl Address {
    /// Parses `sockaddr_un` bytes.
    ///
    /// # Errors
    /// `EINVAL` for a wrong family or length.
    pub fn parse(raw: &[u8]) -> Result<Self, Errno> {
        let family = raw.get(..2).ok_or(Errno::EINVAL)?;
        if i32::from(u16::from_le_bytes([family[0], family[1]])) != libc::AF_UNIX || raw.len() > 2 + PATH_MAX {
            return Err(Errno::EINVAL);
        }
        let name = &raw[2..];
        Ok(match name.first() {
            None => Address::Unnamed,
            Some(0) => Address::Abstract(name[1..].to_vec()),
            Some(_) => Address::Path(name.split(|b| *b == 0).next().unwrap_or(name).to_vec()),
        })
    }

    /// `sockaddr_un` bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut raw = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
        match self {
            Address::Unnamed => {}
            Address::Path(path) => {
                raw.extend_from_slice(path);
                raw.push(0);
            }
            Address::Abstract(name) => {
                raw.push(0);
                raw.extend_from_slice(name);
            }
        }
        raw
    }
}

#[derive(Default)]
struct Bound {
    /// By network namespace and name.
    abstracts: HashMap<(u32, Vec<u8>), Weak<UnixSocket>>,
    inodes: HashMap<InodeKey, Weak<UnixSocket>>,
    next_auto: u32,
}

/// Who is bound where, in one kernel.
pub struct UnixNames {
    bound: Mutex<Bound>,
    /// Descriptors on their way.
    pub in_flight: InFlight,
}

impl Default for UnixNames {
    fn default() -> Self {
        UnixNames { bound: Mutex::new(Level::Leaf, Bound::default()), in_flight: InFlight::default() }
    }
}

impl UnixNames {
    /// Where `socket` is bound, for saved state.
    pub(super) fn bindings_of(&self, socket: &Arc<UnixSocket>) -> Vec<Binding> {
        let bound = self.bound.lock();
        let Bound { abstracts, inodes, next_auto: _ } = &*bound;
        let ours = |weak: &Weak<UnixSocket>| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(socket));
        let names = abstracts
            .iter()
            .filter(|(_, weak)| ours(weak))
            .map(|((net, name), _)| Binding::Abstract(*net, name.clone()));
        let places = inodes.iter().filter(|(_, weak)| ours(weak)).map(|(key, _)| Binding::Inode(*key));
        names.chain(places).collect()
    }

    /// Binds an abstract name of network namespace `net`.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub fn bind_abstract(&self, net: u32, name: &[u8], socket: &Arc<UnixSocket>) -> Result<(), Errno> {
        let mut bound = self.bound.lock();
        let name = (net, name.to_vec());
        if bound.abstracts.get(&name).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        bound.abstracts.insert(name, Arc::downgrade(socket));
        Ok(())
    }

    /// Binds a fresh five-digit abstract name (autobind).
    ///
    /// # Errors
    /// `ENOSPC` where all are taken.
    pub fn bind_auto(&self, net: u32, socket: &Arc<UnixSocket>) -> Result<Vec<u8>, Errno> {
        for _ in 0..1 << 20 {
            let number = {
                let mut bound = self.bound.lock();
                bound.next_auto = (bound.next_auto + 1) & 0xf_ffff;
                bound.next_auto
            };
            let name = format!("{number:05x}").into_bytes();
            if self.bind_abstract(net, &name, socket).is_ok() {
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Binds a socket inode.
    pub fn bind_inode(&self, key: InodeKey, socket: &Arc<UnixSocket>) {
        self.bound.lock().inodes.insert(key, Arc::downgrade(socket));
    }

    /// Who is bound to an abstract name.
    #[must_use]
    pub fn find_abstract(&self, net: u32, name: &[u8]) -> Option<Arc<UnixSocket>> {
        self.bound.lock().abstracts.get(&(net, name.to_vec())).and_then(Weak::upgrade)
    }

    /// Who is bound to a socket inode.
    #[must_use]
    pub fn find_inode(&self, key: InodeKey) -> Option<Arc<UnixSocket>> {
        self.bound.lock().inodes.get(&key).and_then(Weak::upgrade)
    }

    /// Forgets names whose sockets are gone.
    pub fn sweep(&self) {
        let mut bound = self.bound.lock();
        bound.abstracts.retain(|_, s| s.strong_count() > 0);
        bound.inodes.retain(|_, s| s.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for address in [Address::Unnamed, Address::Path(b"/run/x".to_vec()), Address::Abstract(b"a\0b".to_vec())] {
            assert_eq!(Address::parse(&address.to_bytes()), Ok(address));
        }
        assert_eq!(Address::parse(&[2, 0, 1]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(&[1]), Err(Errno::EINVAL));
    }
}
