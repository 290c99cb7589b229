//! A sandbox in this process, and the outside that asks it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use abi::Errno;
use memory::MemoryFile;
use nix::sys::eventfd::{EfdFlags, EventFd};
use platform::Platform;
use sentry::boot::spec::Root;
use sentry::boot::{
    Answer, Config, ContainerSpec, Control, ControlSource, Event, ExitStatus, ProcessSpec, Reply, Request, Stdio,
    Target, Token, User,
};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);
/// The token of the root container's creation.
const CREATION: Token = 1;

#[derive(Default)]
struct Lines {
    requests: VecDeque<Request>,
    replies: HashMap<Token, Reply>,
    events: Vec<Event>,
}

#[derive(Default)]
struct Line {
    lines: Mutex<Lines>,
    changed: Condvar,
}

struct Source {
    fd: OwnedFd,
    line: Arc<Line>,
}

impl ControlSource for Source {
    fn fd(&self) -> &OwnedFd {
        &self.fd
    }
    fn next(&mut self) -> Option<Request> {
        self.line.lines.lock().unwrap().requests.pop_front()
    }
    fn reply(&mut self, token: Token, reply: Reply) {
        let old = self.line.lines.lock().unwrap().replies.insert(token, reply);
        assert!(old.is_none(), "two answers to {token}");
        self.line.changed.notify_all();
    }
    fn event(&mut self, event: Event) {
        self.line.lines.lock().unwrap().events.push(event);
        self.line.changed.notify_all();
    }
}

/// A running sandbox.
pub struct Sandbox {
    line: Arc<Line>,
    bell: EventFd,
    next: Token,
    thread: Option<JoinHandle<ExitStatus>>,
}

/// The image that all tests run: busybox.
pub fn image() -> File {
    static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = IMAGE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let root = crate::common::busybox_root(dir.path());
        for applet in
            ["ls", "ps", "grep", "mount", "touch", "mkdir", "wc", "head", "tail", "tr", "chown", "mknod", "df", "stat"]
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("etc/secret"), "secret\n").unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        std::fs::write(root.join("data/file"), "data\n").unwrap();
        std::os::unix::fs::symlink("/data", root.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere/deep/file", root.join("dangling")).unwrap();
        (dir, crate::common::image_of(&root))
    });
    File::open(path).unwrap()
}

/// An image to lie above that: one file replaced, one added.
pub fn layer() -> File {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layer");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::create_dir(root.join("extra")).unwrap();
    std::fs::write(root.join("etc/secret"), "above\n").unwrap();
    std::fs::write(root.join("extra/file"), "extra\n").unwrap();
    File::open(crate::common::image_of(&root)).unwrap()
}

fn platform(name: &str) -> Arc<dyn Platform> {
    // Many sandboxes share this process, which is made for one. The first platform keeps its place at the top of the
    // address space, so that no sandbox's memory is put there, where the next platform needs room.
    static FIRST: OnceLock<platform_ptrace::PtracePlatform> = OnceLock::new();
    FIRST.get_or_init(|| platform_ptrace::PtracePlatform::new().unwrap());
    if name == "kvm" {
        let fd = File::options().read(true).write(true).open("/dev/kvm").unwrap();
        return Arc::new(platform_kvm::KvmPlatform::new(fd.into()).unwrap());
    }
    Arc::new(platform_ptrace::PtracePlatform::new().unwrap())
}

/// A shell script as a process whose output is read from the other end.
pub fn script(text: &str) -> (ProcessSpec, File) {
    process(&["/bin/sh", "-c", text])
}

/// A program as a process whose output is read from the other end.
pub fn process(args: &[&str]) -> (ProcessSpec, File) {
    let (read, write) = nix::unistd::pipe().unwrap();
    // Small, so that a program which nobody listens to is soon stuck.
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let null = File::open("/dev/null").unwrap().into();
    let stdio = Stdio::Host([null, write.try_clone().unwrap(), write]);
    let args = args.iter().map(|a| a.as_bytes().to_vec()).collect();
    (ProcessSpec::new(args, vec![b"PATH=/bin".to_vec()], User::Named(String::new()), stdio), File::from(read))
}

/// Everything until the last writer has gone.
pub fn all(mut output: File) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

/// The next line.
pub fn line(output: &mut File) -> String {
    let (mut text, mut byte) = (String::new(), [0u8]);
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    text
}

/// A container of the busybox image.
pub fn container(id: &str, process: ProcessSpec) -> ContainerSpec {
    ContainerSpec::new(id, Root::Image(image()), process)
}

