//! Creation, start, exec, signals, the end.

use abi::Errno;
use sentry::boot::{Answer, Control, ExitStatus, ProcessSpec, Stdio, Target, User};

use crate::sandbox::{Sandbox, all, container, line, on_each, process, script};

fn id(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_container_waits_for_the_word_and_ends_the_sandbox() {
    on_each(|platform| {
        let (init, output) = script("echo pid $$; exit 3");
        let mut sandbox = Sandbox::new(platform, container("a", init));
        assert_eq!(sandbox.created(), Ok(Answer::Done));
        let Ok(Answer::Processes(list)) = sandbox.ask(Control::Processes { id: id("a") }) else { panic!() };
        assert_eq!(list.iter().map(|p| (p.pid, p.ppid)).collect::<Vec<_>>(), [(1, 0)]);
        assert_eq!(sandbox.ask(Control::Start { id: id("b") }).unwrap_err().0, Errno::ENOENT);
        assert_eq!(sandbox.ask(Control::Start { id: id("a") }), Ok(Answer::Pid(1)));
        assert_eq!(all(output), "pid 1\n");
        assert_eq!(sandbox.exited("a", 1), 3 << 8);
        assert_eq!(sandbox.end(), ExitStatus::Exited(3));
    });
}

#[test]
fn what_cannot_be_run_is_told_when_it_is_created() {
    on_each(|platform| {
        for (args, errno, word) in [
            (["/bin/nosuch"], Errno::ENOENT, "not found"),
            (["nosuch"], Errno::ENOENT, "PATH"),
            (["/etc/passwd"], Errno::EACCES, "not executable"),
        ] {
            let (init, _output) = process(&args);
            let mut sandbox = Sandbox::new(platform, container("a", init));
            let (told, sentence) = sandbox.created().unwrap_err();
            assert_eq!(told, errno, "{sentence}");
            assert!(sentence.contains(word), "{sentence}");
            assert!(matches!(sandbox.end(), ExitStatus::NotStarted(e, _) if e == errno));
        }
    });
}

#[test]
fn processes_are_executed_into_it() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        let (text, status) = sandbox.run("a", "echo $PPID; grep ^Pid: /proc/1/status; id -u; exit 9");
        assert_eq!((text.as_str(), status), ("0\nPid:\t1\n0\n", 9 << 8));
        // They do not end with each other.
        let (one, mut first) = script("echo up; read line; sleep 1000");
        let one = sandbox.exec("a", one).unwrap();
        assert_eq!(line(&mut first), "up");
        let (text, _) = sandbox.run("a", "(sleep 1000 >/dev/null 2>&1 & echo $!)");
        let orphan: i32 = text.trim().parse().unwrap();
        let (text, _) = sandbox.run("a", &format!("grep ^PPid: /proc/{orphan}/status"));
        assert_eq!(text, "PPid:\t1\n");
        sandbox.kill("a", Target::Process(orphan), libc::SIGKILL).unwrap();
        sandbox.kill("a", Target::Process(one), libc::SIGTERM).unwrap();
        assert_eq!(sandbox.exited("a", one), libc::SIGTERM);
        for (args, errno) in [(["nosuch"], Errno::ENOENT), (["/etc"], Errno::EACCES)] {
            let (spec, _output) = process(&args);
            assert_eq!(sandbox.exec("a", spec).unwrap_err().0, errno);
        }
        let (mut spec, _output) = process(&["true"]);
        spec.user = User::Named(id("nobody-there"));
        assert!(sandbox.exec("a", spec).unwrap_err().1.starts_with("user "));
        let (mut spec, _output) = process(&["true"]);
        spec.cwd = b"/not/there".to_vec();
        assert!(sandbox.exec("a", spec).unwrap_err().1.starts_with("working directory"));
        let (mut spec, output) = process(&["pwd"]);
        (spec.cwd, spec.make_cwd) = (b"/not/there".to_vec(), true);
        sandbox.exec("a", spec).unwrap();
        assert_eq!(all(output), "/not/there\n");
    });
}

