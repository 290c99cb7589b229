//! A process from outside before its first instruction: who it is, where, and which file it runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::boot::request::Answer;
use crate::boot::spec::{CapabilitySets, User};
use crate::kernel::container::Container;
use crate::kernel::container::identity::{Failure, identity, text};
use crate::kernel::container::outside::Owed;
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::{Events, WaitGuard};
use crate::kernel::{exec, exit};
use crate::vfs::boot::ensure_dirs;
use crate::vfs::{self, Caller, FdNum};

/// Where programs are looked up when the environment has no PATH (`execvp(3)`).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The exit status of a process that found nothing to run, in `wait(2)` form.
const NOT_STARTED: i32 = 127;

/// Which process it is, and when it runs its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The container's first: when the word is given.
    Gated,
    /// The container's first: at once.
    AtOnce,
    /// Executed into the container: at once.
    Executed,
}

/// What is to be run, by whom, where.
pub struct What {
    /// Program and arguments.
    pub args: Vec<Vec<u8>>,
    /// Environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// It is made where it is missing.
    pub make_cwd: bool,
    /// User and groups.
    pub user: User,
    /// Capabilities; `None` for what the user has by itself.
    pub capabilities: Option<CapabilitySets>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Becoming the user, finding the program.
    Prepare,
    /// Waiting for the word.
    Wait,
    /// Executing the program.
    Run,
}

/// What a process from outside does before its first instruction.
pub struct StartOp {
    what: What,
    start: Start,
    stage: Stage,
    /// The program's path, once found.
    path: Vec<u8>,
    owed: Option<Owed>,
}

impl StartOp {
    /// The start of a process, whose outcome is owed to somebody.
    #[must_use]
    pub fn new(what: What, start: Start, owed: Owed) -> Self {
        StartOp { what, start, stage: Stage::Prepare, path: Vec::new(), owed: Some(owed) }
    }

    /// Becomes the user, goes to the directory, and looks for the program.
    fn prepare(&mut self, cx: &mut CurrentTask<'_>) -> Result<(), Failure> {
        let (mut creds, home) = identity(cx, &self.what.user)?;
        if let Some(sets) = self.what.capabilities {
            creds.caps = sets.valid();
        }
        creds.no_new_privs = self.what.no_new_privs;
        if !self.what.env.iter().any(|e| e.starts_with(b"HOME=")) {
            self.what.env.push([b"HOME=", home.as_bytes()].concat());
        }
        let cwd = if self.what.cwd.is_empty() { b"/".as_slice() } else { &self.what.cwd };
        enter(cx, cwd, self.what.make_cwd)
            .map_err(|e| Failure(e, format!("working directory {}: {}", text(cwd), e.text())))?;
        cx.task.shared.lock().creds = Arc::new(creds);
        self.path = self.find(cx)?;
        Ok(())
    }

    /// The program's path, which can be executed as far as one sees without reading it.
    fn find(&self, cx: &mut CurrentTask<'_>) -> Result<Vec<u8>, Failure> {
        let program = self.what.args.first().cloned().unwrap_or_default();
        let mut last = Failure(Errno::ENOENT, format!("{}: not found in the container's PATH", text(&program)));
        for path in self.candidates(&program) {
            match crate::syscalls::fs_open::open_exec(cx, FdNum(libc::AT_FDCWD), &path, 0) {
                Ok(_) => return Ok(path),
                // As execvp(3): go on past what is not there, remember what may not be run.
                Err(Errno::ENOENT | Errno::ENOTDIR) if !program.contains(&b'/') => {}
                Err(Errno::EACCES) if !program.contains(&b'/') => last = explain(cx, &path, Errno::EACCES),
                Err(e) => return Err(explain(cx, &path, e)),
            }
        }
        Err(last)
    }

    fn candidates(&self, program: &[u8]) -> Vec<Vec<u8>> {
        if program.is_empty() || program.contains(&b'/') {
            return vec![program.to_vec()];
        }
        let path = self.what.env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let join = |dir: &[u8]| {
            let dir = if dir.is_empty() { b".".as_slice() } else { dir };
            [dir, b"/", program].concat()
        };
        path.split(|b| *b == b':').map(join).collect()
    }

