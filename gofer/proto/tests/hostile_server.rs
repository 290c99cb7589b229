//! What a gofer that an attacker has taken over can answer: errors, never panics, and never a wrong answer believed.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use abi::Errno;
use gofer_proto::codec::{decode_request, encode_answer};
use gofer_proto::message::{Attr, DirItem, Entry, Kind, MountInfo, NodeId, OpenMode, Reply, Request, Time};
use gofer_proto::{Answer, Client, Fault, VERSION};
use hostsys::SeqPacket;

const ATTR: Attr = Attr {
    dev: 1,
    ino: 2,
    kind: Kind::Regular,
    perm: 0o644,
    uid: 0,
    gid: 0,
    nlink: 1,
    size: 3,
    blocks: 8,
    blksize: 4096,
    rdev: 0,
    atime: Time { sec: 0, nsec: 0 },
    mtime: Time { sec: 0, nsec: 0 },
    ctime: Time { sec: 0, nsec: 0 },
};

fn entry(attr: Attr) -> Entry {
    Entry { id: NodeId(9), attr, target: None }
}

/// A server that says hello and then answers the first request with what `evil` says.
fn server(evil: impl FnOnce(&SeqPacket, u64) + Send + 'static) -> (Arc<Client>, JoinHandle<()>) {
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let (id, _) = decode_request(&theirs.receive().unwrap().bytes).unwrap();
        let hello = Reply::Hello { version: VERSION, mounts: vec![MountInfo { readonly: false }] };
        theirs.send(&encode_answer(id, &Ok(hello)).unwrap(), &[]).unwrap();
        let (id, _) = decode_request(&theirs.receive().unwrap().bytes).unwrap();
        evil(&theirs, id);
        // Stays until the client has gone.
        while !theirs.receive().unwrap().is_eof() {}
    });
    (Client::connect(ours).unwrap(), thread)
}

/// The fault with which `answer` with `fds` descriptors to `request` ends the connection.
fn fault_of(request: Request, answer: Answer, fds: usize) -> Option<Fault> {
    let (client, thread) = server(move |socket, id| {
        let null = hostsys::fds::dev_null().unwrap();
        let fds: Vec<_> = (0..fds).map(|_| null.as_fd()).collect();
        socket.send(&encode_answer(id, &answer).unwrap(), &fds).unwrap();
    });
    let got = client.call(request.clone());
    let fault = client.fault();
    if fault.is_some() {
        assert_eq!(got.unwrap_err(), Errno::EIO);
        // And so is everything after it.
        assert_eq!(client.call(request).unwrap_err(), Errno::EIO);
    }
    drop(client);
    thread.join().unwrap();
    fault
}

#[test]
fn wrong_kinds_and_counts() {
    let get = || Request::GetAttr(NodeId(1));
    let open = || Request::Open { node: NodeId(1), mode: OpenMode::Read };
    assert_eq!(fault_of(get(), Ok(Reply::Attr(ATTR)), 0), None);
    assert_eq!(fault_of(get(), Ok(Reply::Done), 0), Some(Fault::WrongKind));
    assert_eq!(fault_of(get(), Ok(Reply::Attr(ATTR)), 1), Some(Fault::WrongFds));
    assert_eq!(fault_of(get(), Err(2), 1), Some(Fault::WrongFds));
    assert_eq!(fault_of(open(), Ok(Reply::Donated(ATTR)), 1), None);
    assert_eq!(fault_of(open(), Ok(Reply::Donated(ATTR)), 0), Some(Fault::WrongFds));
    assert_eq!(fault_of(open(), Ok(Reply::Donated(ATTR)), 2), Some(Fault::WrongFds));
    let device = Attr { kind: Kind::CharDevice, ..ATTR };
    assert_eq!(fault_of(open(), Ok(Reply::Donated(device)), 1), Some(Fault::BadValue));
}

