//! `nanovisor do` on a terminal: the guest gets one of its own, and ours is always given back.

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{busybox_image, children, finish, nanovisor, platforms};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with a command on it, as a terminal emulator has.
struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(image: &Path, platform: &str, command: &[&str]) -> Terminal {
        let program = nanovisor().get_program().to_owned();
        Self::with(&program, |all| {
            all.args(["do", "--platform", platform, "--image"]).arg(image).arg("--").args(command);
        })
    }

    fn with(program: &OsStr, arguments: impl FnOnce(&mut Command)) -> Terminal {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let mut all = Command::new("setsid");
        all.arg("--ctty").arg(program);
        arguments(&mut all);
        let end = || pty.slave.try_clone().unwrap();
        let child = all.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Terminal { master: File::from(pty.master), slave: pty.slave, child, seen: String::new() }
    }

    /// Reads until `text` has appeared.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            assert!(Instant::now() < end, "waiting for {text:?}, saw {:?}", self.seen);
            let mut set = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut set, PollTimeout::from(1000u16)).unwrap() > 0 {
                let mut piece = [0; 4096];
                let n = self.master.read(&mut piece).unwrap();
                self.seen.push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        }
        self.seen.clear();
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether somebody has the terminal in raw mode.
    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Until `done`, without output.
    fn until(&self, what: &str, done: impl Fn(&Terminal) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "waiting until {what}");
            std::thread::yield_now();
        }
    }

    /// The exit status; the terminal must be itself again.
    fn status(self) -> Option<i32> {
        let status = finish(self.child, "a command on a terminal").status;
        assert!(tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        status.code()
    }
}

fn on_each(body: impl Fn(&Path, &str)) {
    let dir = tempfile::tempdir().unwrap();
    let image = busybox_image(dir.path());
    for platform in platforms() {
        body(&image, platform);
    }
}

#[test]
fn the_guest_has_a_terminal_of_the_same_size() {
    on_each(|image, platform| {
        let mut terminal = Terminal::start(
            image,
            platform,
            &[
                "sh",
                "-c",
                "stty size; test -t 0 && test -t 2 && echo is-tty; trap 'stty size; exit 4' WINCH; echo up; while :; do sleep 0.05; done",
            ],
        );
        terminal.expect("33 77\r\nis-tty\r\nup");
        assert!(terminal.is_raw());
        let mut stty = Command::new("stty");
        stty.args(["rows", "12", "cols", "34"]).stdin(terminal.slave.try_clone().unwrap());
        assert!(stty.status().unwrap().success());
        // A terminal emulator's resize tells its foreground processes; ours is told by hand if it was not.
        terminal.signal(Signal::SIGWINCH);
        terminal.expect("12 34");
        assert_eq!(terminal.status(), Some(4));
    });
}

#[test]
fn keys_reach_the_guest_s_own_line_discipline() {
    on_each(|image, platform| {
        let mut terminal = Terminal::start(
            image,
            platform,
            &["sh", "-c", "trap 'echo interrupted' INT; echo up; cat; read line; echo \"<$line>\"; exit 5"],
        );
        terminal.expect("up");
        terminal.type_in("abx\x7fc\r");
        terminal.expect("abc\r\n");
        terminal.type_in("\x03");
        terminal.expect("interrupted");
        terminal.type_in("last\r");
        terminal.expect("<last>");
        assert_eq!(terminal.status(), Some(5));
    });
}

