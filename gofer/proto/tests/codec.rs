//! Messages survive the trip, and nothing else is taken for one.

use gofer_proto::codec::{decode_answer, decode_request, encode_answer, encode_request};
use gofer_proto::message::{Attr, Change, DirItem, Entry, Kind, NewFile, NodeId, OpenMode, Reply, Request, Time};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), any::<u32>()).prop_map(|(sec, nsec)| Time { sec, nsec })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Regular), Just(Kind::Directory), Just(Kind::Symlink), Just(Kind::Fifo), Just(Kind::Socket)]
}

fn attr() -> impl Strategy<Value = Attr> {
    let ids = (any::<u64>(), any::<u64>(), kind(), any::<u32>(), any::<u32>(), any::<u32>());
    let rest = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), time(), time());
    (ids, rest).prop_map(|((dev, ino, kind, perm, uid, gid), (nlink, size, blocks, rdev, atime, mtime))| Attr {
        dev,
        ino,
        kind,
        perm,
        uid,
        gid,
        nlink,
        size,
        blocks,
        blksize: 4096,
        rdev,
        atime,
        mtime,
        ctime: mtime,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let target = prop::option::of(name());
    (any::<u64>(), attr(), target).prop_map(|(id, attr, target)| Entry { id: NodeId(id), attr, target })
}

fn request() -> impl Strategy<Value = Request> {
    let node = || any::<u64>().prop_map(NodeId);
    let new = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(perm, uid, gid)| NewFile { perm, uid, gid });
    prop_oneof![
        any::<u32>().prop_map(Request::Hello),
        (node(), prop::collection::vec(name(), 0..16)).prop_map(|(node, names)| Request::Walk { node, names }),
        node().prop_map(|node| Request::Open { node, mode: OpenMode::ReadWrite }),
        (node(), name(), new, kind()).prop_map(|(dir, name, new, kind)| Request::MkNod { dir, name, kind, new }),
        (node(), name(), node(), name(), any::<u32>())
            .prop_map(|(dir, name, new_dir, new_name, flags)| Request::Rename { dir, name, new_dir, new_name, flags }),
        (node(), prop::option::of(any::<u64>()), prop::option::of(time())).prop_map(|(node, size, atime)| {
            Request::SetAttr { node, change: Change { size, atime, ..Change::default() } }
        }),
        prop::collection::vec(node(), 0..100).prop_map(Request::Close),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let item = (name(), any::<u64>(), kind(), any::<u64>(), prop::option::of(entry()))
        .prop_map(|(name, ino, kind, next, entry)| DirItem { name, ino, kind, next, entry });
    prop_oneof![
        Just(Reply::Done),
        entry().prop_map(Reply::Entry),
        (prop::collection::vec(entry(), 0..16), any::<u16>()).prop_map(|(found, errno)| Reply::Walk { found, errno }),
        (prop::collection::vec(item, 0..50), any::<bool>()).prop_map(|(items, end)| Reply::Items { items, end }),
        attr().prop_map(Reply::Donated),
        prop::collection::vec(name(), 0..20).prop_map(Reply::Names),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_round_trip(id in any::<u64>(), request in request()) {
        let bytes = encode_request(id, &request).unwrap();
        prop_assert_eq!(decode_request(&bytes).unwrap(), (id, request));
        prop_assert!(decode_request(&[&bytes[..], b"x"].concat()).is_err());
        prop_assert!(decode_request(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn answers_round_trip(id in any::<u64>(), reply in reply(), errno in any::<u16>()) {
        for answer in [Ok(reply.clone()), Err(errno)] {
            let bytes = encode_answer(id, &answer).unwrap();
            prop_assert_eq!(decode_answer(&bytes).unwrap(), (id, answer));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), request in request()) {
        let _ = decode_request(&bytes);
        if let Ok((_, Ok(reply))) = decode_answer(&bytes) {
            let _ = reply.check(&request);
        }
    }
}
