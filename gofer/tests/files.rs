//! What an honest client can do.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use abi::Errno;
use common::{NEW, attach, client, entry, walk};
use gofer_proto::message::{Change, Kind, OpenMode, Time};
use gofer_proto::{Reply, Request};

fn name(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn files_are_made_with_their_owner_and_donated() {
    let dir = tempfile::tempdir().unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let made = client.call(Request::Create { dir: root, name: name("a"), new: NEW }).unwrap();
    let mut file = fs::File::from(made.1.unwrap());
    file.write_all(b"hello").unwrap();
    let meta = fs::metadata(dir.path().join("a")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o640));
    let again = client.call(Request::Create { dir: root, name: name("a"), new: NEW });
    assert_eq!(again.unwrap_err(), Errno::EEXIST);
    let found = walk(&client, root, "a").unwrap();
    assert_eq!((found.attr.size, found.attr.kind, found.attr.uid), (5, Kind::Regular, 1000));
    let (_, fd) = client.call(Request::Open { node: found.id, mode: OpenMode::Read }).unwrap();
    let mut text = String::new();
    fs::File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn an_unlinked_file_and_a_renamed_one_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "one").unwrap();
    fs::write(dir.path().join("b"), "two").unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let (a, b) = (walk(&client, root, "a").unwrap().id, walk(&client, root, "b").unwrap().id);
    client.call(Request::Unlink { dir: root, name: name("a"), is_dir: false }).unwrap();
    let moved = Request::Rename { dir: root, name: name("b"), new_dir: root, new_name: name("a"), flags: 0 };
    client.call(moved).unwrap();
    for (node, text) in [(a, b"one"), (b, b"two")] {
        let (_, fd) = client.call(Request::Open { node, mode: OpenMode::ReadWrite }).unwrap();
        let mut got = [0; 3];
        fs::File::from(fd.unwrap()).read_exact_at(&mut got, 0).unwrap();
        assert_eq!(&got, text);
    }
    let Reply::Attr(attr) = client.call(Request::GetAttr(a)).unwrap().0 else { panic!() };
    assert_eq!(attr.nlink, 0);
    assert_eq!(walk(&client, root, "b").unwrap_err(), Errno::ENOENT);
}

#[test]
fn attributes_change_in_the_right_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "12345").unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let node = walk(&client, root, "a").unwrap().id;
    let at = Time { sec: 1_000_000, nsec: 5 };
    let change =
        Change { perm: Some(0o4711), uid: Some(7), gid: Some(8), size: Some(2), atime: Some(at), mtime: Some(at) };
    let Reply::Attr(attr) = client.call(Request::SetAttr { node, change }).unwrap().0 else { panic!() };
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.size), (0o4711, 7, 8, 2));
    assert_eq!((attr.atime, attr.mtime), (at, at));
    let missing = Change { size: Some(u64::MAX), ..Change::default() };
    assert_eq!(client.call(Request::SetAttr { node, change: missing }).unwrap_err(), Errno::EINVAL);
}

#[test]
fn directories_links_and_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let sub = entry(client.call(Request::MkDir { dir: root, name: name("d"), new: NEW })).id;
    let file = entry(client.call(Request::Create { dir: sub, name: name("f"), new: NEW })).id;
    client.call(Request::Link { node: file, dir: root, name: name("hard") }).unwrap();
    assert_eq!(walk(&client, root, "hard").unwrap().attr.nlink, 2);
    let link = Request::Symlink { dir: root, name: name("soft"), target: name("/etc/passwd"), new: NEW };
    let link = entry(client.call(link));
    assert_eq!((link.attr.uid, link.target.as_deref()), (1000, Some(&b"/etc/passwd"[..])));
    let fifo = Request::MkNod { dir: root, name: name("p"), kind: Kind::Fifo, new: NEW };
    assert_eq!(entry(client.call(fifo)).attr.kind, Kind::Fifo);
    let device = Request::MkNod { dir: root, name: name("c"), kind: Kind::CharDevice, new: NEW };
    assert_eq!(client.call(device).unwrap_err(), Errno::EPERM);
    let full = Request::Unlink { dir: root, name: name("d"), is_dir: true };
    assert_eq!(client.call(full).unwrap_err(), Errno::ENOTEMPTY);
    let wrong = Request::Unlink { dir: root, name: name("d"), is_dir: false };
    assert_eq!(client.call(wrong).unwrap_err(), Errno::EISDIR);
    let deep = walk(&client, root, "d/f").unwrap();
    assert_eq!(deep.attr.kind, Kind::Regular);
    assert_eq!(walk(&client, root, "d/f/x").unwrap_err(), Errno::ENOTDIR);
    // A symlink ends a walk; following it is the client's.
    assert_eq!(walk(&client, root, "soft/x").unwrap_err(), Errno::ENOTDIR);
}

