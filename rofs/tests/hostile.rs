//! Untrusted images: whatever the bytes, no panic and an end in bounded time; and random trees survive the round trip.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use common::{build_dir, quiet};
use proptest::prelude::*;
use rofs::{Error, FileType, Follow, Reader};

/// Calls everything on an image.
fn exercise(bytes: &[u8]) {
    let Ok(reader) = Reader::open(bytes) else { return };
    let _ = rofs::verify(&reader);
    let _ = reader.walk(b"a/../b/sym", Follow::Yes);
    let mut buf = [0; 5000];
    for nid in (0..200).chain([u64::MAX, u64::MAX / 32, 1 << 59]) {
        let Ok(inode) = reader.inode(nid) else { continue };
        for offset in [0, 4095, 1 << 20, inode.size.wrapping_sub(1), u64::MAX] {
            let _ = reader.read_at(&inode, offset, &mut buf);
        }
        for extent in reader.extents(&inode, 0..u64::MAX).take(1000).flatten() {
            assert!(extent.len > 0);
            let _ = reader.extent_bytes(&extent);
            let _ = reader.tail_is_mappable(&extent);
        }
        let _ = reader.readlink(&inode);
        let _ = reader.xattr(&inode, b"user.one");
        let _ = reader.lookup(&inode, b"file");
        for cookie in [0, 12, 13, 4095, 4096, u64::MAX] {
            let _ = reader.read_dir(&inode, cookie).map(|entries| entries.take(1000).count());
        }
    }
}

/// A small image with some of everything.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let temp = tempfile::tempdir().unwrap();
        let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
        for dir in ["a", "b", "many"] {
            fs::create_dir_all(src.join(dir)).unwrap();
        }
        fs::write(src.join("a/file"), common::noise(10_000)).unwrap();
        fs::hard_link(src.join("a/file"), src.join("b/link")).unwrap();
        std::os::unix::fs::symlink("../a/file", src.join("b/sym")).unwrap();
        common::sparse_file(&src.join("sparse"), 1 << 20, &[5000, 900_000]);
        xattr::set(src.join("a/file"), "user.one", b"v").unwrap();
        xattr::set(src.join("sparse"), "user.one", b"v").unwrap();
        xattr::set(src.join("sparse"), "user.two", b"inline").unwrap();
        (0..300).for_each(|number| fs::write(src.join(format!("many/entry {number}")), "").unwrap());
        build_dir(&src, &out);
        fs::read(out).unwrap()
    })
}