#[test]
fn job_control_in_a_shell_of_the_guest() {
    on_each(|image, platform| {
        let mut terminal = Terminal::start(image, platform, &["sh", "-i"]);
        terminal.expect("#");
        terminal.type_in("sleep 1000\r");
        terminal.expect("sleep 1000");
        std::thread::yield_now();
        // Until the job is in the foreground the key would stop nobody: ask again.
        let end = Instant::now() + PATIENCE;
        while !terminal.seen.contains("Stopped") && Instant::now() < end {
            terminal.type_in("\x1a");
            let mut set = [PollFd::new(terminal.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut set, PollTimeout::from(300u16)).unwrap() > 0 {
                let mut piece = [0; 4096];
                let n = terminal.master.read(&mut piece).unwrap();
                terminal.seen.push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        }
        assert!(terminal.seen.contains("Stopped"), "{platform}: {:?}", terminal.seen);
        terminal.type_in("kill %1; fg; exit 9\r");
        assert_eq!(terminal.status(), Some(9));
    });
}

#[test]
fn the_terminal_is_itself_again_however_it_ends() {
    on_each(|image, platform| {
        // The program dies of a signal sent to the command.
        let mut terminal = Terminal::start(image, platform, &["sh", "-c", "echo up; exec sleep 1000"]);
        terminal.expect("up");
        assert!(terminal.is_raw());
        terminal.signal(Signal::SIGTERM);
        assert_eq!(terminal.status(), Some(143));
        // The sandbox process is killed.
        let mut terminal = Terminal::start(image, platform, &["sh", "-c", "echo up; exec sleep 1000"]);
        terminal.expect("up");
        let [sandbox] = children(terminal.child.id())[..] else { panic!("one sandbox process") };
        kill(Pid::from_raw(i32::try_from(sandbox).unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(terminal.status(), Some(117));
        // It does not even start.
        let terminal = Terminal::start(image, platform, &["/nonexistent"]);
        assert_eq!(terminal.status(), Some(127));
    });
}

#[test]
fn a_stop_gives_the_terminal_back_for_a_while() {
    on_each(|image, platform| {
        let mut terminal = Terminal::start(image, platform, &["sh", "-c", "echo up; read line; echo \"<$line>\""]);
        terminal.expect("up");
        terminal.signal(Signal::SIGTSTP);
        terminal.until("it stops", |t| {
            std::fs::read_to_string(format!("/proc/{}/stat", t.child.id())).unwrap().contains(") T ")
        });
        assert!(!terminal.is_raw(), "{platform}");
        terminal.signal(Signal::SIGCONT);
        terminal.until("it goes on", Terminal::is_raw);
        terminal.type_in("word\r");
        terminal.expect("<word>");
        assert_eq!(terminal.status(), Some(0));
    });
}

/// Our command is a job of a host's shell, its standard output elsewhere: the terminal is passed through.
#[test]
fn a_background_job_that_reads_stops_and_one_that_does_not_goes_on() {
    on_each(|image, platform| {
        let out = image.with_file_name(format!("out-{platform}"));
        let mut shell = Terminal::with("bash".as_ref(), |all| {
            all.args(["--norc", "--noprofile", "-i"]).env("OUT", &out).env("IMAGE", image);
            all.env("DO", format!("{} do --platform {platform}", nanovisor().get_program().display()));
        });
        let job = |script: &str| format!("$DO --image $IMAGE -- sh -c '{script}' > $OUT &\r");
        shell.type_in("bind 'set enable-bracketed-paste off'; PS1=; echo re''ady\r");
        shell.expect("ready\r\n");
        shell.type_in(&job("echo quiet"));
        shell.type_in("wait $!; echo st=$? $(cat $OUT)\r");
        shell.expect("st=0 quiet\r\n");
        shell.type_in(&job("head -n 2"));
        // It stops only once it reads.
        shell.type_in("until jobs %% | grep -q Stopped; do sleep 0.1; done; echo has sto''pped\r");
        shell.expect("has stopped\r\n");
        // What is typed is the shell's.
        shell.type_in("echo mi''ne\r");
        shell.expect("mine\r\n");
        // Continued where it is, it stops again.
        shell.type_in("bg; sleep 0.2; until jobs %% | grep -q Stopped; do sleep 0.1; done; echo on''ce more\r");
        shell.expect("once more\r\n");
        shell.type_in("fg; echo st=$? $(cat $OUT)\r");
        shell.expect("IMAGE -- sh");
        shell.type_in("one line\r");
        shell.type_in("another\r");
        shell.expect("st=0 one line another\r\n");
        shell.type_in("exit 5\r");
        assert_eq!(shell.status(), Some(5), "{platform}");
    });
}