#[test]
fn extended_attributes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "").unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let node = walk(&client, root, "a").unwrap().id;
    let get = || Request::GetXattr { node, name: name("trusted.x") };
    assert_eq!(client.call(get()).unwrap_err(), Errno::ENODATA);
    let set = |flags| Request::SetXattr { node, name: name("trusted.x"), value: b"v\0v".to_vec(), flags };
    client.call(set(1)).unwrap();
    assert_eq!(client.call(set(1)).unwrap_err(), Errno::EEXIST);
    assert_eq!(client.call(get()).unwrap().0, Reply::Bytes(b"v\0v".to_vec()));
    assert_eq!(client.call(Request::ListXattr(node)).unwrap().0, Reply::Names(vec![name("trusted.x")]));
    client.call(Request::RemoveXattr { node, name: name("trusted.x") }).unwrap();
    assert_eq!(client.call(get()).unwrap_err(), Errno::ENODATA);
}

#[test]
fn a_hundred_thousand_names_are_listed_once_each() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..100_000 {
        fs::write(dir.path().join(format!("file-{i}")), "").unwrap();
    }
    let client = client(&[(dir.path(), true)]);
    let root = attach(&client, 0);
    for files in [true, false] {
        let (mut cookie, mut seen) = (0, std::collections::HashSet::new());
        loop {
            let reply = client.call(Request::ReadDir { node: root, cookie, entries: files }).unwrap().0;
            let Reply::Items { items, end } = reply else { panic!() };
            for item in &items {
                assert!(seen.insert(item.name.clone()));
                assert_eq!(item.entry.is_some(), files);
                item.entry.iter().for_each(|e| client.close(e.id));
                cookie = item.next;
            }
            if end {
                break;
            }
        }
        assert_eq!(seen.len(), 100_000);
    }
}

#[test]
fn a_listing_brings_the_files_as_walks_would() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "12345").unwrap();
    fs::create_dir_all(dir.path().join("dir/inner")).unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    // Long targets fill a message before the names do: the rest comes without files, and nothing is left out.
    for i in 0..100 {
        std::os::unix::fs::symlink("t".repeat(4000), dir.path().join(format!("link-{i}"))).unwrap();
    }
    let (mut cookie, mut held, mut names) = (0, 0, 0);
    loop {
        let reply = client.call(Request::ReadDir { node: root, cookie, entries: true }).unwrap().0;
        let Reply::Items { items, end } = reply else { panic!() };
        names += items.len();
        for item in items {
            cookie = item.next;
            let Some(entry) = item.entry else { continue };
            held += 1;
            let walked = walk(&client, root, std::str::from_utf8(&item.name).unwrap()).unwrap();
            // Not its times: looking at a link's target is an access.
            let told = |e: &gofer_proto::Entry| (e.attr.ino, e.attr.kind, e.attr.size, e.attr.perm, e.attr.mtime);
            assert_eq!(told(&entry), told(&walked));
            assert!(entry.target == walked.target);
            client.close(entry.id);
            client.close(walked.id);
        }
        if end {
            break;
        }
    }
    assert_eq!(names, 102);
    assert!((8..102).contains(&held), "{held}");
    let list = Request::ReadDir { node: walk(&client, root, "dir").unwrap().id, cookie: 0, entries: true };
    let Reply::Items { mut items, .. } = client.call(list).unwrap().0 else { panic!() };
    let inner = items.pop().unwrap().entry.unwrap();
    client.call(Request::MkDir { dir: inner.id, name: name("made"), new: NEW }).unwrap();
    assert!(dir.path().join("dir/inner/made").is_dir());
}

