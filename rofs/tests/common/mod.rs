//! Helpers of the tests: a sample tree, comparison of an image with a directory, and outside judges.
#![allow(dead_code, reason = "each test file uses some of these")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use nix::sys::time::TimeSpec;
use rofs::build::{self, Options, Progress, Summary};
use rofs::{FileType, Image, Inode, Reader};

/// A progress callback that says nothing.
pub fn quiet(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Builds `src` into `out`.
pub fn build_dir(src: &Path, out: &Path) -> Summary {
    build::from_dir(src, out, &Options::default(), &mut quiet).unwrap()
}

/// Opens an image file by reading it.
pub fn open(path: &Path) -> Image<Vec<u8>> {
    Image::open(fs::read(path).unwrap()).unwrap()
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test is skipped; in CI nothing may be skipped.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "cannot be tested here: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs a tool of erofs-utils; `None` when it is not installed.
pub fn tool(name: &str, args: &[&OsStr]) -> Option<std::process::Output> {
    match Command::new(name).args(args).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("{name} is not installed (apt-get install erofs-utils)"));
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Lets `fsck.erofs` judge an image.
pub fn fsck(image: &Path) {
    if let Some(output) = tool("fsck.erofs", &["--extract".as_ref(), image.as_ref()]) {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success() && !text.contains("<E>"), "fsck.erofs: {} {text}", output.status);
    }
}

/// Deterministic bytes without zeros.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    (0..len).map(|_| next()).collect()
}

