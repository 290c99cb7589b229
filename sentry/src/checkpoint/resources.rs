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
    /// The root image.
    pub image: ImageIdentity,
}

impl Resources {
    /// Checks the image that was given.
    ///
    /// # Errors
    /// It is another one.
    pub fn check(&self, image: &RofsFs) -> Result<(), Unusable> {
        if self.image == ImageIdentity::of(image) {
            return Ok(());
        }
        Err(Unusable::Resource("the image that it was made from; the one given is another".to_owned()))
    }
}

/// Host descriptors by name.
pub struct Given {
    named: HashMap<String, OwnedFd>,
    null: OwnedFd,
}

impl Given {
    /// The standard streams, and what stands for others.
    #[must_use]
    pub fn streams(streams: [OwnedFd; 3], null: OwnedFd) -> Self {
        Given { named: STREAMS.into_iter().map(str::to_owned).zip(streams).collect(), null }
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
        let fd = self.named.remove(name).ok_or_else(|| Unusable::Resource(format!("a descriptor for {name}")))?;
        Ok(HostFile::stream(reactor, fd, known)?.0)
    }
}
