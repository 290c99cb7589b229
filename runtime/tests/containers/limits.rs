//! Limits, what is used, and what a process may do.

use sentry::boot::spec::{CapabilitySets, Filter, ResourceLimits, Rlimit};
use sentry::boot::{Answer, Control, Event, ProcessSpec, User};
use sentry::kernel::seccomp::bpf::Insn;

use crate::sandbox::{Sandbox, all, container, line, on_each, script};

/// What runc gives by default.
const DEFAULT: u64 = 0xa804_25fb;

fn caps(bits: u64) -> CapabilitySets {
    CapabilitySets { effective: bits, permitted: bits, inheritable: 0, bounding: bits, ambient: 0 }
}

/// What a script prints as a process that `change` has changed.
fn shows(platform: &str, text: &str, change: impl FnOnce(&mut ProcessSpec)) -> String {
    let (mut init, output) = script(text);
    change(&mut init);
    let _sandbox = Sandbox::started(platform, container("a", init));
    all(output)
}

#[test]
fn identity_is_as_asked() {
    on_each(|platform| {
        let text = "id; umask; grep -E 'NoNewPrivs|CapEff|CapBnd|CapInh|CapAmb|Groups' /proc/self/status; \
                    cat /proc/self/oom_score_adj; ulimit -n; pwd; echo $HOME";
        let shown = shows(platform, text, |process| {
            process.user = User::Ids { uid: 1000, gid: 1001, additional_gids: vec![10, 20] };
            process.umask = Some(0o077);
            process.capabilities = Some(CapabilitySets { ambient: 0x400, inheritable: 0x400, ..caps(DEFAULT) });
            process.no_new_privs = true;
            process.oom_score_adj = Some(100);
            process.rlimits = vec![Rlimit { resource: 7, soft: 77, hard: 99 }];
            process.cwd = b"/data".to_vec();
        });
        let wanted = "uid=1000(alice) gid=1001(users) groups=10(wheel),20\n0077\nGroups:\t10 20 \nCapInh:\t0000000000000400\n\
                      CapEff:\t0000000000000400\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\n100\n77\n\
                      /data\n/srv/alice\n";
        assert_eq!(shown, wanted);
    });
}

#[test]
fn capabilities_limit_root() {
    on_each(|platform| {
        let text = "hostname x 2>&1; mount -t tmpfs none /tmp 2>&1; chown 5 /etc/passwd && echo chown; mknod /tmp/n c 1 3 && echo mknod; \
                    grep CapEff /proc/self/status";
        let shown = shows(platform, text, |process| process.capabilities = Some(caps(DEFAULT)));
        let wanted = "hostname: sethostname: Operation not permitted\nmount: permission denied (are you root?)\nchown\nmknod\n\
                      CapEff:\t00000000a80425fb\n";
        assert_eq!(shown, wanted);
        let shown =
            shows(platform, "chown 5 /etc/passwd 2>&1; mknod /tmp/n c 1 3 2>&1", |p| p.capabilities = Some(caps(0)));
        let refused = "Operation not permitted\n";
        assert_eq!(shown, format!("chown: /etc/passwd: {refused}mknod: /tmp/n: {refused}"));
    });
}

#[test]
fn a_filter_is_in_force_from_the_start() {
    on_each(|platform| {
        // chdir answers EXDEV (18).
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        let program = vec![
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, 80),
            insn(0x06, 0, 0, 0x0005_0012),
            insn(0x06, 0, 0, 0x7fff_0000),
        ];
        let text = "cd /data 2>&1; grep Seccomp: /proc/self/status";
        let shown = shows(platform, text, |process| process.seccomp = Some(Filter { program, log: false }));
        assert!(shown.ends_with("Seccomp:\t2\n") && shown.contains("cd"), "{shown}");
    });
}

#[test]
fn tasks_are_limited() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut spec = container("a", init);
        spec.limits.pids = Some(6);
        let mut sandbox = Sandbox::started(platform, spec);
        let text = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done 2>&1; wait";
        let (process, mut output) = script(text);
        sandbox.exec("a", process).unwrap();
        assert!(line(&mut output).contains("can't fork"));
        let Ok(Answer::Stats(stats)) = sandbox.ask(Control::Stats { id: "a".to_owned() }) else { panic!() };
        // The shell gives up when it cannot fork.
        assert!(matches!(stats.pids, 5 | 6) && stats.pids_limit == Some(6), "{stats:?}");
        let limits = ResourceLimits { pids: Some(100), ..Default::default() };
        assert_eq!(sandbox.ask(Control::Update { id: "a".to_owned(), limits }), Ok(Answer::Done));
        let (text, _) = sandbox.run("a", "sleep 0; echo fine");
        assert_eq!(text, "fine\n");
    });
}

#[test]
fn the_largest_goes_over_the_memory_limit() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        let (init, _other) = script("sleep 1000");
        let mut spec = container("b", init);
        spec.limits.memory = Some(16 << 20);
        sandbox.add(spec);
        // dd's buffer.
        let (_, status) = sandbox.run("b", "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?");
        assert_eq!(status, 0);
        sandbox.event(&Event::Oom { id: "b".to_owned() });
        let Ok(Answer::Stats(stats)) = sandbox.ask(Control::Stats { id: "b".to_owned() }) else { panic!() };
        assert!(stats.memory.oom_kills >= 1 && stats.memory.usage < 16 << 20, "{stats:?}");
        assert_eq!(stats.memory.limit, Some(16 << 20));
        // The other has room.
        let (text, _) = sandbox.run("a", "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?");
        assert_eq!(text, "0\n");
    });
}