/// A tree with some of everything. Devices, owners and `trusted.` attributes only as root.
pub fn sample_tree(root: &Path) {
    for dir in ["a", "b", "b/with space", "empty", "many", "wide"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::write(root.join("a/file"), "hello\n").unwrap();
    fs::hard_link(root.join("a/file"), root.join("b/link")).unwrap();
    symlink("../a/file", root.join("b/sym")).unwrap();
    symlink("y".repeat(3000), root.join("long link")).unwrap();
    symlink("x".repeat(4095), root.join("longest link")).unwrap();
    for (name, size) in [("0", 0), ("1", 1), ("4095", 4095), ("4096", 4096), ("4097", 4097), ("300k", 300_000)] {
        fs::write(root.join(name), noise(size)).unwrap();
    }
    fs::write(root.join("zeros"), vec![0; 10_000]).unwrap();
    fs::write(root.join("n".repeat(255)), "255").unwrap();
    for name in ["!", "-", ".hidden", "..x", "\u{e9}\u{1f980}", "\u{1}"] {
        fs::write(root.join(name), name).unwrap();
    }
    sparse_file(&root.join("sparse"), 5 << 20, &[0, 70_000, 3 << 20]);
    for number in 0..2000 {
        fs::write(root.join(format!("many/{number:05}")), "").unwrap();
    }
    // Entries that fill blocks unevenly.
    for number in 0..300 {
        fs::write(root.join(format!("wide/{number:03}{}", "w".repeat(number % 250))), "").unwrap();
    }
    mknod(&root.join("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap());
    xattr::set(root.join("a/file"), "user.one", b"shared value").unwrap();
    xattr::set(root.join("300k"), "user.one", b"shared value").unwrap();
    xattr::set(root.join("300k"), "user.big", &noise(3000)).unwrap();
    xattr::set(root.join("a"), "user.empty", b"").unwrap();
    set_mtime(&root.join("4096"), -2, 500_000_001);
    set_mtime(&root.join("4097"), 1 << 33, 0);
    if is_root() {
        privileged_samples(root);
    }
}

fn privileged_samples(root: &Path) {
    mknod(&root.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&root.join("disk"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), makedev(259, 300_000)).unwrap();
    std::os::unix::fs::lchown(root.join("1"), Some(70_000), Some(4_000_000_000)).unwrap();
    std::os::unix::fs::lchown(root.join("b/sym"), Some(7), Some(8)).unwrap();
    xattr::set(root.join("long link"), "trusted.binary", b"\n=\0\xff").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o6755);
    fs::set_permissions(root.join("4095"), mode).unwrap();
}

/// A sparse file of `size` bytes with 100 bytes of data at each of `at`.
pub fn sparse_file(path: &Path, size: u64, at: &[u64]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    at.iter().for_each(|&offset| file.write_all_at(&noise(100), offset).unwrap());
}

fn set_mtime(path: &Path, sec: i64, nsec: i64) {
    let time = TimeSpec::new(sec, nsec);
    nix::sys::stat::utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &time,
        &time,
        nix::sys::stat::UtimensatFlags::NoFollowSymlink,
    )
    .unwrap();
}

/// What to compare besides content.
#[derive(Clone, Copy)]
pub struct Expect {
    pub times: bool,
    pub owners: bool,
}

pub const ALL: Expect = Expect { times: true, owners: true };

/// Compares the image with the directory it was made from.
pub fn assert_same(reader: &Reader<'_>, dir: &Path, expect: Expect) {
    assert_eq!(rofs::verify(reader), [], "our own verification");
    let mut links = BTreeMap::new();
    same(reader, reader.root().unwrap(), dir, expect, &mut links);
}

fn same(reader: &Reader<'_>, inode: Inode, path: &Path, expect: Expect, links: &mut BTreeMap<u64, u64>) {
    let host = fs::symlink_metadata(path).unwrap();
    assert_eq!(u32::from(inode.mode), host.mode(), "mode of {}", path.display());
    if expect.owners {
        assert_eq!((inode.uid, inode.gid), (host.uid(), host.gid()), "owner of {}", path.display());
    }
    if expect.times {
        let time = (inode.mtime_sec, i64::from(inode.mtime_nsec));
        assert_eq!(time, (host.mtime(), host.mtime_nsec()), "mtime of {}", path.display());
    }
    assert_eq!(u64::from(inode.nlink), host.nlink(), "links of {}", path.display());
    assert_eq!(*links.entry(host.ino()).or_insert(inode.nid), inode.nid, "identity of {}", path.display());
    same_xattrs(reader, &inode, path);
    let host_type = host.file_type();
    match inode.file_type {
        FileType::Regular => same_data(reader, &inode, path, host.len()),
        FileType::Symlink => {
            let target = fs::read_link(path).unwrap();
            assert_eq!(reader.readlink(&inode).unwrap(), target.as_os_str().as_bytes());
        }
        FileType::CharDevice | FileType::BlockDevice => {
            let rdev = (u64::from(inode.rdev.0), u64::from(inode.rdev.1));
            assert_eq!(rdev, (major(host.rdev()), minor(host.rdev())), "device of {}", path.display());
        }
        FileType::Fifo => assert!(host_type.is_fifo()),
        FileType::Socket => assert!(host_type.is_socket()),
        FileType::Directory => same_dir(reader, &inode, path, expect, links),
    }
}

fn same_dir(reader: &Reader<'_>, dir: &Inode, path: &Path, expect: Expect, links: &mut BTreeMap<u64, u64>) {
    let mut expected: Vec<Vec<u8>> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    expected.extend([b".".to_vec(), b"..".to_vec()]);
    expected.sort();
    let entries: Vec<_> = reader.read_dir(dir, 0).unwrap().map(Result::unwrap).collect();
    let names: Vec<Vec<u8>> = entries.iter().map(|entry| entry.name.to_vec()).collect();
    assert_eq!(names, expected, "entries of {}", path.display());
    for (index, entry) in entries.iter().enumerate() {
        // Each cookie leads to the next entry, each name is found.
        let next = reader.read_dir(dir, entry.next).unwrap().next().map(Result::unwrap);
        assert_eq!(next.as_ref(), entries.get(index + 1));
        assert_eq!(reader.lookup(dir, entry.name).unwrap().as_ref(), Some(entry));
        if !matches!(entry.name, b"." | b"..") {
            let inode = reader.inode(entry.nid).unwrap();
            assert_eq!(inode.file_type, entry.file_type);
            same(reader, inode, &path.join(OsStr::from_bytes(entry.name)), expect, links);
        }
    }
    for absent in [&b"no such name"[..], b"\xff\xff", b"\x01\x01", b"", b"many/"] {
        assert_eq!(reader.lookup(dir, absent).unwrap(), None);
    }
}

fn same_data(reader: &Reader<'_>, inode: &Inode, path: &Path, size: u64) {
    assert_eq!(inode.size, size, "size of {}", path.display());
    let file = fs::File::open(path).unwrap();
    let (mut expected, mut actual) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(size - offset).unwrap().min(expected.len());
        file.read_exact_at(&mut expected[..len], offset).unwrap();
        assert_eq!(reader.read_at(inode, offset, &mut actual).unwrap(), len);
        assert!(expected[..len] == actual[..len], "data of {} at {offset}", path.display());
        offset += len as u64;
    }
    assert_eq!(reader.read_at(inode, size, &mut actual).unwrap(), 0);
    assert_eq!(reader.read_at(inode, u64::MAX, &mut actual).unwrap(), 0);
}

fn same_xattrs(reader: &Reader<'_>, inode: &Inode, path: &Path) {
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = xattr::list(path)
        .unwrap()
        .map(|name| (name.as_bytes().to_vec(), xattr::get(path, &name).unwrap().unwrap()))
        .collect();
    let actual: BTreeMap<Vec<u8>, Vec<u8>> = reader
        .xattrs(inode)
        .unwrap()
        .map(|xattr| xattr.unwrap())
        .map(|xattr| (xattr.name(), xattr.value.to_vec()))
        .collect();
    assert_eq!(actual, expected, "xattrs of {}", path.display());
    for (name, value) in &expected {
        assert_eq!(reader.xattr(inode, name).unwrap(), Some(&value[..]));
    }
    assert_eq!(reader.xattr(inode, b"user.absent").unwrap(), None);
}