#[test]
fn impossible_values() {
    let walk = || Request::Walk { node: NodeId(1), names: vec![b"a".to_vec(), b"b".to_vec()] };
    let dir = Attr { kind: Kind::Directory, ..ATTR };
    let found = |found: Vec<Entry>, errno| Ok(Reply::Walk { found, errno });
    assert_eq!(fault_of(walk(), found(vec![entry(dir), entry(ATTR)], 0), 0), None);
    assert_eq!(fault_of(walk(), found(vec![entry(ATTR)], 0), 0), None);
    assert_eq!(fault_of(walk(), found(vec![entry(dir)], 2), 0), None);
    for bad in [
        found(vec![entry(dir), entry(dir), entry(dir)], 0),
        found(vec![entry(ATTR), entry(ATTR)], 0),
        found(vec![entry(dir)], 0),
        found(vec![], 0),
        found(vec![entry(dir), entry(ATTR)], 2),
    ] {
        assert_eq!(fault_of(walk(), bad, 0), Some(Fault::BadValue));
    }
    let get = || Request::GetAttr(NodeId(1));
    let late = Attr { mtime: Time { sec: 0, nsec: 1_000_000_000 }, ..ATTR };
    let huge = Attr { size: u64::MAX, ..ATTR };
    let typed = Attr { perm: 0o100_644, ..ATTR };
    for bad in [late, huge, typed] {
        assert_eq!(fault_of(get(), Ok(Reply::Attr(bad)), 0), Some(Fault::BadValue));
    }
    let list = || Request::ReadDir { node: NodeId(1), cookie: 0, entries: true };
    let item = |name: &[u8]| DirItem { name: name.to_vec(), ino: 1, kind: Kind::Regular, next: 1, entry: None };
    for name in [&b"../x"[..], b"..", b"", b"a\0"] {
        let items = Ok(Reply::Items { items: vec![item(name)], end: true });
        assert_eq!(fault_of(list(), items, 0), Some(Fault::BadValue));
    }
    let other_kind = entry(Attr { kind: Kind::Directory, ..ATTR });
    let no_target = entry(Attr { kind: Kind::Symlink, ..ATTR });
    for (kind, held) in [(Kind::Regular, other_kind), (Kind::Symlink, no_target), (Kind::Regular, entry(huge))] {
        let items = vec![DirItem { kind, ino: held.attr.ino, entry: Some(held), ..item(b"a") }];
        assert_eq!(fault_of(list(), Ok(Reply::Items { items, end: true }), 0), Some(Fault::BadValue));
    }
    assert_eq!(fault_of(list(), Ok(Reply::Items { items: vec![], end: false }), 0), Some(Fault::BadValue));
    let link = Ok(Reply::Bytes(b"a\0b".to_vec()));
    assert_eq!(fault_of(Request::ReadLink(NodeId(1)), link, 0), Some(Fault::BadValue));
    let made =
        Request::MkDir { dir: NodeId(1), name: b"d".to_vec(), new: gofer_proto::NewFile { perm: 0, uid: 0, gid: 0 } };
    assert_eq!(fault_of(made, Ok(Reply::Entry(entry(ATTR))), 0), Some(Fault::BadValue));
}

#[test]
fn errnos_that_only_kernels_use_become_eio() {
    for raw in [0, 134, 512, 529, u16::MAX] {
        let (client, thread) = server(move |socket, id| {
            socket.send(&encode_answer(id, &Err(raw)).unwrap(), &[]).unwrap();
        });
        assert_eq!(client.call(Request::GetAttr(NodeId(1))).unwrap_err(), Errno::EIO);
        assert_eq!(client.fault(), None);
        drop(client);
        thread.join().unwrap();
    }
}

#[test]
fn garbage_wrong_ids_doubles_and_ends() {
    type Evil = Box<dyn FnOnce(&SeqPacket, u64) + Send>;
    let cases: Vec<(Evil, Fault)> = vec![
        (Box::new(|s, _| s.send(b"xx", &[]).unwrap()), Fault::Malformed),
        (Box::new(|s, _| s.send(&[0xff; 60_000], &[]).unwrap()), Fault::Malformed),
        (Box::new(|s, id| s.send(&encode_answer(id + 1, &Ok(Reply::Done)).unwrap(), &[]).unwrap()), Fault::UnknownId),
        (Box::new(|s, _| s.send(&encode_answer(0, &Ok(Reply::Done)).unwrap(), &[]).unwrap()), Fault::UnknownId),
        (Box::new(|s, _| nix::sys::socket::shutdown(fd(s), nix::sys::socket::Shutdown::Write).unwrap()), Fault::Gone),
    ];
    for (evil, fault) in cases {
        let (client, thread) = server(evil);
        assert_eq!(client.call(Request::GetAttr(NodeId(1))).unwrap_err(), Errno::EIO);
        assert_eq!(client.fault(), Some(fault));
        drop(client);
        thread.join().unwrap();
    }
    let (client, thread) = server(|s, id| {
        let answer = encode_answer(id, &Ok(Reply::Attr(ATTR))).unwrap();
        s.send(&answer, &[]).unwrap();
        s.send(&answer, &[]).unwrap();
    });
    let ticket = client.start(Request::GetAttr(NodeId(1)), None);
    assert_eq!(client.call(Request::GetAttr(NodeId(1))).unwrap_err(), Errno::EIO);
    assert!(matches!(ticket.take(), Some(Ok(_))));
    assert_eq!(client.fault(), Some(Fault::UnknownId));
    drop((ticket, client));
    thread.join().unwrap();
}

fn fd(socket: &SeqPacket) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(socket.fd())
}

#[test]
fn an_abandoned_answer_gives_its_files_back() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (client, thread) = server(move |socket, id| {
        let answer = Ok(Reply::Entry(entry(Attr { kind: Kind::Directory, ..ATTR })));
        socket.send(&encode_answer(id, &answer).unwrap(), &[]).unwrap();
        let (_, request) = decode_request(&socket.receive().unwrap().bytes).unwrap();
        sender.send(request).unwrap();
    });
    drop(client.start(Request::Attach(0), None));
    // The answer may not be there yet: pump until it has been.
    while receiver.try_recv().map(|r| assert_eq!(r, Request::Close(vec![NodeId(9)]))).is_err() {
        client.pump();
        client.flush_now();
        std::thread::yield_now();
    }
    drop(client);
    thread.join().unwrap();
}
