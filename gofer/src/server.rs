//! The loop: one message in, one message out, by as many threads as it takes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;

use abi::Errno;
use gofer_proto::{MAX_CLOSE, Reply, Request, VERSION, codec, message::MountInfo};
use hostsys::SeqPacket;
use hostsys::opath::Magic;
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

use crate::error::{Result, sys};
use crate::intake::Work;
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
    pub nodes: Mutex<Nodes>,
    greeted: AtomicBool,
    turns: Turns,
}

/// Whose turn it is to read requests. One thread reads and answers what needs nothing but memory; before anything else it
/// gives its turn to the next, so that no request waits for another's disk.
struct Turns {
    /// Why it is over, once it is. Who holds it reads.
    turn: Mutex<Option<hostsys::Result<End>>>,
    /// Threads that read or wait for their turn.
    ready: AtomicUsize,
    /// Threads in all.
    threads: AtomicUsize,
}

/// Most threads: as many requests may wait for a disk or a peer before the next one waits for them.
const MAX_THREADS: usize = 8;
/// Bytes of a thread's stack.
const STACK: usize = 256 * 1024;

/// Serves until the client is gone.
///
/// # Errors
/// The socket fails.
pub fn serve(socket: &SeqPacket, served: Vec<Served>, options: Options, magic: Magic) -> hostsys::Result<End> {
    let nodes = Mutex::new(Nodes::new(options.max_nodes));
    let turns = Turns { turn: Mutex::new(None), ready: AtomicUsize::new(1), threads: AtomicUsize::new(1) };
    let server = Server { served, options, magic, nodes, greeted: AtomicBool::new(false), turns };
    std::thread::scope(|scope| server.work(scope, socket));
    server.turns.turn.into_inner().unwrap_or(Ok(End::Closed))
}