/// Runs `body` on each platform.
pub fn on_each(body: impl Fn(&str)) {
    crate::common::platforms().into_iter().for_each(body);
}

impl Sandbox {
    /// A sandbox with this root container, created and not started.
    pub fn new(name: &str, container: ContainerSpec) -> Self {
        let platform = platform(name);
        let memory = MemoryFile::new(platform.memory_backing(), 256 << 20).unwrap();
        platform.attach_memory(&memory).unwrap();
        let line = Arc::new(Line::default());
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&bell).try_clone_to_owned().unwrap();
        let config = Config {
            platform,
            memory,
            options: sentry::kernel::Options { cpus: 2, ..Default::default() },
            container,
            start: false,
            token: Some(CREATION),
            checkpoint: None,
            control: Some(Box::new(Source { fd, line: line.clone() })),
            seal: Box::new(|| Ok(())),
        };
        let thread = std::thread::spawn(move || sentry::run(config).unwrap());
        Sandbox { line, bell, next: CREATION, thread: Some(thread) }
    }

    /// A sandbox whose root container runs.
    pub fn started(name: &str, container: ContainerSpec) -> Self {
        let id = container.id.clone();
        let mut sandbox = Sandbox::new(name, container);
        assert_eq!(sandbox.created(), Ok(Answer::Done));
        assert!(matches!(sandbox.ask(Control::Start { id }), Ok(Answer::Pid(1))));
        sandbox
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&mut Lines) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.line.lines.lock().unwrap();
        loop {
            if let Some(found) = found(&mut lines) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "hangs: {what}");
            lines = self.line.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The answer to the creation of the root container.
    pub fn created(&mut self) -> Reply {
        self.wait("creation", |lines| lines.replies.remove(&CREATION))
    }

    /// Sends a request.
    pub fn send(&mut self, control: Control) -> Token {
        self.next += 1;
        let request = Request { token: self.next, control };
        self.line.lines.lock().unwrap().requests.push_back(request);
        self.bell.write(1).unwrap();
        self.next
    }

    /// The answer to a request.
    pub fn answer(&mut self, token: Token) -> Reply {
        self.wait("an answer", |lines| lines.replies.remove(&token))
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, control: Control) -> Reply {
        let token = self.send(control);
        self.answer(token)
    }

    /// Creates and starts a further container; answers its first process's id.
    pub fn add(&mut self, container: ContainerSpec) -> i32 {
        let id = container.id.clone();
        assert_eq!(self.ask(Control::Create(Box::new(container))), Ok(Answer::Done));
        match self.ask(Control::Start { id }) {
            Ok(Answer::Pid(pid)) => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Executes a process; answers its id.
    pub fn exec(&mut self, id: &str, process: ProcessSpec) -> Result<i32, (Errno, String)> {
        match self.ask(Control::Exec { id: id.to_owned(), process: Box::new(process) })? {
            Answer::Pid(pid) => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    /// Executes a script to its end; answers its output and status.
    pub fn run(&mut self, id: &str, text: &str) -> (String, i32) {
        let (process, output) = script(text);
        let pid = self.exec(id, process).unwrap();
        let text = all(output);
        (text, self.exited(id, pid))
    }

    /// Sends a signal.
    pub fn kill(&mut self, id: &str, target: Target, signo: i32) -> Reply {
        self.ask(Control::Signal { id: id.to_owned(), target, signo })
    }

    /// Waits until a process has ended; answers its status in `wait(2)` form.
    pub fn exited(&self, id: &str, pid: i32) -> i32 {
        self.wait(&format!("the end of {pid} of {id}"), |lines| {
            let at = lines
                .events
                .iter()
                .position(|e| matches!(e, Event::Exited { id: i, pid: p, .. } if i == id && *p == pid))?;
            match lines.events.remove(at) {
                Event::Exited { status, .. } => Some(status),
                Event::Oom { .. } => None,
            }
        })
    }

    /// Waits for an event of another kind.
    pub fn event(&self, wanted: &Event) {
        self.wait(&format!("{wanted:?}"), |lines| lines.events.iter().position(|e| e == wanted));
    }

    /// How the sandbox ended, which it must do by itself.
    pub fn end(&mut self) -> ExitStatus {
        let thread = self.thread.take().unwrap();
        let end = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < end, "the sandbox does not end");
            std::thread::yield_now();
        }
        thread.join().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.send(Control::Shutdown);
            self.end();
        }
    }
}