#[test]
fn the_end_of_the_first_process_is_the_end_of_all() {
    on_each(|platform| {
        let (init, mut output) = script("echo up; read x; sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        assert_eq!(line(&mut output), "up");
        let (other, mut out) = script("trap '' TERM; echo up; sleep 1000; echo never");
        let other = sandbox.exec("a", other).unwrap();
        assert_eq!(line(&mut out), "up");
        assert_eq!(sandbox.kill("a", Target::Init, 99).unwrap_err().0, Errno::EINVAL);
        assert_eq!(sandbox.kill("a", Target::Process(4000), 9).unwrap_err().0, Errno::ESRCH);
        assert_eq!(sandbox.kill("a", Target::Init, 0), Ok(Answer::Done));
        sandbox.kill("a", Target::Init, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.exited("a", other), libc::SIGKILL);
        assert_eq!(sandbox.exited("a", 1), libc::SIGKILL);
        assert_eq!(sandbox.end(), ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(all(out), "");
    });
}

#[test]
fn a_container_is_killed_before_its_start() {
    on_each(|platform| {
        let (init, output) = script("echo never");
        let mut sandbox = Sandbox::new(platform, container("a", init));
        assert_eq!(sandbox.created(), Ok(Answer::Done));
        sandbox.kill("a", Target::All, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.exited("a", 1), libc::SIGKILL);
        assert_eq!(sandbox.end(), ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(all(output), "");
    });
}

#[test]
fn a_paused_container_stands_still() {
    on_each(|platform| {
        let (init, mut output) = script("echo up; while :; do :; done");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        assert_eq!(line(&mut output), "up");
        assert_eq!(sandbox.ask(Control::Pause { id: id("a") }), Ok(Answer::Done));
        let used = |sandbox: &mut Sandbox| match sandbox.ask(Control::Stats { id: id("a") }) {
            Ok(Answer::Stats(stats)) => stats.cpu.total,
            other => panic!("{other:?}"),
        };
        let before = used(&mut sandbox);
        for _ in 0..100 {
            assert_eq!(used(&mut sandbox), before);
        }
        assert_eq!(sandbox.ask(Control::Resume { id: id("a") }), Ok(Answer::Done));
        while used(&mut sandbox) == before {
            std::thread::yield_now();
        }
        assert_eq!(sandbox.ask(Control::Pause { id: id("a") }), Ok(Answer::Done));
        sandbox.kill("a", Target::All, libc::SIGKILL).unwrap();
        assert_eq!(sandbox.exited("a", 1), libc::SIGKILL);
    });
}

#[test]
fn what_is_executed_into_a_paused_container_begins_when_it_goes_on() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        assert_eq!(sandbox.ask(Control::Pause { id: id("a") }), Ok(Answer::Done));
        let (process, output) = script("echo later");
        let exec = sandbox.send(Control::Exec { id: id("a"), process: Box::new(process) });
        // It is served: the next request is answered after it.
        let Ok(Answer::Processes(list)) = sandbox.ask(Control::Processes { id: id("a") }) else { panic!() };
        assert_eq!(list.len(), 2);
        assert_eq!(sandbox.ask(Control::Resume { id: id("a") }), Ok(Answer::Done));
        assert!(matches!(sandbox.answer(exec), Ok(Answer::Pid(_))));
        assert_eq!(all(output), "later\n");
    });
}

#[test]
fn signals_without_a_handler_are_lost_on_an_init() {
    on_each(|platform| {
        let (init, mut output) = script("echo up; sleep 1000; echo never");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        assert_eq!(line(&mut output), "up");
        sandbox.kill("a", Target::Init, libc::SIGTERM).unwrap();
        assert_eq!(sandbox.run("a", "echo alive").0, "alive\n");
        let (init, output) = script("trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.01; done");
        let mut other = Sandbox::started(platform, container("b", init));
        let mut output = output;
        assert_eq!(line(&mut output), "up");
        other.kill("b", Target::Init, libc::SIGTERM).unwrap();
        assert_eq!(all(output), "told\n");
        assert_eq!(other.exited("b", 1), 5 << 8);
    });
}

#[test]
fn a_destroyed_container_is_gone() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        let memory = |sandbox: &mut Sandbox| match sandbox.ask(Control::Stats { id: id("a") }) {
            Ok(Answer::Stats(stats)) => stats.memory,
            other => panic!("{other:?}"),
        };
        let before = memory(&mut sandbox);
        let (init, mut output) =
            script("dd if=/dev/zero of=/dev/shm/big bs=1M count=20 2>/dev/null; echo up; sleep 1000");
        sandbox.add(container("b", init));
        assert_eq!(line(&mut output), "up");
        assert_eq!(sandbox.ask(Control::Destroy { id: id("b") }), Ok(Answer::Done));
        assert_eq!(sandbox.exited("b", 1), libc::SIGKILL);
        assert_eq!(sandbox.ask(Control::Stats { id: id("b") }).unwrap_err().0, Errno::ENOENT);
        let after = memory(&mut sandbox);
        assert!(after.anon + after.file < before.anon + before.file + (1 << 20), "{before:?} {after:?}");
        // Its name is free.
        let (init, output) = script("echo again");
        sandbox.add(container("b", init));
        assert_eq!(all(output), "again\n");
        assert_eq!(sandbox.exited("b", 1), 0);
        assert_eq!(sandbox.ask(Control::Destroy { id: id("b") }), Ok(Answer::Done));
        assert_eq!(sandbox.ask(Control::Destroy { id: id("a") }), Ok(Answer::Done));
        assert_eq!(sandbox.end(), ExitStatus::Signaled(libc::SIGKILL));
    });
}

#[test]
fn a_terminal_has_its_size_and_says_all_before_it_closes() {
    on_each(|platform| {
        let (init, _output) = script("sleep 1000");
        let mut sandbox = Sandbox::started(platform, container("a", init));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let stdio = Stdio::Console { fd: theirs.into(), size: (30, 90), stderr: None };
        let text = "stty size; tty; read x; stty size; exit 4";
        let args = ["/bin/busybox", "sh", "-c", text].map(|a| a.as_bytes().to_vec()).to_vec();
        let env = vec![b"PATH=/bin".to_vec()];
        let pid = sandbox.exec("a", ProcessSpec::new(args, env, User::Named(String::new()), stdio)).unwrap();
        let mut out = std::fs::File::from(std::os::fd::OwnedFd::from(ours));
        assert_eq!(line(&mut out), "30 90\r");
        let _tty = line(&mut out);
        let resize = |pid| Control::WindowSize { id: id("a"), pid, rows: 11, cols: 22 };
        assert_eq!(sandbox.ask(resize(pid)), Ok(Answer::Done));
        assert_eq!(sandbox.ask(resize(1)).unwrap_err().0, Errno::ENOTTY);
        std::io::Write::write_all(&mut out, b"go\r").unwrap();
        assert_eq!(all(out), "go\r\n11 22\r\n");
        assert_eq!(sandbox.exited("a", pid), 4 << 8);
    });
}