impl Server {
    /// What one thread does until the end.
    fn work<'s>(&'s self, scope: &'s Scope<'s, '_>, socket: &'s SeqPacket) {
        loop {
            let mut turn = self.turns.turn.lock();
            if turn.is_some() {
                return;
            }
            let (id, work) = match self.next(socket) {
                Ok(next) => next,
                Err(end) => {
                    *turn = Some(end);
                    return;
                }
            };
            self.turns.ready.fetch_sub(1, Ordering::Relaxed);
            self.find_reader(scope, socket);
            drop(turn);
            let sent = self.answer(socket, id, self.handle(work));
            self.turns.ready.fetch_add(1, Ordering::Relaxed);
            if sent.is_err() {
                // An answer is lost: whoever reads finds the end of the connection.
                let _ = shutdown(socket.fd().as_raw_fd(), Shutdown::Both);
                return;
            }
        }
    }

    /// Makes sure that somebody reads while this thread does not, if there may be one more.
    fn find_reader<'s>(&'s self, scope: &'s Scope<'s, '_>, socket: &'s SeqPacket) {
        if self.turns.ready.load(Ordering::Relaxed) > 0 || self.turns.threads.load(Ordering::Relaxed) >= MAX_THREADS {
            return;
        }
        let thread = std::thread::Builder::new().stack_size(STACK);
        // Without one the requests behind this one wait.
        if thread.spawn_scoped(scope, move || self.work(scope, socket)).is_ok() {
            self.turns.threads.fetch_add(1, Ordering::Relaxed);
            self.turns.ready.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads, and answers what can be answered at once, up to a request that may have to wait; or the end.
    fn next(&self, socket: &SeqPacket) -> std::result::Result<(u64, Work), hostsys::Result<End>> {
        loop {
            // Descriptors that a client sends along are closed unseen.
            let message = socket.receive().map_err(Err)?;
            if message.is_eof() {
                return Err(Ok(End::Closed));
            }
            let Ok((id, request)) = codec::decode_request(&message.bytes) else { return Err(Ok(End::BadClient)) };
            if !request.is_answered() {
                self.close(&request);
                continue;
            }
            let work = Work::new(request, &self.nodes.lock());
            let answer = match work {
                Ok(work) => match self.at_once(work) {
                    Ok(answer) => answer,
                    Err(work) => return Ok((id, work)),
                },
                Err(errno) => Err(errno),
            };
            self.answer(socket, id, answer).map_err(|e| match e.errno() {
                // A reset is the client's end with answers unread.
                libc::EPIPE | libc::ECONNRESET => Ok(End::Closed),
                _ => Err(e),
            })?;
        }
    }

    /// The answer, or the request where it may have to wait for one.
    fn at_once(&self, work: Work) -> std::result::Result<Result<Outcome>, Work> {
        match (&work.request, &work.node) {
            (Request::Walk { names, .. }, Some(node)) if self.greeted.load(Ordering::Relaxed) => {
                match self.walk_cached(node, names) {
                    Err(Errno::EAGAIN) => Err(work),
                    answer => Ok(answer),
                }
            }
            _ if work.may_wait() => Err(work),
            _ => Ok(self.handle(work)),
        }
    }

    fn answer(&self, socket: &SeqPacket, id: u64, result: Result<Outcome>) -> hostsys::Result<()> {
        let (answer, fd) = match result {
            Ok(outcome) => (Ok(outcome.reply), outcome.fd),
            Err(errno) => (Err(u16::try_from(errno.raw()).unwrap_or(libc::EIO as u16)), None),
        };
        let bytes = match codec::encode_answer(id, &answer) {
            Ok(bytes) => bytes,
            Err(_) => {
                // Files that the client will not hear of would be held for ever.
                answer.iter().for_each(|reply| self.let_go(reply));
                return self.refuse(socket, id, libc::E2BIG);
            }
        };
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        match socket.send(&bytes, &fds) {
            // The host's limit on descriptors in flight: what the client has not taken yet counts.
            Err(e) if e.errno() == libc::ETOOMANYREFS => {
                answer.iter().for_each(|reply| self.let_go(reply));
                self.refuse(socket, id, libc::ENFILE)
            }
            other => other,
        }
    }

    /// Files that a reply brings and that nobody will hear of.
    pub fn let_go(&self, reply: &Reply) {
        let mut nodes = self.nodes.lock();
        reply.nodes().for_each(|node| nodes.remove(node));
    }

    fn refuse(&self, socket: &SeqPacket, id: u64, errno: i32) -> hostsys::Result<()> {
        let refusal = codec::encode_answer(id, &Err(errno as u16)).unwrap_or_default();
        socket.send(&refusal, &[])
    }

    fn close(&self, request: &Request) {
        if let Request::Close(ids) = request {
            let mut nodes = self.nodes.lock();
            ids.iter().take(MAX_CLOSE).for_each(|id| nodes.remove(*id));
        }
    }

    fn handle(&self, work: Work) -> Result<Outcome> {
        let Work { request, node, other } = work;
        if let Request::Hello(version) = request {
            return self.hello(version);
        }
        if !self.greeted.load(Ordering::Relaxed) {
            return Err(Errno::EPROTO);
        }
        if let Request::Attach(mount) = request {
            return self.attach(mount);
        }
        let node = &node.ok_or(Errno::EPROTO)?;
        match request {
            Request::Walk { names, .. } => self.walk(node, &names),
            Request::GetAttr(_) => self.get_attr(node),
            Request::SetAttr { change, .. } => self.set_attr(node, &change),
            Request::StatFs(_) => self.stat_fs(node),
            Request::Open { mode, .. } => self.open(node, mode),
            Request::ReadDir { node: id, cookie, entries } => self.read_dir(id, node, cookie, entries),
            Request::ReadLink(_) => self.read_link(node),
            Request::Create { name, new, .. } => self.create(node, &name, &new),
            Request::CreateUnnamed { new, .. } => self.create_unnamed(node, &new),
            Request::MkDir { name, new, .. } => self.make_dir(node, &name, &new),
            Request::MkNod { name, kind, new, .. } => self.make_node(node, &name, kind, &new),
            Request::Symlink { name, target, new, .. } => self.symlink(node, &name, &target, &new),
            Request::Link { name, .. } => self.link(node, &other.ok_or(Errno::EPROTO)?, &name),
            Request::Unlink { name, is_dir, .. } => self.unlink(node, &name, is_dir),
            Request::Rename { name, new_name, flags, .. } => {
                self.rename((node, &name), (&other.ok_or(Errno::EPROTO)?, &new_name), flags)
            }
            Request::GetXattr { name, .. } => self.get_xattr(node, &name),
            Request::SetXattr { name, value, flags, .. } => self.set_xattr(node, &name, &value, flags),
            Request::ListXattr(_) => self.list_xattr(node),
            Request::RemoveXattr { name, .. } => self.remove_xattr(node, &name),
            Request::Sync { data_only, .. } => self.sync(node, data_only),
            Request::Allocate { mode, offset, len, .. } => self.allocate(node, mode, offset, len),
            Request::Connect { kind, .. } => self.connect(node, kind),
            Request::Bind { name, kind, new, .. } => self.bind(node, &name, kind, &new),
            Request::Hello(_) | Request::Attach(_) | Request::Close(_) => Err(Errno::EPROTO),
        }
    }

    fn hello(&self, version: u32) -> Result<Outcome> {
        if version != VERSION || self.greeted.swap(true, Ordering::Relaxed) {
            return Err(Errno::EPROTO);
        }
        let mounts = self.served.iter().map(|s| MountInfo { readonly: s.readonly }).collect();
        Ok(Reply::Hello { version: VERSION, mounts }.into())
    }

    fn attach(&self, mount: u32) -> Result<Outcome> {
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
