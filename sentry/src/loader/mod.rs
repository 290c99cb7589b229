//! Programs into memory: ELF, scripts, the initial stack, the vDSO.
//!
//! The files are untrusted: [`elf`] and [`script`] are pure parsers over bytes, in which every field is checked, and
//! the rest maps what they say through [`crate::mm`], which checks addresses like the guest's own `mmap`.

pub mod elf;
pub mod image;
pub mod script;
pub mod stack;
pub mod vdso;

use std::sync::Arc;

use abi::{AddrRange, Errno, UserAddr};

use crate::kernel::Kernel;
use crate::mm::layout::Layout;
use crate::mm::{Mm, ProgramInfo};
use crate::vfs::{FileDescription, IoSink};

/// Identity that a program starts with, as the auxiliary vector tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecIds {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// AT_SECURE: privileges were gained.
    pub secure: bool,
}

/// Opens an interpreter for execution.
pub type OpenExec<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Arc<FileDescription>, Errno>;

/// What `execve` asks for.
pub struct ExecRequest<'a> {
    /// The file, opened for execution.
    pub file: Arc<FileDescription>,
    /// Its name as the caller gave it (AT_EXECFN; a script's argument).
    pub path: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// AT_RANDOM's bytes.
    pub random: [u8; 16],
    /// Random numbers that decide where things go.
    pub aslr: [u64; 4],
    /// RLIMIT_STACK, bytes.
    pub stack_limit: u64,
    /// Opens an interpreter for execution.
    pub open: OpenExec<'a>,
    /// Who will run the program, given the file that decides (a script's interpreter, not the script).
    pub ids: &'a mut dyn FnMut(&Arc<FileDescription>) -> ExecIds,
}

/// A program in memory.
pub struct Loaded {
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub sp: u64,
    /// The file that became the executable.
    pub exe: Arc<FileDescription>,
}

/// Why a program was not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// `execve` answers this.
    Refused(Errno),
    /// Linux finds this when the old program is gone already, and kills the process by SIGSEGV (`bprm_execve`).
    Fatal(Errno),
}

impl From<Errno> for LoadError {
    fn from(errno: Errno) -> Self {
        LoadError::Refused(errno)
    }
}

impl LoadError {
    /// What is wrong past the point of no return; a call that waits for its files has not come there yet.
    fn late(errno: Errno) -> Self {
        if errno == Errno::EIOCBQUEUED { LoadError::Refused(errno) } else { LoadError::Fatal(errno) }
    }

    /// What is wrong.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            LoadError::Refused(errno) | LoadError::Fatal(errno) => errno,
        }
    }
}

/// Longest string of argv and envp, its NUL included (`MAX_ARG_STRLEN`).
const MAX_STRING: usize = 128 << 10;
/// Scripts whose interpreters are scripts: how deep (`exec_binprm`).
const MAX_DEPTH: usize = 5;

/// Loads a program into `mm`, which is empty.
///
/// # Errors
/// As execve(2): `ENOEXEC`, `ELIBBAD`, `E2BIG`, `ELOOP`, `EIO`; what opening an interpreter says. Fatal: `EINVAL`,
/// `ENOMEM` and others for what cannot be mapped.
pub fn load(kernel: &Arc<Kernel>, mm: &Arc<Mm>, mut request: ExecRequest<'_>) -> Result<Loaded, LoadError> {
    if request.argv.is_empty() {
        // Linux 5.18: programs may rely on argv[0].
        request.argv.push(Vec::new());
    }
    check_size(&request)?;
    let execfn = request.path.clone();
    let mut depth = 0;
    let head = loop {
        let head = read_head(&request.file)?;
        let Some(script) = script::parse(&head)? else { break head };
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP.into());
        }
        let mut argv = vec![script.interpreter.clone()];
        argv.extend(script.argument);
        argv.push(std::mem::replace(&mut request.path, script.interpreter.clone()));
        argv.extend(request.argv.drain(1..));
        request.argv = argv;
        request.file = (request.open)(&script.interpreter)?;
    };
    check_size(&request)?;
    mm.vmas.write().layout = Layout::random([request.aslr[0], request.aslr[1]], request.stack_limit);
    let program = image::read_program(&request.file, &head, request.open)?;
    let images = image::map_program(mm, &program, [request.aslr[2], request.aslr[3]]).map_err(LoadError::late)?;
    let ids = (request.ids)(&request.file);
    let vdso = kernel.vdso.map(kernel, mm);
    let strings = stack::Strings { execfn: &execfn, argv: &request.argv, envp: &request.envp };
    let facts = stack::Facts {
        ids,
        random: request.random,
        offset: request.aslr[3] >> 32,
        vdso,
        min_sigstack: (kernel.platform.xsave_size() as u64 + 936).next_multiple_of(16),
    };
    let stack = stack::build(mm, &strings, &facts, &images).map_err(LoadError::late)?;
    let mut vmas = mm.vmas.write();
    vmas.program = ProgramInfo {
        exe: Some(request.file.clone()),
        code: images.main.code,
        data: images.main.data,
        start_stack: stack.sp,
        args: stack.args,
        env: stack.env,
        auxv: stack.auxv,
    };
    let brk = images.brk;
    vmas.brk = AddrRange::new(brk, brk);
    drop(vmas);
    mm.map_ahead(stack.sp, &[images.entry, images.main.entry]);
    Ok(Loaded { entry: images.entry, sp: stack.sp, exe: request.file })
}

/// The strings' limits: each 128 KiB, all a quarter of the stack (`bprm_stack_limits`).
fn check_size(request: &ExecRequest<'_>) -> Result<(), Errno> {
    let all = || request.argv.iter().chain(&request.envp);
    if all().any(|s| s.len() >= MAX_STRING) {
        return Err(Errno::E2BIG);
    }
    let strings: u64 = all().map(|s| s.len() as u64 + 1).sum();
    let pointers = (request.argv.len() as u64).saturating_add(request.envp.len() as u64).saturating_mul(8);
    let limit = (request.stack_limit / 4).clamp(128 << 10, 6 << 20);
    if strings.saturating_add(pointers) > limit { Err(Errno::E2BIG) } else { Ok(()) }
}

/// The first bytes that decide what a file is (`BINPRM_BUF_SIZE`), zero-filled.
fn read_head(file: &Arc<FileDescription>) -> Result<[u8; 256], Errno> {
    let mut head = [0u8; 256];
    read_at(file, 0, &mut head)?;
    Ok(head)
}

/// Reads as much of `buf` as the file has at `offset`.
pub(crate) fn read_at(file: &Arc<FileDescription>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    // `kernel_read` refuses negative positions.
    i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EIO)?;
        match file.ops.read(file, &mut IoSink::kernel(&mut buf[done..]), at)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Writes one word of a stack or a table that the kernel fills.
pub(crate) fn put(mm: &Mm, at: u64, bytes: &[u8]) -> Result<(), Errno> {
    mm.write_bytes(UserAddr(at), bytes)
}
