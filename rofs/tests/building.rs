//! The builder: tar streams, determinism, and failures that leave nothing behind.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::{ALL, Expect, assert_same, build_dir, fsck, is_root, open, quiet, sample_tree, skip};
use rofs::build::{BuildError, Options, Summary, from_dir, from_tar};
use rofs::{Follow, Image};

fn tar_image(bytes: &[u8]) -> Result<Image<Vec<u8>>, BuildError> {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out.img");
    let built = from_tar(&mut &bytes[..], Path::new("input.tar"), &out, &mut quiet);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), usize::from(built.is_ok()), "files left behind");
    built.map(|_: Summary| {
        fsck(&out);
        let image = open(&out);
        assert_eq!(rofs::verify(&image.reader()), []);
        image
    })
}

/// Runs GNU tar over the sample tree and compares the image of its output with the tree.
fn gnu_tar(flags: &[&str], expect: Expect) {
    let temp = tempfile::tempdir().unwrap();
    let src = temp.path().join("src");
    fs::create_dir(&src).unwrap();
    sample_tree(&src);
    // Tar has no sockets.
    fs::remove_file(src.join("sock")).unwrap();
    if !expect.times {
        // The GNU format has neither extended attributes.
        strip_xattrs(&src);
    }
    let output = Command::new("tar").args(flags).args(["-cf", "-", "-C"]).arg(&src).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let image = tar_image(&output.stdout).unwrap();
    assert_same(&image.reader(), &src, expect);
}

fn strip_xattrs(dir: &Path) {
    for path in [dir.join("a"), dir.join("a/file"), dir.join("300k"), dir.join("long link")] {
        let names: Vec<_> = xattr::list(&path).unwrap().collect();
        names.iter().for_each(|name| xattr::remove(&path, name).unwrap());
    }
}

#[test]
fn gnu_tar_posix_format() {
    gnu_tar(&["--format=posix", "--xattrs", "--xattrs-include=*"], ALL);
}

#[test]
fn gnu_tar_sparse_formats() {
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        gnu_tar(&["--format=posix", "--sparse", &version, "--xattrs", "--xattrs-include=*"], ALL);
    }
}

#[test]
fn gnu_tar_gnu_format() {
    let no_nanoseconds = Expect { times: false, owners: true };
    gnu_tar(&["--format=gnu"], no_nanoseconds);
    gnu_tar(&["--format=gnu", "--sparse"], no_nanoseconds);
}

/// Appends an entry without data.
fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o700);
    header.set_size(data.len() as u64);
    if link.is_empty() {
        tar.append_data(&mut header, path, data).unwrap();
    } else {
        tar.append_link(&mut header, path, link).unwrap();
    }
}

#[test]
fn tar_entries_mean_what_extracting_them_would() {
    use tar::EntryType as T;
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, T::Regular, "usr/lib/first", "", b"1");
    entry(&mut tar, T::Symlink, "lib", "/usr/lib", b"");
    entry(&mut tar, T::Regular, "lib/second", "", b"2");
    entry(&mut tar, T::Regular, "usr/lib/first", "", b"replaced");
    entry(&mut tar, T::Link, "hard", "lib/first", b"");
    entry(&mut tar, T::Directory, "usr", "", b"");
    let image = tar_image(&tar.into_inner().unwrap()).unwrap();
    let reader = image.reader();
    let mut buf = [0; 16];
    let first = reader.walk(b"/lib/first", Follow::No).unwrap();
    assert_eq!(reader.read_at(&first, 0, &mut buf).unwrap(), 8);
    assert_eq!(&buf[..8], b"replaced");
    assert_eq!(reader.walk(b"/hard", Follow::No).unwrap(), first);
    assert_eq!(first.nlink, 2);
    assert!(reader.walk(b"/usr/lib/second", Follow::No).is_ok());
    assert_eq!(reader.walk(b"/usr", Follow::No).unwrap().mode, 0o040_700);
    assert_eq!(reader.walk(b"/usr/lib", Follow::No).unwrap().mode, 0o040_755);
}

