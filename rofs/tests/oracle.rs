//! Outside judges: fsck.erofs and the kernel on our images, our reader on the images of mkfs.erofs.
#![allow(missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{ALL, Expect, assert_same, build_dir, fsck, is_root, open, sample_tree, skip, tool};

#[test]
fn our_images_read_back_and_pass_fsck() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    sample_tree(&src);
    let summary = build_dir(&src, &out);
    assert_eq!(summary.image_bytes, fs::metadata(&out).unwrap().len());
    let image = open(&out);
    assert_eq!(image.superblock().uuid, summary.uuid);
    assert_eq!(image.superblock().inodes, summary.inodes);
    assert!(image.superblock().has_checksum());
    assert_same(&image.reader(), &src, ALL);
    fsck(&out);
}

#[test]
fn an_empty_directory_is_an_image() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    build_dir(&src, &out);
    assert_same(&open(&out).reader(), &src, ALL);
    fsck(&out);
}

/// The metadata ends at each possible place of a block; fsck.erofs reads past the last inode.
#[test]
fn the_end_of_the_metadata_may_be_anywhere() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    for number in 0..130 {
        fs::write(src.join(format!("{number}")), "").unwrap();
        build_dir(&src, &out);
        fsck(&out);
    }
}

/// A kernel mount, undone on drop.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn the_kernel_serves_the_same_tree() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let temp = tempfile::tempdir().unwrap();
    let [src, out, mnt] = ["src", "out.img", "mnt"].map(|name| temp.path().join(name));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&mnt).unwrap();
    sample_tree(&src);
    build_dir(&src, &out);
    let mount = Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).args([&out, &mnt]).output().unwrap();
    if !mount.status.success() {
        return skip(&format!("the kernel does not mount EROFS: {}", String::from_utf8_lossy(&mount.stderr)));
    }
    let _mounted = Mounted(&mnt);
    // The reader agrees with both the kernel's view and the source, so the two agree.
    let image = open(&out);
    assert_same(&image.reader(), &mnt, ALL);
    assert_same(&image.reader(), &src, ALL);
}

#[test]
fn mkfs_images_are_served() {
    let variants: [(&str, Expect); 8] = [
        ("", ALL),
        ("-Eforce-inode-extended", ALL),
        ("-Eforce-inode-compact --all-root", Expect { times: false, owners: false }),
        ("-Enoinline_data", ALL),
        ("--chunksize=4096", ALL),
        ("--chunksize=65536", ALL),
        ("--chunksize=4096 -Eforce-chunk-indexes", ALL),
        ("-x1", ALL),
    ];
    let temp = tempfile::tempdir().unwrap();
    let src = temp.path().join("src");
    fs::create_dir(&src).unwrap();
    sample_tree(&src);
    // mkfs.erofs 1.5 fails on names of 255 bytes ("No such file or directory"); 254 are fine.
    fs::rename(src.join("n".repeat(255)), src.join("n".repeat(254))).unwrap();
    for (number, (flags, expect)) in variants.into_iter().enumerate() {
        let out = temp.path().join(format!("{number}.img"));
        let mut args: Vec<&OsStr> = flags.split_whitespace().map(OsStr::new).collect();
        args.extend([out.as_os_str(), src.as_os_str()]);
        let Some(output) = tool("mkfs.erofs", &args) else { return };
        assert!(output.status.success(), "mkfs.erofs {flags}: {}", String::from_utf8_lossy(&output.stderr));
        assert_same(&open(&out).reader(), &src, expect);
    }
}

#[test]
fn compressed_images_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let (src, out) = (temp.path().join("src"), temp.path().join("out.img"));
    fs::create_dir(&src).unwrap();
    fs::write(src.join("text"), "all work and no play ".repeat(10_000)).unwrap();
    let Some(output) = tool("mkfs.erofs", &["-zlz4".as_ref(), out.as_os_str(), src.as_os_str()]) else { return };
    assert!(output.status.success());
    let image = rofs::Image::open(fs::read(&out).unwrap());
    let refusal = match image {
        Err(error) => error,
        Ok(image) => {
            let reader = image.reader();
            reader.walk(b"/text", rofs::Follow::No).unwrap_err()
        }
    };
    assert_eq!(refusal, rofs::Error::Unsupported("compression"));
}
