//! Any sequence of requests, whole or damaged, with descriptors that nobody asked for: the gofer lives, keeps to what it
//! serves, and gives its files back.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::start;
use gofer::{End, Options};
use gofer_proto::message::{Change, Kind, NewFile, NodeId, OpenMode, Request, Time};
use gofer_proto::{Reply, VERSION, decode_answer, encode_request};
use proptest::prelude::*;

/// Names that are there, that are not, and that are no names.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let known =
        ["dir", "file", "up", "root", "magic", "fifo", "new", "other", "..", ".", "", "a/b", "../secret", "a\0"];
    prop_oneof![
        8 => prop::sample::select(known.to_vec()).prop_map(|n| n.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![12 => 0u64..12, 1 => any::<u64>()].prop_map(NodeId)
}

fn new() -> impl Strategy<Value = NewFile> {
    (any::<u32>(), 0u32..3, 0u32..3).prop_map(|(perm, uid, gid)| NewFile { perm, uid, gid })
}

fn kind() -> impl Strategy<Value = Kind> {
    use Kind::*;
    prop::sample::select(vec![Regular, Directory, Symlink, CharDevice, BlockDevice, Fifo, Socket])
}

fn change() -> impl Strategy<Value = Change> {
    let time = prop::option::of((any::<i64>(), any::<u32>()).prop_map(|(sec, nsec)| Time { sec, nsec }));
    let small = prop::option::of(prop_oneof![0u64..100_000, Just(u64::MAX), Just(1 << 62)]);
    (prop::option::of(any::<u32>()), prop::option::of(0u32..3), small, time)
        .prop_map(|(perm, uid, size, mtime)| Change { perm, uid, size, mtime, ..Change::default() })
}

fn looks() -> impl Strategy<Value = Request> {
    let mode = prop::bool::ANY.prop_map(|w| if w { OpenMode::ReadWrite } else { OpenMode::Read });
    prop_oneof![
        any::<u32>().prop_map(Request::Hello),
        (0u32..4).prop_map(Request::Attach),
        (node(), prop::collection::vec(name(), 0..18)).prop_map(|(node, names)| Request::Walk { node, names }),
        node().prop_map(Request::GetAttr),
        node().prop_map(Request::StatFs),
        (node(), mode).prop_map(|(node, mode)| Request::Open { node, mode }),
        (node(), any::<u64>(), any::<bool>()).prop_map(|(node, at, entries)| {
            Request::ReadDir { node, cookie: if at % 2 == 0 { 0 } else { at }, entries }
        }),
        node().prop_map(Request::ReadLink),
        (node(), name()).prop_map(|(node, name)| Request::GetXattr { node, name }),
        node().prop_map(Request::ListXattr),
        (node(), 0u32..7).prop_map(|(node, kind)| Request::Connect { node, kind }),
        (node(), any::<bool>()).prop_map(|(node, data_only)| Request::Sync { node, data_only }),
        prop::collection::vec(node(), 0..20).prop_map(Request::Close),
    ]
}

fn changes() -> impl Strategy<Value = Request> {
    let range = || prop_oneof![0u64..10_000, Just(u64::MAX)];
    prop_oneof![
        (node(), change()).prop_map(|(node, change)| Request::SetAttr { node, change }),
        (node(), name(), new()).prop_map(|(dir, name, new)| Request::Create { dir, name, new }),
        (node(), new()).prop_map(|(dir, new)| Request::CreateUnnamed { dir, new }),
        (node(), name(), new()).prop_map(|(dir, name, new)| Request::MkDir { dir, name, new }),
        (node(), name(), kind(), new()).prop_map(|(dir, name, kind, new)| Request::MkNod { dir, name, kind, new }),
        (node(), name(), name(), new()).prop_map(|(dir, name, target, new)| Request::Symlink {
            dir,
            name,
            target,
            new
        }),
        (node(), node(), name()).prop_map(|(node, dir, name)| Request::Link { node, dir, name }),
        (node(), name(), any::<bool>()).prop_map(|(dir, name, is_dir)| Request::Unlink { dir, name, is_dir }),
        (node(), name(), node(), name(), 0u32..8).prop_map(|(dir, name, new_dir, new_name, flags)| Request::Rename {
            dir,
            name,
            new_dir,
            new_name,
            flags
        }),
        (node(), name(), name(), 0u32..4).prop_map(|(node, name, value, flags)| Request::SetXattr {
            node,
            name,
            value,
            flags
        }),
        (node(), name()).prop_map(|(node, name)| Request::RemoveXattr { node, name }),
        (node(), 0u32..128, range(), range()).prop_map(|(node, mode, offset, len)| Request::Allocate {
            node,
            mode,
            offset,
            len
        }),
        (node(), name(), 0u32..7, new()).prop_map(|(dir, name, kind, new)| Request::Bind { dir, name, kind, new }),
    ]
}

/// A request, where one of its bytes may be another, and the descriptors that come with it.
#[derive(Clone, Debug)]
struct Sent {
    request: Request,
    damage: Option<(usize, u8)>,
    fds: usize,
}

fn sent() -> impl Strategy<Value = Sent> {
    let request = prop_oneof![looks(), changes()];
    let damage = prop::option::weighted(0.02, (any::<usize>(), any::<u8>()));
    (request, damage, prop_oneof![9 => Just(0usize), 1 => 1usize..4]).prop_map(|(request, damage, fds)| Sent {
        request,
        damage,
        fds,
    })
}

impl Sent {
    fn bytes(&self, id: u64) -> Vec<u8> {
        let mut bytes = encode_request(id, &self.request).unwrap();
        if let Some((at, value)) = self.damage {
            let at = at % bytes.len();
            bytes[at] ^= value;
        }
        bytes
    }
}

fn fill(place: &Path) {
    let served = place.join("served");
    fs::create_dir_all(served.join("dir")).unwrap();
    fs::write(served.join("file"), "content").unwrap();
    symlink("..", served.join("up")).unwrap();
    symlink("/", served.join("root")).unwrap();
    symlink("/proc/self/fd", served.join("magic")).unwrap();
    nix::unistd::mkfifo(&served.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(place.join("secret"), "secret").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_gofer_survives_and_stays_inside(messages in prop::collection::vec(sent(), 1..60), readonly in any::<bool>()) {
        let place = tempfile::tempdir().unwrap();
        fill(place.path());
        let options = Options { uds_connect: true, uds_bind: true, max_nodes: 40, ..Options::default() };
        let (socket, server) = start(&[(&place.path().join("served"), readonly)], options);
        let null = hostsys::fds::dev_null().unwrap();
        let opening = [Request::Hello(VERSION), Request::Attach(0)];
        let opening = opening.map(|request| Sent { request, damage: None, fds: 0 });
        for (id, message) in opening.iter().chain(&messages).enumerate() {
            let fds: Vec<_> = (0..message.fds).map(|_| null.as_fd()).collect();
            if socket.send(&message.bytes(id as u64), &fds).is_err() {
                break; // it has had enough of us
            }
            // Answers that are there are what answers look like; those to damaged requests may be to others.
            while let Ok(Some(answer)) = socket.try_receive() {
                if answer.is_eof() {
                    break;
                }
                let (_, decoded) = decode_answer(&answer.bytes).unwrap();
                prop_assert_eq!(answer.fds.len(), decoded.as_ref().map_or(0, Reply::fds));
            }
        }
        drop(socket);
        let end = server.join().expect("no panic");
        prop_assert!(matches!(end, End::Closed | End::BadClient));
        prop_assert_eq!(fs::read(place.path().join("secret")).unwrap(), b"secret");
        prop_assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        if readonly {
            prop_assert_eq!(fs::read(place.path().join("served/file")).unwrap(), b"content");
            prop_assert_eq!(fs::read_dir(place.path().join("served")).unwrap().count(), 6);
        }
    }
}
