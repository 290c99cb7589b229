//! New processes from outside: a container's first, and those executed into it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use platform::ArchState;

use crate::boot::STREAMS;
use crate::boot::request::Token;
use crate::boot::spec::{ProcessSpec, Rlimit, Stdio};
use crate::fs::host::HostFile;
use crate::fs::tty::console::Console;
use crate::kernel::Kernel;
use crate::kernel::container::Container;
use crate::kernel::container::outside::Owed;
use crate::kernel::container::start::{Start, StartOp, What};
use crate::kernel::creds::Creds;
use crate::kernel::limits::{COUNT, Limit, Limits};
use crate::kernel::seccomp::{self, bpf::Program};
use crate::kernel::signal::TaskSignals;
use crate::kernel::task::{Task, TaskShared, Waiting};
use crate::kernel::thread_group::ThreadGroup;
use crate::mm::Mm;
use crate::vfs::fd_table::NR_OPEN;
use crate::vfs::fs_context::FsState;
use crate::vfs::{Caller, FdTable, FsContext};

type Refusal = (Errno, String);

fn failed(doing: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| (errno, format!("{doing}: {}", errno.text()))
}

fn host_failed(doing: &'static str) -> impl Fn(std::io::Error) -> Refusal {
    move |e| (Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)), format!("{doing}: {e}"))
}

impl Kernel {
    /// Makes a process of `container` and lets it find its program. What becomes of that is answered to `token`, unless
    /// this fails.
    ///
    /// # Errors
    /// Descriptors, memory or ids are exhausted; a filter or a limit is not valid.
    pub(super) fn spawn(
        self: &Arc<Self>,
        container: &Arc<Container>,
        spec: ProcessSpec,
        token: Option<Token>,
        start: Start,
    ) -> Result<(), Refusal> {
        let program = |filter: &crate::boot::spec::Filter| Program::new(filter.program.clone());
        let filter = spec.seccomp.as_ref().map(program).transpose().map_err(failed("the seccomp filter"))?;
        let limits = limits(&spec.rlimits)?;
        let tree = container.state.lock().tree.clone();
        let tree = tree.ok_or_else(|| (Errno::ESRCH, format!("container {} is going", container.id)))?;
        let fs = FsContext::of(FsState { umask: spec.umask.unwrap_or(0o022) & 0o777, ..tree.clone() });
        let (fds, console) = self.descriptors((container, &tree), spec.stdio, spec.preserved, start)?;
        let shared = TaskShared {
            mm: Some(Mm::new(self).map_err(failed("making an address space"))?),
            fds: Some(Arc::new(fds)),
            fs: Some(Arc::new(fs)),
            creds: Arc::new(Creds::root()),
            name: b"init".to_vec(),
        };
        let tid = container.ns.pids.allocate().ok_or_else(|| failed("starting a process")(Errno::EAGAIN))?;
        let group = ThreadGroup::with(tid, container, Arc::default(), limits);
        let inherited = container.oom_score_adj.load(Ordering::Relaxed);
        group.oom_score_adj.store(spec.oom_score_adj.unwrap_or(inherited), Ordering::Relaxed);
        let task = Task::new(self, tid, group, ArchState::new(), shared, TaskSignals::default());
        if let Some(program) = filter {
            seccomp::install(&task, program).map_err(failed("the seccomp filter"))?;
        }
        if start != Start::Executed {
            container.init.store(tid.0, Ordering::Relaxed);
            container.oom_score_adj.store(task.group.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let what = What {
            args: spec.args,
            env: spec.env,
            cwd: spec.cwd,
            make_cwd: spec.make_cwd,
            user: spec.user,
            capabilities: spec.capabilities,
            no_new_privs: spec.no_new_privs,
        };
        enroll(container, &task, console, start)?;
        let op = StartOp::new(what, start, Owed::new(self, token));
        task.own.lock().waiting = Some(Waiting::new(Box::new(op)));
        self.start_task(&task);
        Ok(())
    }

    /// The first descriptors of a process, and its terminal.
    fn descriptors(
        self: &Arc<Self>,
        (container, tree): (&Arc<Container>, &FsState),
        stdio: Stdio,
        preserved: Vec<OwnedFd>,
        start: Start,
    ) -> Result<(FdTable, Option<Arc<Console>>), Refusal> {
        let failed = failed("installing descriptors");
        let fds = FdTable::new();
        let install = |file| fds.install(file, false, 0, NR_OPEN).map(|_| ()).map_err(&failed);
        let open = |fd, name| HostFile::open(&self.reactor, fd, name).map_err(host_failed("taking a descriptor over"));
        // Only the first process's streams are given anew after a restore.
        let names = if start == Start::Executed { [HostFile::UNNAMED; 3] } else { STREAMS };
        let console = match stdio {
            Stdio::Host(streams) => {
                for (fd, name) in streams.into_iter().zip(names) {
                    install(open(fd, name)?)?;
                }
                None
            }
            Stdio::Shared { streams: [input, output, error], gate } => {
                let input = HostFile::open_gated(&self.reactor, input, names[0], gate);
                install(input.map_err(host_failed("taking a descriptor over"))?)?;
                install(open(output, names[1])?)?;
                install(open(error, names[2])?)?;
                None
            }
            Stdio::Console { fd, size, stderr } => {
                let console =
                    Console::start(self, &container.ptys, fd, size).map_err(host_failed("making the terminal"))?;
                // One open file behind all three, as login(1) and sshd leave it.
                let terminal = console.open(&Caller::kernel(&self.vfs, tree.root.clone())).map_err(&failed)?;
                install(terminal.clone())?;
                install(terminal.clone())?;
                install(stderr.map(|fd| open(fd, names[2])).transpose()?.unwrap_or(terminal))?;
                Some(console)
            }
        };
        for fd in preserved {
            install(open(fd, HostFile::UNNAMED)?)?;
        }
        Ok((fds, console))
    }
}

/// Makes the task part of its container, leading a session of its own.
fn enroll(
    container: &Arc<Container>,
    task: &Arc<Task>,
    console: Option<Arc<Console>>,
    start: Start,
) -> Result<(), Refusal> {
    {
        let mut tree = container.ns.pids.tree();
        if container.is_dying(&tree) {
            drop(tree);
            if let Some(console) = &console {
                console.retire();
            }
            return Err((Errno::ESRCH, format!("container {} is going", container.id)));
        }
        let mut state = task.group.state.lock();
        (state.pgid, state.sid) = (task.tid.0, task.tid.0);
        state.tasks.push(task.clone());
        drop(state);
        tree.add(task);
    }
    let Some(console) = console else { return Ok(()) };
    let mut state = container.state.lock();
    if start != Start::Executed {
        state.terminal = Some(console.tty().clone());
    }
    state.consoles.insert(task.tid.0, console.clone());
    drop(state);
    console.control(task).map_err(failed("giving the process its terminal"))
}

fn limits(wanted: &[Rlimit]) -> Result<Limits, Refusal> {
    let mut limits = Limits::default();
    for limit in wanted {
        if limit.resource as usize >= COUNT || limit.soft > limit.hard {
            let text = format!("resource limit {}: {} above {}", limit.resource, limit.soft, limit.hard);
            return Err((Errno::EINVAL, text));
        }
        limits.set(limit.resource, Limit { soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}
