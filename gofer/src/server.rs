//! The loop: one message in, one message out.

use std::os::fd::{AsFd, OwnedFd};

use abi::Errno;
use gofer_proto::{Answer, MAX_CLOSE, Reply, Request, VERSION, codec, message::MountInfo};
use hostsys::SeqPacket;
use hostsys::opath::Magic;

use crate::error::{Result, sys};
use crate::nodes::{Node, Nodes};

/// A directory (or a single file) that is served.
pub struct Served {
    /// O_PATH.
    pub root: OwnedFd,
    /// Nothing may be changed through it.
    pub readonly: bool,
}

/// What the gofer does beyond files.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connect to the host's Unix sockets.
    pub uds_connect: bool,
    /// Make Unix sockets.
    pub uds_bind: bool,
    /// What is made keeps this process's user and group where they cannot be changed (without CAP_CHOWN).
    pub squash_owner: bool,
    /// Most files that are held at once.
    pub max_nodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { uds_connect: false, uds_bind: false, squash_owner: false, max_nodes: 100_000 }
    }
}

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed its end.
    Closed,
    /// The client sent what is no request: it is broken or hostile.
    BadClient,
}

/// A reply on its way, with the descriptor that goes with it.
pub struct Outcome {
    pub reply: Reply,
    pub fd: Option<OwnedFd>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Outcome { reply, fd: None }
    }
}

pub struct Server {
    pub served: Vec<Served>,
    pub options: Options,
    pub magic: Magic,
    pub nodes: Nodes,
    greeted: bool,
}

/// Serves until the client is gone.
///
/// # Errors
/// The socket fails.
pub fn serve(socket: &SeqPacket, served: Vec<Served>, options: Options, magic: Magic) -> hostsys::Result<End> {
    let nodes = Nodes::new(options.max_nodes);
    let mut server = Server { served, options, magic, nodes, greeted: false };
    loop {
        // Descriptors that a client sends along are closed unseen.
        let message = socket.receive()?;
        if message.is_eof() {
            return Ok(End::Closed);
        }
        let Ok((id, request)) = codec::decode_request(&message.bytes) else { return Ok(End::BadClient) };
        if !request.is_answered() {
            server.close(&request);
            continue;
        }
        let (answer, fd) = match server.handle(request) {
            Ok(outcome) => (Ok(outcome.reply), outcome.fd),
            Err(errno) => (Err(u16::try_from(errno.raw()).unwrap_or(libc::EIO as u16)), None),
        };
        if let Err(e) = server.answer(socket, id, answer, fd) {
            return if e.errno() == libc::EPIPE { Ok(End::Closed) } else { Err(e) };
        }
    }
}

impl Server {
    fn answer(&mut self, socket: &SeqPacket, id: u64, answer: Answer, fd: Option<OwnedFd>) -> hostsys::Result<()> {
        let bytes = match codec::encode_answer(id, &answer) {
            Ok(bytes) => bytes,
            Err(_) => {
                // Files that the client will not hear of would be held for ever.
                answer.iter().flat_map(Reply::nodes).for_each(|node| self.nodes.remove(node));
                return self.refuse(socket, id);
            }
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        socket.send(&bytes, &fds)
    }

    fn refuse(&self, socket: &SeqPacket, id: u64) -> hostsys::Result<()> {
        let refusal = codec::encode_answer(id, &Err(libc::E2BIG as u16)).unwrap_or_default();
        socket.send(&refusal, &[])
    }

    fn close(&mut self, request: &Request) {
        if let Request::Close(ids) = request {
            ids.iter().take(MAX_CLOSE).for_each(|id| self.nodes.remove(*id));
        }
    }

    fn handle(&mut self, request: Request) -> Result<Outcome> {
        if let Request::Hello(version) = request {
            return self.hello(version);
        }
        if !self.greeted {
            return Err(Errno::EPROTO);
        }
        match request {
            Request::Attach(mount) => self.attach(mount),
            Request::Walk { node, names } => self.walk(node, &names),
            Request::GetAttr(node) => self.get_attr(node),
            Request::SetAttr { node, change } => self.set_attr(node, &change),
            Request::StatFs(node) => self.stat_fs(node),
            Request::Open { node, mode } => self.open(node, mode),
            Request::ReadDir { node, cookie, attrs } => self.read_dir(node, cookie, attrs),
            Request::ReadLink(node) => self.read_link(node),
            Request::Create { dir, name, new } => self.create(dir, &name, &new),
            Request::CreateUnnamed { dir, new } => self.create_unnamed(dir, &new),
            Request::MkDir { dir, name, new } => self.make_dir(dir, &name, &new),
            Request::MkNod { dir, name, kind, new } => self.make_node(dir, &name, kind, &new),
            Request::Symlink { dir, name, target, new } => self.symlink(dir, &name, &target, &new),
            Request::Link { node, dir, name } => self.link(node, dir, &name),
            Request::Unlink { dir, name, is_dir } => self.unlink(dir, &name, is_dir),
            Request::Rename { dir, name, new_dir, new_name, flags } => {
                self.rename((dir, &name), (new_dir, &new_name), flags)
            }
            Request::GetXattr { node, name } => self.get_xattr(node, &name),
            Request::SetXattr { node, name, value, flags } => self.set_xattr(node, &name, &value, flags),
            Request::ListXattr(node) => self.list_xattr(node),
            Request::RemoveXattr { node, name } => self.remove_xattr(node, &name),
            Request::Sync { node, data_only } => self.sync(node, data_only),
            Request::Allocate { node, mode, offset, len } => self.allocate(node, mode, offset, len),
            Request::Connect { node, kind } => self.connect(node, kind),
            Request::Bind { dir, name, kind, new } => self.bind(dir, &name, kind, &new),
            Request::Hello(_) | Request::Close(_) => Err(Errno::EPROTO),
        }
    }

    fn hello(&mut self, version: u32) -> Result<Outcome> {
        if version != VERSION || self.greeted {
            return Err(Errno::EPROTO);
        }
        self.greeted = true;
        let mounts = self.served.iter().map(|s| MountInfo { readonly: s.readonly }).collect();
        Ok(Reply::Hello { version: VERSION, mounts }.into())
    }

    fn attach(&mut self, mount: u32) -> Result<Outcome> {
        let mount = usize::try_from(mount).map_err(|_| Errno::ENOENT)?;
        let root = self.served.get(mount).ok_or(Errno::ENOENT)?.root.as_fd();
        let fd = hostsys::fds::dup_above(root, 3).map_err(sys)?;
        let entry = self.hold(fd, mount)?;
        Ok(Reply::Entry(entry).into())
    }

    /// Checks that `node` lies where changes are allowed.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn writable(&self, node: &Node) -> Result<()> {
        let readonly = self.served.get(node.mount).is_none_or(|s| s.readonly);
        if readonly { Err(Errno::EROFS) } else { Ok(()) }
    }
}
