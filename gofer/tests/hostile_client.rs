//! What a sandbox process that an attacker has taken over can send.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use common::{NEW, attach, client, start, walk};
use gofer::{End, Options};
use gofer_proto::codec::{decode_answer, encode_request};
use gofer_proto::message::{Kind, NodeId, OpenMode};
use gofer_proto::{Client, Reply, Request, VERSION};

const SECRET: &str = "not served";

/// A served directory beside a secret.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("served")).unwrap();
    fs::write(dir.path().join("secret"), SECRET).unwrap();
    dir
}

#[test]
fn names_that_are_no_components_are_refused() {
    let dir = place();
    let client = client(&[(&dir.path().join("served"), false)]);
    let root = attach(&client, 0);
    let absolute = dir.path().join("secret").to_str().unwrap().as_bytes().to_vec();
    let bad =
        [b"..".to_vec(), b".".to_vec(), b"".to_vec(), b"/".to_vec(), b"../secret".to_vec(), b"a\0b".to_vec(), absolute];
    for name in bad {
        let n = || name.clone();
        let ok = || b"ok".to_vec();
        let requests = [
            Request::Walk { node: root, names: vec![n()] },
            Request::Walk { node: root, names: vec![ok(), n()] },
            Request::Create { dir: root, name: n(), new: NEW },
            Request::MkDir { dir: root, name: n(), new: NEW },
            Request::MkNod { dir: root, name: n(), kind: Kind::Fifo, new: NEW },
            Request::Symlink { dir: root, name: n(), target: ok(), new: NEW },
            Request::Link { node: root, dir: root, name: n() },
            Request::Unlink { dir: root, name: n(), is_dir: false },
            Request::Unlink { dir: root, name: n(), is_dir: true },
            Request::Rename { dir: root, name: n(), new_dir: root, new_name: ok(), flags: 0 },
            Request::Rename { dir: root, name: ok(), new_dir: root, new_name: n(), flags: 0 },
            Request::Bind { dir: root, name: n(), kind: 1, new: NEW },
        ];
        for request in requests {
            assert_eq!(client.call(request.clone()).unwrap_err(), Errno::EINVAL, "{request:?}");
        }
    }
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), SECRET);
}

