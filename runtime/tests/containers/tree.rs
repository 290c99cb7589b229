//! The tree: mounts, covers, devices, parameters.

use sentry::boot::spec::{DeviceSpec, MountKind, MountSpec, Root};
use sentry::boot::{Answer, ContainerSpec};
use sentry::vfs::mount::MountFlags;

use crate::sandbox::{Sandbox, all, container, image, layer, on_each, process, script};

fn mount(destination: &str, kind: MountKind, flags: MountFlags, data: &str) -> MountSpec {
    MountSpec {
        destination: destination.as_bytes().to_vec(),
        kind,
        flags,
        data: data.to_owned(),
        source: b"none".to_vec(),
        copy_up: false,
    }
}

/// What a script prints in a container that `change` has changed.
fn shows(platform: &str, text: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
    let (init, output) = script(text);
    let mut spec = container("a", init);
    change(&mut spec);
    let _sandbox = Sandbox::started(platform, spec);
    all(output)
}

#[test]
fn mounts_are_made_in_their_order_and_inside_the_root() {
    on_each(|platform| {
        let text = "echo x > /mnt/deep/er/x && cat /data/sub/x; df -k /mnt/deep/er | tail -n 1 | tr -s ' ' | head -c 12; echo; \
                    stat -c '%a %u:%g' /mnt/deep/er; touch /mnt/ro/x 2>&1; ls /dev/mqueue; grep -c 'noexec' /proc/mounts";
        let shown = shows(platform, text, |spec| {
            let nothing = MountFlags::empty();
            spec.mounts.push(mount("/mnt/deep/er", MountKind::Tmpfs, nothing, "size=64k,mode=750,uid=5,gid=6"));
            spec.mounts.push(mount("/mnt/ro", MountKind::Tmpfs, MountFlags::RDONLY, ""));
            spec.mounts.push(mount("/dev/mqueue", MountKind::Mqueue, MountFlags::NOEXEC, ""));
            let bind = MountKind::Bind { source: b"/mnt/deep/er".to_vec(), recursive: false };
            // Through a symlink of the image's.
            spec.mounts.push(mount("/link/sub", bind, nothing, ""));
        });
        assert_eq!(shown, "x\nnone 64 4 60\n750 5:6\ntouch: /mnt/ro/x: Read-only file system\n6\n");
    });
}

#[test]
fn a_read_only_root_refuses_writes_but_not_its_mounts() {
    on_each(|platform| {
        let shown = shows(platform, "touch /x 2>&1; touch /dev/shm/x && echo ok", |spec| spec.readonly_root = true);
        assert_eq!(shown, "touch: /x: Read-only file system\nok\n");
    });
}

#[test]
fn covered_paths_are_empty_and_read_only_ones_are() {
    on_each(|platform| {
        let text =
            "cat /etc/secret | wc -c; ls /data | wc -l; touch /data/x 2>&1; touch /tmp/x 2>&1; cat /etc/passwd | wc -l";
        let shown = shows(platform, text, |spec| {
            spec.masked_paths = ["/etc/secret", "/data", "/not/there"].map(|p| p.as_bytes().to_vec()).to_vec();
            spec.readonly_paths = ["/tmp", "/not/there"].map(|p| p.as_bytes().to_vec()).to_vec();
        });
        let refused = |path| format!("touch: {path}: Read-only file system\n");
        assert_eq!(shown, format!("0\n0\n{}{}2\n", refused("/data/x"), refused("/tmp/x")));
    });
}

#[test]
fn devices_files_and_parameters_are_made() {
    on_each(|platform| {
        let text = "stat -c '%A %t,%T %u' /dev/mine; head -c 3 /dev/mine | wc -c; cat /etc/made; cat /proc/sys/kernel/shmmni; hostname";
        let shown = shows(platform, text, |spec| {
            let path = b"/dev/mine".to_vec();
            spec.devices.push(DeviceSpec { path, kind: b'c', major: 1, minor: 5, mode: 0o640, uid: 7, gid: 0 });
            spec.files.push((b"/etc/made".to_vec(), 0o644, b"made\n".to_vec()));
            spec.sysctls.push(("kernel.shmmni".to_owned(), "123".to_owned()));
            spec.hostname = b"h".to_vec();
        });
        assert_eq!(shown, "crw-r----- 1,5 7\n3\nmade\n123\nh\n");
    });
}

#[test]
fn a_symlink_that_leads_nowhere_gets_its_target() {
    on_each(|platform| {
        let shown = shows(platform, "cat /nowhere/deep/file", |spec| {
            let bind = MountKind::Bind { source: b"/data/file".to_vec(), recursive: false };
            spec.mounts.push(mount("/dangling", bind, MountFlags::empty(), ""));
        });
        assert_eq!(shown, "data\n");
    });
}

#[test]
fn a_tmpfs_begins_with_what_it_covers() {
    on_each(|platform| {
        let shown = shows(
            platform,
            "cat /bin/../data/file; echo more >> /data/file; cat /data/file; ls -l /data | wc -l",
            |spec| {
                let mut covering = mount("/data", MountKind::Tmpfs, MountFlags::empty(), "size=64k");
                covering.copy_up = true;
                spec.mounts.push(covering);
            },
        );
        assert_eq!(shown, "data\ndata\nmore\n2\n");
    });
}

#[test]
fn layers_are_one_root() {
    on_each(|platform| {
        let text =
            "cat /etc/secret /extra/file /data/file; echo mine > /etc/secret; cat /etc/secret; wc -l < /etc/passwd";
        let shown = shows(platform, text, |spec| spec.root = Root::Layers(vec![image(), layer()]));
        assert_eq!(shown, "above\nextra\ndata\nmine\n2\n");
    });
}

#[test]
fn a_container_sees_its_control_group() {
    on_each(|platform| {
        let text = "cd /sys/fs/cgroup; cat pids.max cpu.max memory.max cgroup.procs; grep -c usage_usec cpu.stat; \
                    touch x 2>/dev/null || echo refused; cat /proc/self/cgroup";
        let shown = shows(platform, text, |spec| {
            spec.mounts.push(mount("/sys/fs/cgroup", MountKind::Cgroup, MountFlags::RDONLY, ""));
            (spec.limits.pids, spec.limits.cpu_millis) = (Some(50), Some(1500));
        });
        assert_eq!(shown, "50\n150000 100000\nmax\n1\n2\n1\nrefused\n0::/\n");
    });
}

#[test]
fn what_cannot_be_mounted_refuses_the_container() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        for (destination, data, word) in [("/etc/passwd/x", "", "/etc/passwd/x"), ("/mnt", "size=much", "/mnt")] {
            let (init, _output) = process(&["true"]);
            let mut spec = container("b", init);
            spec.mounts.push(mount(destination, MountKind::Tmpfs, MountFlags::empty(), data));
            let (_, sentence) = sandbox.ask(sentry::boot::Control::Create(Box::new(spec))).unwrap_err();
            assert!(sentence.contains(word), "{sentence}");
        }
        let (init, output) = process(&["echo", "fine"]);
        sandbox.add(container("b", init));
        assert_eq!(all(output), "fine\n");
        let destroy = sentry::boot::Control::Destroy { id: "b".to_owned() };
        assert_eq!(sandbox.ask(destroy), Ok(Answer::Done));
    });
}
