//! Host resources: named in a snapshot, never saved. A restore is given them anew.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::boot::STREAMS;
use crate::checkpoint::Unusable;
use crate::fs::host::HostFile;
use crate::fs::rofs::RofsFs;
use crate::kernel::reactor::Reactor;
use crate::vfs::FileOps;

/// How an image is recognised: its length, and a digest of its superblock, which holds a digest of all metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    len: u64,
    digest: u32,
}

impl ImageIdentity {
    /// Of an open image.
    #[must_use]
    pub fn of(image: &RofsFs) -> Self {
        let (len, digest) = image.identity();
        ImageIdentity { len, digest }
    }
}

/// What a restore must be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The root image, where the root is one.
    pub image: Option<ImageIdentity>,
}

impl Resources {
    /// Checks the image that was given.
    ///
    /// # Errors
    /// It is another one.
    pub fn check(&self, image: Option<&RofsFs>) -> Result<(), Unusable> {
        // An image that nothing was made from does no harm.
        if self.image.is_none() || self.image == image.map(ImageIdentity::of) {
            return Ok(());
        }
        Err(Unusable::Resource("the image that it was made from; the one given is another, or none".to_owned()))
    }
}

/// Host descriptors by name.
pub struct Given {
    streams: HashMap<String, OwnedFd>,
    terminal: Option<HostTerminal>,
    null: OwnedFd,
}

/// A terminal of the host, and its rows and columns.
pub type HostTerminal = (OwnedFd, (u16, u16));

impl Given {
    /// The standard streams, a terminal for a program that has one, and what stands for others.
    #[must_use]
    pub fn new(streams: [Option<OwnedFd>; 3], terminal: Option<HostTerminal>, null: OwnedFd) -> Self {
        let named = STREAMS.into_iter().zip(streams).filter_map(|(name, fd)| Some((name.to_owned(), fd?)));
        Given { streams: named.collect(), terminal, null }
    }

    /// The other side of the first process's terminal.
    ///
    /// # Errors
    /// It was not given.
    pub fn terminal(&mut self) -> Result<HostTerminal, Unusable> {
        self.terminal.take().ok_or_else(|| Unusable::Resource("a terminal (--tty), for its program had one".to_owned()))
    }

    /// The operations of the stream `name`.
    ///
    /// # Errors
    /// It was not given.
    pub fn take(&mut self, name: &str, reactor: &Arc<Reactor>) -> Result<Arc<dyn FileOps>, Unusable> {
        if name == HostFile::UNNAMED {
            return Ok(HostFile::stream(reactor, self.null.try_clone()?, HostFile::UNNAMED)?.0);
        }
        let known = STREAMS.into_iter().find(|n| *n == name).ok_or(Unusable::Corrupt("a stream's name"))?;
        let fd = self.streams.remove(name).ok_or_else(|| Unusable::Resource(format!("a descriptor for {name}")))?;
        Ok(HostFile::stream(reactor, fd, known)?.0)
    }
}
