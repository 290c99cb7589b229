//! The connection of a sandbox to its gofer, and the served directories in its tree.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use gofer_proto::{Client, Fault};
use nix::sys::resource::{Resource, getrlimit};

use super::{GoferFs, GoferInode, Sharing};
use crate::boot::spec::GoferTree;
use crate::kernel::Kernel;
use crate::kernel::io_pool::IoPool;
use crate::kernel::reactor::HostWatch;
use crate::kernel::wait::{Events, WaitGuard, WaitTarget};
use crate::vfs::mount::SuperBlock;
use crate::vfs::{Inode, Vfs};

/// A sandbox's connection to its gofer.
pub struct Connection {
    client: Arc<Client>,
    io: Arc<IoPool>,
    /// Host descriptors that the files of one tree may hold.
    each: usize,
    /// Keeps the reactor pumping answers.
    drive: Option<Drive>,
}

impl Connection {
    /// Says hello over `socket`. Requests wait until [`Connection::drive`].
    ///
    /// # Errors
    /// There is no gofer at its other end.
    pub fn new(kernel: &Kernel, socket: OwnedFd) -> Result<Self, Fault> {
        let client = Client::connect_fd(socket)?;
        kernel.vfs.set_remote();
        // Half of our descriptors for files, the rest for everything else.
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let each = usize::try_from(limit / 2).unwrap_or(usize::MAX) / client.mounts().len().max(1);
        Ok(Connection { client, io: kernel.io.clone(), each, drive: None })
    }

    /// The file system of one tree, which may be a single file; read-only where the gofer serves it so. `source` is
    /// what `/proc/mounts` shows.
    ///
    /// # Errors
    /// What the gofer says; `ENOENT` for a number that it has not.
    pub fn tree(&self, vfs: &Vfs, tree: GoferTree, source: &[u8]) -> Result<SuperBlock, Errno> {
        let (fs, root) = self.attach(vfs, tree)?;
        Ok(fs.super_block(source, root))
    }

    /// The root of one tree, for a file system stacked above it.
    ///
    /// # Errors
    /// As [`Connection::tree`].
    pub fn lower(&self, vfs: &Vfs, tree: GoferTree) -> Result<Arc<dyn Inode>, Errno> {
        self.attach(vfs, tree).map(|(_, root)| root as Arc<dyn Inode>)
    }

    fn attach(&self, vfs: &Vfs, tree: GoferTree) -> Result<(Arc<GoferFs>, Arc<GoferInode>), Errno> {
        let served = usize::try_from(tree.index).ok().and_then(|i| self.client.mounts().get(i)).ok_or(Errno::ENOENT)?;
        let sharing = if tree.exclusive { Sharing::Exclusive } else { Sharing::Shared };
        GoferFs::attach(vfs, (&self.client, &self.io), tree.index, (sharing, served.readonly), self.each)
    }

    /// Lets the reactor handle answers from now on: nothing may wait for one on this thread any more. Before the
    /// reactor runs, or at once where it runs already.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn drive(&mut self, kernel: &Kernel) -> std::io::Result<()> {
        let watch = kernel.reactor.watch_input(self.client.fd())?;
        let guard = watch.queue().enlist(Events::READABLE, Arc::new(Pump(self.client.clone())));
        self.client.set_driven();
        self.drive = Some(Drive { _guard: guard, _watch: watch });
        // What came before the watch has no edge any more.
        self.client.pump();
        Ok(())
    }
}

struct Pump(Arc<Client>);

impl WaitTarget for Pump {
    fn wake(&self, _: Events) {
        self.0.pump();
    }
}

struct Drive {
    _guard: WaitGuard,
    _watch: HostWatch,
}