    /// Goes on as far as it can; true when the program runs.
    fn go_on(&mut self, cx: &mut CurrentTask<'_>) -> Result<bool, Failure> {
        let container = cx.task.container().clone();
        if self.stage == Stage::Prepare {
            self.prepare(cx)?;
            cx.task.group.reported.store(true, Ordering::SeqCst);
            self.stage = Stage::Run;
            if self.start == Start::Gated {
                self.stage = Stage::Wait;
                container.created();
                self.answer(Answer::Done);
            }
        }
        if self.stage == Stage::Wait {
            let Some(starter) = container.may_start() else { return Ok(false) };
            self.owed = Some(Owed::new(cx.kernel(), starter));
            self.stage = Stage::Run;
        }
        if self.start == Start::AtOnce {
            container.running();
        }
        let (args, env) = (std::mem::take(&mut self.what.args), std::mem::take(&mut self.what.env));
        exec::exec_first(cx, &self.path, args, env).map_err(|e| explain(cx, &self.path, e))?;
        self.answer(Answer::Pid(cx.task.group.tgid.0));
        Ok(true)
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(owed) = self.owed.take() {
            owed.give(Ok(answer));
        }
    }

    /// There is nothing to run: says so and ends the process.
    fn fail(&mut self, cx: &mut CurrentTask<'_>, Failure(errno, sentence): Failure) {
        let container: Arc<Container> = cx.task.container().clone();
        if self.start == Start::Executed || self.stage == Stage::Prepare {
            // Nobody has heard of this process: nobody hears of its end.
            cx.task.group.reported.store(false, Ordering::SeqCst);
        }
        if self.start != Start::Executed {
            container.not_started(errno, &sentence, self.stage == Stage::Prepare);
        }
        exit::exit_group(cx, NOT_STARTED);
        if let Some(owed) = self.owed.take() {
            owed.give(Err((errno, sentence)));
        }
    }
}

/// Makes `path` the working directory; still as root, so that a directory of which the user sees nothing will do.
fn enter(cx: &CurrentTask<'_>, path: &[u8], make: bool) -> Result<(), Errno> {
    let entered = vfs::set_cwd(cx, path);
    if entered == Err(Errno::ENOENT) && make {
        let caller = Caller::of(cx.task)?;
        ensure_dirs(&Caller::kernel(caller.vfs, caller.root), path)?;
        return vfs::set_cwd(cx, path);
    }
    entered
}

/// The sentence for a program that cannot be executed; looks again to tell a missing program from a missing interpreter.
fn explain(cx: &mut CurrentTask<'_>, path: &[u8], errno: Errno) -> Failure {
    let name = text(path);
    let exists = vfs::read_file(cx, path, 256);
    let sentence = match (errno, exists) {
        (Errno::ENOENT, Ok(head)) if head.starts_with(b"#!") => {
            let line = head[2..].split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
            let interpreter = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            format!("{name}: its interpreter {} is missing in the image", text(interpreter))
        }
        (Errno::ENOENT, Ok(_)) => format!("{name}: its interpreter (dynamic loader) is missing in the image"),
        (Errno::ENOENT, Err(_)) => format!("{name}: not found in the image"),
        (Errno::ENOEXEC, _) => format!("{name}: not a program for x86-64 Linux, nor a script"),
        (Errno::EACCES, _) => format!("{name}: not executable (check its mode and the user)"),
        (errno, _) => format!("{name}: {}", errno.text()),
    };
    Failure(errno, sentence)
}

impl Op for StartOp {
    fn attempt(&mut self, cx: &mut CurrentTask<'_>) -> Attempt {
        match self.go_on(cx) {
            Ok(true) => Attempt::Done(Ok(0)),
            Ok(false) => Attempt::Pending,
            Err(failure) => {
                self.fail(cx, failure);
                Attempt::Done(Ok(0))
            }
        }
    }

    fn enlist(&mut self, cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        vec![cx.task.container().gate().enlist(Events::IN, cx.waiter())]
    }

    /// Signals that come before the program have no handler; those that end it do.
    fn is_killable_only(&self) -> bool {
        true
    }

    fn save(
        &self,
        _saver: &mut crate::checkpoint::Saver,
    ) -> Result<crate::checkpoint::op::OpState, crate::checkpoint::Refused> {
        Err(crate::checkpoint::Refused::new("a process that has not begun its program"))
    }

    fn name(&self) -> &'static str {
        "start"
    }
}
