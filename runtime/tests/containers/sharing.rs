//! What containers see of each other: nothing, or what they share.

use sentry::boot::{Answer, Control, ExitStatus, Target};

use crate::sandbox::{Sandbox, all, container, line, on_each, script};

fn named(id: &str, hostname: &str, text: &str) -> (sentry::boot::ContainerSpec, std::fs::File) {
    let (init, output) = script(text);
    let mut spec = container(id, init);
    spec.hostname = hostname.as_bytes().to_vec();
    (spec, output)
}

#[test]
fn a_container_sees_its_own_processes_alone() {
    on_each(|platform| {
        let (spec, _output) = named("a", "alpha", "sleep 1000");
        let mut sandbox = Sandbox::started(platform, spec);
        let (spec, output) =
            named("b", "beta", "echo $$; hostname; echo /proc/[0-9]*; kill -0 2 2>/dev/null || echo none");
        assert_eq!(sandbox.add(spec), 1);
        assert_eq!(all(output), "1\nbeta\n/proc/1\nnone\n");
        assert_eq!(sandbox.exited("b", 1), 0);
        let (text, _) = sandbox.run("a", "hostname; hostname gamma; hostname");
        assert_eq!(text, "alpha\ngamma\n");
        let own = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let show = "for n in pid uts ipc net mnt; do ls -l /proc/self/ns/$n | grep -o '[a-z]*:.*'; done";
        let (first, _) = sandbox.run("a", show);
        let (spec, mut output) = named("c", "c", "echo up; sleep 1000");
        sandbox.add(spec);
        assert_eq!(line(&mut output), "up");
        let (second, _) = sandbox.run("c", show);
        let (first, second) = (own(first), own(second));
        assert_eq!(first.len(), 5);
        assert!(first.iter().zip(&second).all(|(a, b)| a != b), "{first:?} {second:?}");
    });
}

#[test]
fn a_pod_shares_what_it_asks_for() {
    on_each(|platform| {
        let (spec, _output) = named("pause", "pod", "sleep 1000");
        let mut sandbox = Sandbox::started(platform, spec);
        let (mut spec, mut output) =
            named("b", "", "echo $$ $PPID; hostname; grep -c sleep /proc/1/cmdline; sleep 1000");
        let other = Some("pause".to_owned());
        (spec.shares.pid, spec.shares.uts) = (other.clone(), other.clone());
        (spec.shares.ipc, spec.shares.net) = (other.clone(), other);
        let pid = sandbox.add(spec);
        assert!(pid > 1);
        assert_eq!(line(&mut output), format!("{pid} 0"));
        assert_eq!(line(&mut output), "pod");
        assert_eq!(line(&mut output), "1");
        let Ok(Answer::Processes(list)) = sandbox.ask(Control::Processes { id: "b".to_owned() }) else { panic!() };
        assert!(list.iter().all(|p| p.pid >= pid), "{list:?}");
        // Its end is its own; its namespace lives on.
        let (text, _) = sandbox.run("b", "(sleep 1000 >/dev/null 2>&1 & echo $!)");
        let left: i32 = text.trim().parse().unwrap();
        sandbox.kill("b", Target::Init, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.exited("b", pid), libc::SIGKILL);
        let (text, _) = sandbox.run("pause", &format!("kill -0 {left} && echo alive"));
        assert_eq!(text, "alive\n");
        assert_eq!(sandbox.ask(Control::Destroy { id: "b".to_owned() }), Ok(Answer::Done));
        let (_, status) =
            sandbox.run("pause", &format!("! kill -0 {left} 2>/dev/null || grep -q 'State:.Z' /proc/{left}/status"));
        assert_eq!(status, 0);
    });
}

#[test]
fn a_sandbox_ends_with_its_last_container() {
    on_each(|platform| {
        let (spec, _output) = named("a", "", "sleep 1000");
        let mut sandbox = Sandbox::started(platform, spec);
        let (spec, mut output) = named("b", "", "echo up; sleep 1000");
        sandbox.add(spec);
        assert_eq!(line(&mut output), "up");
        sandbox.kill("a", Target::Init, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.exited("a", 1), libc::SIGKILL);
        let (text, status) = sandbox.run("b", "echo still");
        assert_eq!((text.as_str(), status), ("still\n", 0));
        sandbox.kill("b", Target::All, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.end(), ExitStatus::Signaled(libc::SIGKILL));
    });
}
