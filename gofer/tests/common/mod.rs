//! A gofer in a thread of the test.
#![allow(dead_code, reason = "each test file uses a part")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use abi::Errno;
use gofer::{End, Options, Served, serve};
use gofer_proto::message::{Entry, NewFile, NodeId};
use gofer_proto::{Client, Reply, Request};
use hostsys::SeqPacket;
use hostsys::opath::Magic;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

pub const NEW: NewFile = NewFile { perm: 0o640, uid: 1000, gid: 1001 };

pub fn o_path(path: &Path) -> OwnedFd {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

/// Starts a gofer for `dirs` and answers its socket.
pub fn start(dirs: &[(&Path, bool)], options: Options) -> (SeqPacket, JoinHandle<End>) {
    let served = dirs.iter().map(|(path, readonly)| Served { root: o_path(path), readonly: *readonly }).collect();
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let thread = std::thread::spawn(move || serve(&theirs, served, options, Magic::open().unwrap()).unwrap());
    (ours, thread)
}

pub fn client(dirs: &[(&Path, bool)]) -> Arc<Client> {
    Client::connect(start(dirs, Options::default()).0).unwrap()
}

pub fn entry(done: Result<(Reply, Option<OwnedFd>), Errno>) -> Entry {
    match done.unwrap() {
        (Reply::Entry(entry) | Reply::Created(entry), _) => entry,
        other => panic!("{other:?}"),
    }
}

pub fn attach(client: &Arc<Client>, mount: u32) -> NodeId {
    entry(client.call(Request::Attach(mount))).id
}

pub fn walk(client: &Arc<Client>, node: NodeId, path: &str) -> Result<Entry, Errno> {
    let names: Vec<_> = path.split('/').map(|n| n.as_bytes().to_vec()).collect();
    let want = names.len();
    match client.call(Request::Walk { node, names })?.0 {
        Reply::Walk { mut found, errno: 0 } if found.len() == want => Ok(found.pop().unwrap()),
        Reply::Walk { errno: 0, .. } => Err(Errno::ENOTDIR),
        Reply::Walk { errno, .. } => Err(Errno::from_raw(errno.into())),
        other => panic!("{other:?}"),
    }
}
