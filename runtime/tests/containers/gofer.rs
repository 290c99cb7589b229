//! Containers whose files are the host's: a root that is written through, one with a layer in memory above it, binds.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

use gofer::{End, Options, Served};
use hostsys::SeqPacket;
use hostsys::opath::Magic;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sentry::boot::spec::{GoferTree, MountKind, MountSpec, Root};
use sentry::boot::{ContainerSpec, ExitStatus};
use sentry::vfs::mount::MountFlags;

use crate::sandbox::{Sandbox, all, container, on_each, script};

/// A gofer for `trees` (path, read-only) in a thread of ours.
fn serve(trees: &[(&Path, bool)]) -> (OwnedFd, JoinHandle<End>) {
    let open = |path: &Path| nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let served = trees.iter().map(|(path, readonly)| Served { root: open(path), readonly: *readonly }).collect();
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let magic = Magic::open().unwrap();
    let thread = std::thread::spawn(move || gofer::serve(&theirs, served, Options::default(), magic).unwrap());
    (ours.into_fd(), thread)
}

fn busybox(dir: &Path) -> std::path::PathBuf {
    let root = crate::common::busybox_root(dir);
    for applet in ["ls", "wc", "stat", "mkdir", "mv", "rm", "ln", "readlink", "find"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::create_dir_all(root.join("data/sub")).unwrap();
    fs::write(root.join("data/file"), "below\n").unwrap();
    fs::write(root.join("data/gone"), "gone\n").unwrap();
    root
}

const CHANGES: &str = "cd /data; echo more >> file; rm gone; mv sub dir; echo new > dir/new; ln file hard; ln -s file soft; \
                       chmod 600 file; stat -c '%h %a' file; ls; cat dir/new soft; find /data | wc -l";
const SHOWN: &str = "2 600\ndir\nfile\nhard\nsoft\nnew\nbelow\nmore\n6\n";

fn run(platform: &str, trees: &[(&Path, bool)], text: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
    let (socket, gofer) = serve(trees);
    let (init, output) = script(text);
    let mut spec = container("a", init);
    spec.gofer = Some(socket);
    change(&mut spec);
    let mut sandbox = Sandbox::started(platform, spec);
    let shown = all(output);
    assert_eq!(sandbox.end(), ExitStatus::Exited(0), "{shown}");
    drop(sandbox);
    // The gofer ends with the last who asks it.
    assert_eq!(gofer.join().unwrap(), End::Closed);
    shown
}

fn tree(index: u32, exclusive: bool) -> GoferTree {
    GoferTree { index, exclusive }
}

#[test]
fn a_root_of_the_host_is_written_through() {
    on_each(|platform| {
        for exclusive in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let root = busybox(dir.path());
            let shown = run(platform, &[(&root, false)], CHANGES, |spec| spec.root = Root::Gofer(tree(0, exclusive)));
            assert_eq!(shown, SHOWN);
            assert_eq!(fs::read_to_string(root.join("data/hard")).unwrap(), "below\nmore\n");
            assert_eq!(fs::read_to_string(root.join("data/dir/new")).unwrap(), "new\n");
            assert!(!root.join("data/gone").exists() && !root.join("data/sub").exists());
        }
    });
}

#[test]
fn changes_above_a_root_of_the_host_stay_in_memory() {
    on_each(|platform| {
        let dir = tempfile::tempdir().unwrap();
        let root = busybox(dir.path());
        let shown = run(platform, &[(&root, true)], CHANGES, |spec| spec.root = Root::GoferBelow(tree(0, true)));
        assert_eq!(shown, SHOWN);
        assert_eq!(fs::read_to_string(root.join("data/file")).unwrap(), "below\n");
        let names: Vec<_> = fs::read_dir(root.join("data")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    });
}

#[test]
fn a_large_directory_below_is_listed_whole_whatever_is_hidden() {
    on_each(|platform| {
        let dir = tempfile::tempdir().unwrap();
        let root = busybox(dir.path());
        fs::create_dir(root.join("many")).unwrap();
        for n in 0..3000 {
            fs::write(root.join(format!("many/file-with-a-longer-name-{n}")), "").unwrap();
        }
        let text = "cd /many; ls | wc -l; rm file-with-a-longer-name-1*; ls | wc -l; touch own; ls | wc -l; rm -r /many; ls / | grep -c many";
        let shown = run(platform, &[(&root, true)], &format!("{text}; true"), |spec| {
            spec.root = Root::GoferBelow(tree(0, true));
        });
        assert_eq!(shown, "3000\n1889\n1890\n0\n");
    });
}

#[test]
fn binds_of_directories_and_files_are_mounted_and_read_only_where_they_are_to_be() {
    on_each(|platform| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/in"), "in\n").unwrap();
        fs::write(dir.path().join("f"), "file\n").unwrap();
        let (d, f) = (dir.path().join("d"), dir.path().join("f"));
        let text = "cat /mnt/d/in /mnt/f; echo x > /mnt/d/out; touch /mnt/ro/x 2>&1; echo y >> /mnt/f; wc -c < /mnt/f";
        let shown = run(platform, &[(&d, false), (&f, false), (&d, true)], text, |spec| {
            for (index, destination) in ["/mnt/d", "/mnt/f", "/mnt/ro"].into_iter().enumerate() {
                spec.mounts.push(MountSpec {
                    destination: destination.as_bytes().to_vec(),
                    kind: MountKind::Gofer(tree(u32::try_from(index).unwrap(), false)),
                    flags: MountFlags::empty(),
                    data: String::new(),
                    source: b"gofer".to_vec(),
                    copy_up: false,
                });
            }
        });
        assert_eq!(shown, "in\nfile\ntouch: /mnt/ro/x: Read-only file system\n7\n");
        assert_eq!(fs::read_to_string(dir.path().join("d/out")).unwrap(), "x\n");
    });
}

#[test]
fn a_gofer_that_goes_away_is_an_error_and_no_hang() {
    on_each(|platform| {
        let dir = tempfile::tempdir().unwrap();
        let root = busybox(dir.path());
        let (gofer_end, ours) = SeqPacket::pair().unwrap();
        let open = |path: &Path| nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let served = vec![Served { root: open(&root), readonly: false }];
        let copy = hostsys::fds::dup_above(std::os::fd::AsFd::as_fd(gofer_end.fd()), 3).unwrap();
        let magic = Magic::open().unwrap();
        let thread = std::thread::spawn(move || {
            let _ = gofer::serve(&gofer_end, served, Options::default(), magic);
        });
        let (init, _output) = script("sleep 1000");
        let mut spec = container("a", init);
        spec.gofer = Some(ours.into_fd());
        spec.mounts.push(MountSpec {
            destination: b"/mnt".to_vec(),
            kind: MountKind::Gofer(tree(0, false)),
            flags: MountFlags::empty(),
            data: String::new(),
            source: b"gofer".to_vec(),
            copy_up: false,
        });
        let mut sandbox = Sandbox::started(platform, spec);
        let (shown, _) = sandbox.run("a", "ls /mnt/data | wc -l");
        assert_eq!(shown, "3\n");
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&copy), nix::sys::socket::Shutdown::Both).unwrap();
        thread.join().unwrap();
        let (shown, status) = sandbox.run("a", "ls /mnt/data/sub; ls /mnt/other");
        assert!(shown.contains("Input/output error") && status != 0, "{shown}");
    });
}