/// First byte of the metadata, where damage matters most.
fn meta_start() -> usize {
    Reader::open(sample()).unwrap().superblock().meta_block as usize * 4096
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_images(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..20)) {
        let mut bytes = sample().to_vec();
        let meta = meta_start();
        for (index, value, place) in damage {
            let range = match place {
                0 => 0..bytes.len(),
                1 => 1024..1152,
                _ => meta..bytes.len(),
            };
            bytes[range.start + index.index(range.len())] = value;
        }
        exercise(&bytes);
    }

    #[test]
    fn truncated_images(index in any::<prop::sample::Index>()) {
        let bytes = sample();
        let cut = &bytes[..index.index(bytes.len())];
        exercise(cut);
        let result = Reader::open(cut);
        let refused = matches!(result, Err(Error::NotErofs | Error::Truncated { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn noise_behind_a_good_superblock(noise in proptest::collection::vec(any::<u8>(), 8192)) {
        let mut bytes = sample().to_vec();
        let meta = meta_start();
        let end = bytes.len().min(meta + noise.len());
        bytes[meta..end].copy_from_slice(&noise[..end - meta]);
        exercise(&bytes);
    }
}

#[test]
fn a_changed_superblock_fails_its_checksum() {
    let mut bytes = sample().to_vec();
    bytes[1024 + 64] ^= 1;
    let reader = Reader::open(&bytes).unwrap();
    assert!(matches!(reader.verify_checksum(), Err(Error::Checksum { .. })));
    assert_eq!(rofs::verify(&reader).len(), 1);
}

#[test]
fn unknown_features_are_refused() {
    let incompat = 1024 + 80;
    for (bit, expected) in [
        (0x2, Error::Unsupported("compression")),
        (0x8, Error::Unsupported("multiple devices")),
        (0x80, Error::Unsupported("48-bit block addresses")),
        (0x8000, Error::UnknownFeature(0x8000)),
    ] {
        let mut bytes = sample().to_vec();
        let old = u32::from_le_bytes(bytes[incompat..incompat + 4].try_into().unwrap());
        bytes[incompat..incompat + 4].copy_from_slice(&(old | bit).to_le_bytes());
        assert_eq!(Reader::open(&bytes).unwrap_err(), expected);
    }
    let mut bytes = sample().to_vec();
    bytes[1024 + 12] = 9;
    assert_eq!(Reader::open(&bytes).unwrap_err(), Error::Unsupported("a block size other than 4096 bytes"));
}

#[test]
fn a_directory_loop_is_reported() {
    let mut bytes = sample().to_vec();
    // Let the entry `a` of the root lead back to the root: names are stored once, so the root's dirent is found by
    // its nid.
    let (a, root) = {
        let reader = Reader::open(&bytes).unwrap();
        (reader.walk(b"a", Follow::No).unwrap().nid, reader.root().unwrap().nid)
    };
    let meta = meta_start();
    let at = (meta..bytes.len() - 8).find(|&at| bytes[at..at + 8] == a.to_le_bytes()).unwrap();
    bytes[at..at + 8].copy_from_slice(&root.to_le_bytes());
    let problems = rofs::verify(&Reader::open(&bytes).unwrap());
    assert!(problems.iter().any(|problem| problem.what.contains("second name")), "{problems:?}");
    exercise(&bytes);
}

/// A file of a random tree: content as (zeros in front, bytes).
#[derive(Debug, Clone)]
enum Kind {
    File(u32, Vec<u8>),
    Dir,
    Link(String),
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => (0..600_000u32, proptest::collection::vec(any::<u8>(), 0..9000)).prop_map(|(gap, data)| Kind::File(gap, data)),
        1 => Just(Kind::Dir),
        1 => "[a-z/.]{1,200}".prop_map(Kind::Link),
    ]
}

fn plant(root: &Path, tree: &BTreeMap<Vec<String>, Kind>) {
    for (path, kind) in tree {
        let path = path.iter().fold(root.to_owned(), |path, name| path.join(name));
        // A parent may be a file already: such entries are left out.
        if path.parent().is_none_or(|parent| fs::create_dir_all(parent).is_err()) || path.symlink_metadata().is_ok() {
            continue;
        }
        match kind {
            Kind::File(gap, data) => {
                let mut content = vec![0; *gap as usize];
                content.extend_from_slice(data);
                fs::write(&path, content).unwrap();
            }
            Kind::Dir => fs::create_dir(&path).unwrap(),
            Kind::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_round_trip(tree in proptest::collection::btree_map(
        proptest::collection::vec("[ -.0-~]{1,20}".prop_filter("dots", |name| name != "." && name != ".."), 1..4),
        kinds(), 0..40)) {
        let temp = tempfile::tempdir().unwrap();
        let [src, one, two] = ["src", "one", "two"].map(|name| temp.path().join(name));
        fs::create_dir(&src).unwrap();
        plant(&src, &tree);
        build_dir(&src, &one);
        build_dir(&src, &two);
        let bytes = fs::read(&one).unwrap();
        prop_assert!(bytes == fs::read(&two).unwrap(), "two builds differ");
        common::assert_same(&Reader::open(&bytes).unwrap(), &src, common::ALL);
    }

    #[test]
    fn damaged_tar_streams(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
                           cut in any::<prop::sample::Index>()) {
        let mut bytes = small_tar();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out.img");
        let built = rofs::build::from_tar(&mut &bytes[..], Path::new("tar"), &out, &mut quiet);
        match built {
            Ok(_) => prop_assert_eq!(rofs::verify(&Reader::open(&fs::read(&out).unwrap()).unwrap()), []),
            Err(_) => prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0),
        }
    }
}

/// A tar archive of a few files, made by the `tar` crate.
fn small_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    for (name, size) in [("a/file", 700), ("b", 20), (&*"long/".repeat(50), 3)] {
        header.set_size(size);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &*common::noise(size as usize)).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn file_types_are_as_promised() {
    let reader = Reader::open(sample()).unwrap();
    assert_eq!(reader.walk(b"/b/sym", Follow::No).unwrap().file_type, FileType::Symlink);
    assert_eq!(reader.walk(b"/b/sym", Follow::Yes).unwrap(), reader.walk(b"/a/file", Follow::No).unwrap());
    assert_eq!(reader.walk(b"/b/../../a/./file", Follow::No).unwrap().nlink, 2);
    assert_eq!(reader.walk(b"/nowhere", Follow::No).unwrap_err(), Error::NotFound);
    assert!(matches!(reader.walk(b"/a/file/x", Follow::No), Err(Error::NotADirectory(_))));
    let file = reader.walk(b"/a/file", Follow::No).unwrap();
    assert!(matches!(reader.readlink(&file), Err(Error::NotASymlink(_))));
    assert!(matches!(reader.read_dir(&file, 0), Err(Error::NotADirectory(_))));
}