#[test]
fn symlinks_lead_nowhere() {
    let dir = place();
    let served = dir.path().join("served");
    symlink(dir.path().join("secret"), served.join("file")).unwrap();
    symlink("..", served.join("up")).unwrap();
    symlink("/", served.join("root")).unwrap();
    symlink("/proc/self/fd", served.join("magic")).unwrap();
    let client = client(&[(&served, false)]);
    let root = attach(&client, 0);
    for name in ["file", "up", "root", "magic"] {
        let found = walk(&client, root, name).unwrap();
        assert_eq!(found.attr.kind, Kind::Symlink);
        let node = found.id;
        assert_eq!(client.call(Request::Open { node, mode: OpenMode::Read }).unwrap_err(), Errno::ELOOP);
        let beyond = Request::Walk { node, names: vec![b"secret".to_vec()] };
        assert_eq!(client.call(beyond).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(client.call(Request::ReadDir { node, cookie: 0, entries: true }).unwrap_err(), Errno::ENOTDIR);
        let below = Request::Create { dir: node, name: b"x".to_vec(), new: NEW };
        assert_eq!(client.call(below).unwrap_err(), Errno::ENOTDIR);
        assert!(walk(&client, root, &format!("{name}/secret")).is_err());
    }
    // A symlink where something shall be made is an existing name, whatever it points to.
    symlink(dir.path().join("absent"), served.join("dangling")).unwrap();
    let make = Request::Create { dir: root, name: b"dangling".to_vec(), new: NEW };
    assert_eq!(client.call(make).unwrap_err(), Errno::EEXIST);
    assert!(!dir.path().join("absent").exists());
}

/// While one thread swaps a directory for a symlink that leads out, walks and creations must never get out.
#[test]
fn a_race_of_directory_and_symlink_never_escapes() {
    let dir = place();
    let served = dir.path().join("served");
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), SECRET).unwrap();
    fs::create_dir(served.join("real")).unwrap();
    symlink(dir.path().join("outside"), served.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (served, stop) = (served.clone(), stop.clone());
        std::thread::spawn(move || {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (served.join("real"), served.join("link"));
                renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        })
    };
    let client = client(&[(&served, false)]);
    let root = attach(&client, 0);
    for i in 0..3000 {
        assert!(walk(&client, root, "real/secret").is_err(), "escaped in round {i}");
        if let Ok(found) = walk(&client, root, "real") {
            let name = format!("made-{i}").into_bytes();
            let _ = client.call(Request::Create { dir: found.id, name, new: NEW });
            client.close(found.id);
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
}

/// A directory that is held and then moved out of what is served stays what it was: no way up from it.
#[test]
fn a_held_directory_that_moves_gives_no_way_up() {
    let dir = place();
    let served = dir.path().join("served");
    fs::create_dir_all(served.join("a/b")).unwrap();
    let client = client(&[(&served, false)]);
    let root = attach(&client, 0);
    let held = walk(&client, root, "a/b").unwrap().id;
    fs::rename(served.join("a/b"), dir.path().join("b")).unwrap();
    let up = Request::Walk { node: held, names: vec![b"..".to_vec(), b"secret".to_vec()] };
    assert_eq!(client.call(up).unwrap_err(), Errno::EINVAL);
    assert_eq!(walk(&client, held, "secret").unwrap_err(), Errno::ENOENT);
}

#[test]
fn ids_that_are_not_held_find_nothing() {
    let dir = place();
    let client = client(&[(&dir.path().join("served"), false)]);
    let root = attach(&client, 0);
    let stale = walk_made(&client, root);
    client.close(stale);
    client.flush_now();
    for node in [stale, NodeId(0), NodeId(u64::MAX), NodeId(root.0 + 1000)] {
        assert_eq!(client.call(Request::GetAttr(node)).unwrap_err(), Errno::EBADF);
        assert_eq!(client.call(Request::ReadDir { node, cookie: 0, entries: false }).unwrap_err(), Errno::EBADF);
        client.close(node);
    }
    assert_eq!(client.call(Request::Attach(1)).unwrap_err(), Errno::ENOENT);
    assert_eq!(client.call(Request::Attach(u32::MAX)).unwrap_err(), Errno::ENOENT);
    // Cookies are the host's; others must do no harm.
    for cookie in [1, 77, u64::MAX, u64::MAX >> 1] {
        let _ = client.call(Request::ReadDir { node: root, cookie, entries: true });
    }
    client.call(Request::GetAttr(root)).unwrap();
}

fn walk_made(client: &Arc<Client>, root: NodeId) -> NodeId {
    common::entry(client.call(Request::Create { dir: root, name: b"f".to_vec(), new: NEW })).id
}

#[test]
fn the_number_of_held_files_is_limited() {
    let dir = place();
    let options = Options { max_nodes: 10, ..Options::default() };
    let (socket, _) = start(&[(&dir.path().join("served"), false)], options);
    let client = Client::connect(socket).unwrap();
    let root = attach(&client, 0);
    let first = walk_made(&client, root);
    for _ in 0..8 {
        walk(&client, root, "f").unwrap();
    }
    assert_eq!(walk(&client, root, "f").unwrap_err(), Errno::ENFILE);
    let make = Request::Create { dir: root, name: b"more".to_vec(), new: NEW };
    assert_eq!(client.call(make).unwrap_err(), Errno::ENFILE);
    assert!(!dir.path().join("served/more").exists());
    client.close(first);
    client.flush_now();
    walk(&client, root, "f").unwrap();
}

#[test]
fn devices_and_pipes_are_never_opened() {
    let dir = place();
    let served = dir.path().join("served");
    nix::unistd::mkfifo(&served.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(served.join("sock")).unwrap();
    let client = client(&[(&served, false), (std::path::Path::new("/dev"), true)]);
    let (root, dev) = (attach(&client, 0), attach(&client, 1));
    for (dir, name) in [(root, "fifo"), (root, "sock"), (dev, "null"), (dev, "zero")] {
        let node = walk(&client, dir, name).unwrap().id;
        assert_eq!(client.call(Request::Open { node, mode: OpenMode::Read }).unwrap_err(), Errno::ENXIO);
        // Sockets are for who was allowed them.
        assert_eq!(client.call(Request::Connect { node, kind: 1 }).unwrap_err(), Errno::ECONNREFUSED);
    }
    let node = walk(&client, root, "fifo").unwrap().id;
    let over = Request::Link { node, dir: dev, name: b"x".to_vec() };
    assert_eq!(client.call(over).unwrap_err(), Errno::EROFS);
}

#[test]
fn sockets_are_connected_and_bound_where_allowed() {
    let dir = place();
    let served = dir.path().join("served");
    let listener = std::os::unix::net::UnixListener::bind(served.join("sock")).unwrap();
    let options = Options { uds_connect: true, uds_bind: true, ..Options::default() };
    let (socket, _) = start(&[(&served, false)], options);
    let client = Client::connect(socket).unwrap();
    let root = attach(&client, 0);
    let node = walk(&client, root, "sock").unwrap().id;
    let kind = libc::SOCK_STREAM.cast_unsigned();
    let (_, fd) = client.call(Request::Connect { node, kind }).unwrap();
    let mut stream = std::os::unix::net::UnixStream::from(fd.unwrap());
    std::io::Write::write_all(&mut stream, b"hi").unwrap();
    let mut got = [0; 2];
    std::io::Read::read_exact(&mut listener.accept().unwrap().0, &mut got).unwrap();
    assert_eq!(&got, b"hi");
    let bind = Request::Bind { dir: root, name: b"mine".to_vec(), kind, new: NEW };
    let made = common::entry(client.call(bind));
    assert_eq!((made.attr.kind, made.attr.uid, made.attr.perm), (Kind::Socket, 1000, 0o640));
    let long = Request::Bind { dir: root, name: vec![b'x'; 200], kind, new: NEW };
    assert_eq!(client.call(long).unwrap_err(), Errno::ENAMETOOLONG);
    assert_eq!(client.call(Request::Connect { node, kind: 3 }).unwrap_err(), Errno::EPROTOTYPE);
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let dir = place();
    let served = dir.path().join("served");
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..300 {
        let (socket, thread) = start(&[(&served, false)], Options::default());
        socket.send(&encode_request(0, &Request::Hello(VERSION)).unwrap(), &[]).unwrap();
        socket.receive().unwrap();
        let junk: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let fds = if round % 3 == 0 { vec![dir_fd(&served)] } else { vec![] };
        let borrowed: Vec<_> = fds.iter().map(|f| f.as_fd()).collect();
        if junk.is_empty() {
            drop(socket);
        } else {
            let _ = socket.send(&junk, &borrowed);
            drop(socket);
        }
        assert!(matches!(thread.join().unwrap(), End::Closed | End::BadClient));
    }
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), SECRET);
}

fn dir_fd(path: &std::path::Path) -> std::os::fd::OwnedFd {
    common::o_path(path)
}

#[test]
fn nothing_is_served_before_the_handshake() {
    let dir = place();
    let (socket, _) = start(&[(&dir.path().join("served"), false)], Options::default());
    for (id, request) in [(1, Request::Attach(0)), (2, Request::Hello(VERSION + 1)), (3, Request::Attach(0))] {
        socket.send(&encode_request(id, &request).unwrap(), &[]).unwrap();
        let (got, answer) = decode_answer(&socket.receive().unwrap().bytes).unwrap();
        assert_eq!((got, answer), (id, Err(libc::EPROTO as u16)));
    }
}

#[test]
fn many_requests_in_flight_are_all_answered() {
    let dir = place();
    let client = client(&[(&dir.path().join("served"), false)]);
    let root = attach(&client, 0);
    let tickets: Vec<_> = (0..3000).map(|_| client.start(Request::GetAttr(root), None)).collect();
    for ticket in &tickets {
        while !ticket.is_done() {
            client.call(Request::GetAttr(root)).unwrap();
        }
        assert!(matches!(ticket.take(), Some(Ok((Reply::Attr(_), None)))));
        assert!(ticket.take().is_none());
    }
}
