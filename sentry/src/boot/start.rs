//! The first program: who runs it, where, and which file it is.

use abi::Errno;

use crate::boot::ExitStatus;
use crate::kernel::creds::Creds;
use crate::kernel::exec;
use crate::kernel::op::{Attempt, Op};
use crate::kernel::task::CurrentTask;
use crate::kernel::wait::WaitGuard;
use crate::vfs;

/// Where programs are looked up when the environment has no PATH (`execvp(3)`).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest /etc/passwd or /etc/group that is read.
const MAX_DATABASE: usize = 1 << 20;

/// What the first task does before its first instruction: become the user, go to the directory, execute the program.
pub struct StartOp {
    /// Program and arguments.
    pub args: Vec<Vec<u8>>,
    /// Environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// `UID[:GID]` or names; root where empty.
    pub user: String,
}

/// Why the first program did not start.
struct Failure(Errno, String);

impl StartOp {
    fn start(&mut self, cx: &mut CurrentTask<'_>) -> Result<(), Failure> {
        let (creds, home) = identity(cx, &self.user)?;
        if !self.env.iter().any(|e| e.starts_with(b"HOME=")) {
            self.env.push([b"HOME=", home.as_bytes()].concat());
        }
        let cwd = if self.cwd.is_empty() { b"/".as_slice() } else { &self.cwd };
        vfs::set_cwd(cx, cwd).map_err(|e| Failure(e, format!("working directory {}: {}", text(cwd), e.text())))?;
        cx.task.shared.lock().creds = std::sync::Arc::new(creds);
        let program = self.args.first().cloned().unwrap_or_default();
        let mut last = Failure(Errno::ENOENT, format!("{}: not found in the sandbox's PATH", text(&program)));
        for path in self.candidates(&program) {
            match exec::exec_first(cx, &path, self.args.clone(), self.env.clone()) {
                Ok(()) => return Ok(()),
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
        let path = self.env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let join = |dir: &[u8]| {
            let dir = if dir.is_empty() { b".".as_slice() } else { dir };
            [dir, b"/", program].concat()
        };
        path.split(|b| *b == b':').map(join).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
        if let Err(Failure(errno, sentence)) = self.start(cx) {
            cx.kernel().finish(ExitStatus::NotStarted(errno, sentence));
            return Attempt::Done(Err(errno));
        }
        Attempt::Done(Ok(0))
    }

    fn enlist(&mut self, _cx: &mut CurrentTask<'_>) -> Vec<WaitGuard> {
        Vec::new()
    }

    fn name(&self) -> &'static str {
        "start"
    }
}

/// Credentials and home directory for `UID[:GID]` or names, from the image's own databases.
fn identity(cx: &mut CurrentTask<'_>, user: &str) -> Result<(Creds, String), Failure> {
    let user = if user.is_empty() { "0:0" } else { user };
    let (user, group) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
    let passwd = database(cx, b"/etc/passwd");
    let groups = database(cx, b"/etc/group");
    let entry = passwd.iter().find(|f| f.first().is_some_and(|n| n == user) || f.get(2).is_some_and(|n| n == user));
    let uid = number(user).or_else(|| number(entry?.get(2)?));
    let uid = uid.ok_or_else(|| Failure(Errno::ENOENT, format!("user {user}: not in the image's /etc/passwd")))?;
    let gid = match group {
        Some(name) => {
            let line = groups.iter().find(|f| f.first().is_some_and(|n| n == name));
            let gid = number(name).or_else(|| number(line?.get(2)?));
            gid.ok_or_else(|| Failure(Errno::ENOENT, format!("user group {name}: not in the image's /etc/group")))?
        }
        None => entry.and_then(|f| number(f.get(3)?)).unwrap_or(0),
    };
    let name = entry.and_then(|f| f.first());
    let member = |f: &&Vec<String>| {
        name.is_some_and(|name| f.get(3).is_some_and(|members| members.split(',').any(|m| m == name)))
    };
    let mut extra: Vec<u32> = groups.iter().filter(member).filter_map(|f| number(f.get(2)?)).collect();
    if !extra.contains(&gid) {
        extra.push(gid);
    }
    // Without an entry: as login(1) has it.
    let home = entry.and_then(|f| f.get(5)).filter(|home| !home.is_empty());
    let home = home.cloned().unwrap_or_else(|| if uid == 0 { "/root" } else { "/" }.to_owned());
    Ok((Creds::user(uid, gid, extra), home))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// The fields of a colon-separated database; empty where there is none.
fn database(cx: &mut CurrentTask<'_>, path: &[u8]) -> Vec<Vec<String>> {
    let content = vfs::read_file(cx, path, MAX_DATABASE).unwrap_or_default();
    let lines = content.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.map(|l| text(l).split(':').map(str::to_owned).collect()).collect()
}