#[test]
fn bad_tar_streams_are_named() {
    use tar::EntryType as T;
    let message = |tar: &[u8]| tar_image(tar).unwrap_err().to_string();
    assert!(message(b"").contains("truncated"));
    assert!(message(&[0x1f, 0x8b].repeat(400)).contains("gzip"));
    assert!(message(&[7; 2000]).contains("not a tar archive"));
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, T::Regular, "file", "", &[1; 5000]);
    let bytes = tar.into_inner().unwrap();
    assert!(message(&bytes[..3000]).contains("truncated"));
    assert!(message(&bytes[..512 + 5120]).contains("truncated"));
    let one = |kind, path: &str, link: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        entry(&mut tar, T::Regular, "file", "", b"x");
        entry(&mut tar, kind, path, link, b"");
        message(&tar.into_inner().unwrap())
    };
    assert!(one(T::Link, "hard", "nowhere").contains("nowhere"));
    assert!(one(T::Regular, "file/below", "").contains("not a directory"));
    assert!(one(T::Regular, &"n".repeat(256), "").contains("255"));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let [src, one, two] = ["src", "one", "two"].map(|name| temp.path().join(name));
    fs::create_dir(&src).unwrap();
    sample_tree(&src);
    let first = build_dir(&src, &one);
    let second = build_dir(&src, &two);
    assert_eq!(first, second);
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    fs::write(src.join("1"), "?").unwrap();
    assert_ne!(build_dir(&src, &two).uuid, first.uuid, "the UUID names the content");
}

#[test]
fn a_cancelled_build_leaves_the_old_image() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dir) = (temp.path().join("src"), temp.path().join("dir"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dir).unwrap();
    sample_tree(&src);
    let out = dir.join("out.img");
    fs::write(&out, "old").unwrap();
    let mut calls = 0;
    let mut cancel = |progress: &rofs::build::Progress<'_>| {
        calls += 1;
        if progress.files > 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = from_dir(&src, &out, &Options::default(), &mut cancel).unwrap_err();
    assert!(matches!(error, BuildError::Cancelled));
    assert!(calls > 2);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    build_dir(&src, &out);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o644);
    assert_same(&open(&out).reader(), &src, ALL);
}

#[test]
fn an_image_inside_its_source_is_left_out() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("file"), "x").unwrap();
    let out = temp.path().join("out.img");
    let first = build_dir(temp.path(), &out);
    let again = build_dir(temp.path(), &out);
    assert_eq!((first.inodes, again.inodes), (2, 2));
}

/// A small tmpfs, unmounted on drop.
struct Tmpfs<'p>(&'p Path);

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_left_clean() {
    if !is_root() {
        return skip("mounting a small tmpfs needs root");
    }
    let temp = tempfile::tempdir().unwrap();
    let (src, small) = (temp.path().join("src"), temp.path().join("small"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&small).unwrap();
    fs::write(src.join("a small one"), "x").unwrap();
    fs::write(src.join("the large one"), common::noise(2 << 20)).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small).status().unwrap();
    assert!(mount.success());
    let _mounted = Tmpfs(&small);
    let error = from_dir(&src, &small.join("out.img"), &Options::default(), &mut quiet).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BuildError::NoSpace { .. }), "{text}");
    assert!(text.contains("the large one") && text.contains("out.img") && text.contains("free some space"), "{text}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn a_missing_source_or_output_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let nowhere = temp.path().join("nowhere");
    let build = |src: &Path, out: &Path| from_dir(src, out, &Options::default(), &mut quiet).unwrap_err().to_string();
    let error = build(&nowhere, &temp.path().join("out.img"));
    assert!(error.contains("cannot read") && error.contains("nowhere"), "{error}");
    let error = build(temp.path(), &nowhere.join("out.img"));
    assert!(error.contains("cannot write") && error.contains("nowhere"), "{error}");
    let mut file = fs::File::create(temp.path().join("plain")).unwrap();
    file.write_all(b"x").unwrap();
    let error = build(&temp.path().join("plain"), &temp.path().join("out.img"));
    assert!(error.contains("plain"), "{error}");
}