#[test]
fn many_requests_at_once_keep_the_files_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let made = (0..300).map(|i| {
        let made = entry(client.call(Request::Create { dir: root, name: name(&format!("file-{i}")), new: NEW }));
        let sync = client.start(Request::Sync { node: made.id, data_only: true }, None);
        let look = client.start(Request::GetAttr(made.id), None);
        let list = client.start(Request::ReadDir { node: root, cookie: 0, entries: false }, None);
        // Behind the requests, and so after them, however long they take.
        client.close(made.id);
        client.flush_now();
        (sync, look, list)
    });
    let made: Vec<_> = made.collect();
    // Answers come in any order; this one is the last asked and pumps those of the others.
    while made.iter().any(|(sync, look, list)| !(sync.is_done() && look.is_done() && list.is_done())) {
        client.call(Request::GetAttr(root)).unwrap();
    }
    for (sync, look, list) in made {
        assert_eq!(sync.take().unwrap().unwrap().0, Reply::Done);
        assert!(matches!(look.take().unwrap().unwrap().0, Reply::Attr(_)));
        assert!(matches!(list.take().unwrap().unwrap().0, Reply::Items { .. }));
    }
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    let client = client(&[(dir.path(), true)]);
    let root = attach(&client, 0);
    let node = walk(&client, root, "a").unwrap().id;
    let n = || name("n");
    let refused = [
        Request::Create { dir: root, name: n(), new: NEW },
        Request::MkDir { dir: root, name: n(), new: NEW },
        Request::MkNod { dir: root, name: n(), kind: Kind::Fifo, new: NEW },
        Request::Symlink { dir: root, name: n(), target: n(), new: NEW },
        Request::Link { node, dir: root, name: n() },
        Request::Unlink { dir: root, name: name("a"), is_dir: false },
        Request::Rename { dir: root, name: name("a"), new_dir: root, new_name: n(), flags: 0 },
        Request::SetAttr { node, change: Change { perm: Some(0o777), ..Change::default() } },
        Request::SetXattr { node, name: name("user.a"), value: n(), flags: 0 },
        Request::RemoveXattr { node, name: name("user.a") },
        Request::Open { node, mode: OpenMode::ReadWrite },
        Request::Allocate { node, mode: 0, offset: 0, len: 10 },
        Request::Bind { dir: root, name: n(), kind: 1, new: NEW },
    ];
    for request in refused {
        assert_eq!(client.call(request.clone()).unwrap_err(), Errno::EROFS, "{request:?}");
    }
    let (_, fd) = client.call(Request::Open { node, mode: OpenMode::Read }).unwrap();
    let written = fs::File::from(fd.unwrap()).write_at(b"y", 0);
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"x");
    let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
    assert_ne!(mode & 0o777, 0o777);
}

#[test]
fn content_is_allocated_synced_and_described() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    let client = client(&[(dir.path(), false)]);
    let root = attach(&client, 0);
    let node = walk(&client, root, "a").unwrap().id;
    client.call(Request::Allocate { node, mode: 0, offset: 0, len: 10_000 }).unwrap();
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().len(), 10_000);
    for node in [node, root] {
        client.call(Request::Sync { node, data_only: false }).unwrap();
        let Reply::StatFs(fs) = client.call(Request::StatFs(node)).unwrap().0 else { panic!() };
        assert!(fs.bsize > 0 && fs.namelen == 255);
    }
}
