//! Any answers, whole or damaged, with any number of descriptors: the client never panics, believes nothing that cannot
//! be, and after a fault answers `EIO` to everything.

use std::os::fd::AsFd;

use abi::Errno;
use gofer_proto::message::{
    Answer, Attr, DirItem, Entry, Kind, MountInfo, NewFile, NodeId, OpenMode, Reply, Request, StatFs, Time,
};
use gofer_proto::{Client, VERSION, decode_request, encode_answer};
use hostsys::SeqPacket;
use proptest::prelude::*;

const NEW: NewFile = NewFile { perm: 0, uid: 0, gid: 0 };

fn kind() -> impl Strategy<Value = Kind> {
    use Kind::*;
    prop::sample::select(vec![Regular, Directory, Symlink, CharDevice, BlockDevice, Fifo, Socket])
}

fn attr() -> impl Strategy<Value = Attr> {
    let time = prop_oneof![9 => 0u32..1_000_000_000, 1 => any::<u32>()].prop_map(|nsec| Time { sec: -1, nsec });
    let perm = prop_oneof![9 => 0u32..0o10000, 1 => any::<u32>()];
    let size = prop_oneof![9 => 0u64..1 << 40, 1 => any::<u64>()];
    (kind(), perm, size, time, 0u64..4).prop_map(|(kind, perm, size, time, ino)| Attr {
        dev: 1,
        ino,
        kind,
        perm,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        blocks: u64::MAX,
        blksize: 0,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let target = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (0u64..8, attr(), target).prop_map(|(id, attr, target)| Entry { id: NodeId(id), attr, target })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => Just(b"name".to_vec()),
        1 => Just(b"..".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let item = (name(), 0u64..4, kind(), any::<u64>(), prop::option::of(entry()))
        .prop_map(|(name, ino, kind, next, entry)| DirItem { name, ino, kind, next, entry });
    prop_oneof![
        Just(Reply::Done),
        Just(Reply::Hello { version: VERSION, mounts: vec![] }),
        Just(Reply::StatFs(StatFs::default())),
        entry().prop_map(Reply::Entry),
        entry().prop_map(Reply::Created),
        (prop::collection::vec(entry(), 0..4), any::<u16>()).prop_map(|(found, errno)| Reply::Walk { found, errno }),
        (prop::collection::vec(item, 0..4), any::<bool>()).prop_map(|(items, end)| Reply::Items { items, end }),
        attr().prop_map(Reply::Attr),
        attr().prop_map(Reply::Donated),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Reply::Bytes),
        prop::collection::vec(name(), 0..4).prop_map(Reply::Names),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let (node, dir) = (NodeId(1), NodeId(1));
    let name = || b"name".to_vec();
    prop::sample::select(vec![
        Request::Attach(0),
        Request::Walk { node, names: vec![name(), name()] },
        Request::GetAttr(node),
        Request::StatFs(node),
        Request::Open { node, mode: OpenMode::Read },
        Request::ReadDir { node, cookie: 0, entries: true },
        Request::ReadLink(node),
        Request::Create { dir, name: name(), new: NEW },
        Request::CreateUnnamed { dir, new: NEW },
        Request::MkDir { dir, name: name(), new: NEW },
        Request::GetXattr { node, name: name() },
        Request::ListXattr(node),
        Request::Unlink { dir, name: name(), is_dir: false },
        Request::Bind { dir, name: name(), kind: 1, new: NEW },
    ])
}

/// What the server does with one request.
#[derive(Clone, Debug)]
struct Said {
    answer: Answer,
    /// Whether it answers this request, or one that is not there.
    right_id: bool,
    damage: Option<(usize, u8)>,
    fds: Option<usize>,
}

fn said() -> impl Strategy<Value = Said> {
    let answer = prop_oneof![4 => reply().prop_map(Ok), 1 => any::<u16>().prop_map(Err)];
    let damage = prop::option::weighted(0.1, (any::<usize>(), any::<u8>()));
    (answer, prop::bool::weighted(0.95), damage, prop::option::weighted(0.1, 0usize..4))
        .prop_map(|(answer, right_id, damage, fds)| Said { answer, right_id, damage, fds })
}

fn serve(socket: &SeqPacket, said: Vec<Said>) {
    let null = hostsys::fds::dev_null().unwrap();
    let mut said = said.into_iter();
    loop {
        let message = socket.receive().unwrap();
        if message.is_eof() {
            return;
        }
        let (id, request) = decode_request(&message.bytes).unwrap();
        if !request.is_answered() {
            continue;
        }
        let Some(said) = said.next() else { return };
        let mut bytes = encode_answer(if said.right_id { id } else { id + 1000 }, &said.answer).unwrap();
        if let Some((at, value)) = said.damage {
            let at = at % bytes.len();
            bytes[at] ^= value;
        }
        let fds = said.fds.unwrap_or_else(|| said.answer.as_ref().map_or(0, Reply::fds));
        let fds: Vec<_> = (0..fds).map(|_| null.as_fd()).collect();
        if socket.send(&bytes, &fds).is_err() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_client_survives_any_answer(asked in prop::collection::vec((request(), said()), 1..12)) {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let (requests, said): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let server = std::thread::spawn(move || {
            let (id, _) = decode_request(&theirs.receive().unwrap().bytes).unwrap();
            let hello = Reply::Hello { version: VERSION, mounts: vec![MountInfo { readonly: false }] };
            theirs.send(&encode_answer(id, &Ok(hello)).unwrap(), &[]).unwrap();
            serve(&theirs, said);
        });
        let client = Client::connect(ours).unwrap();
        for request in requests {
            let dead = client.fault().is_some();
            match client.call(request.clone()) {
                Ok((reply, fd)) => {
                    prop_assert!(!dead);
                    prop_assert_eq!(reply.check(&request), Ok(()));
                    prop_assert_eq!(usize::from(fd.is_some()), reply.fds());
                    reply.nodes().for_each(|node| client.close(node));
                }
                Err(errno) => prop_assert!(!dead || errno == Errno::EIO),
            }
        }
        drop(client);
        server.join().unwrap();
    }
}
