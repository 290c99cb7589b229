//! The strace log: one line a call, when it has its answer.

use abi::{Errno, UserAddr};

use crate::kernel::task::CurrentTask;
use crate::syscalls::Syscall;
use crate::syscalls::args::Show;

fn show(cx: &CurrentTask<'_>, how: Show, raw: u64) -> String {
    match how {
        Show::Int | Show::Fd => (raw.cast_signed()).to_string(),
        Show::Uint => raw.to_string(),
        Show::Hex => format!("{raw:#x}"),
        Show::Str => {
            let text = cx.mm().and_then(|mm| mm.read_cstr(UserAddr(raw), 4096));
            text.map_or_else(|_| format!("{raw:#x}"), |t| format!("{:?}", String::from_utf8_lossy(&t)))
        }
    }
}

/// Notes the call and its arguments, where the log is on.
pub fn enter(cx: &mut CurrentTask<'_>, call: &Syscall, raw: &[u64; 6]) {
    if !cx.kernel().options.strace {
        return;
    }
    let args: Vec<_> = call.show.iter().zip(raw).map(|(how, raw)| show(cx, *how, *raw)).collect();
    cx.own.trace = Some(format!("{}({})", call.name, args.join(", ")));
}

/// The same for a number without a handler.
pub fn enter_unknown(cx: &mut CurrentTask<'_>, nr: u64, raw: &[u64; 6]) {
    if cx.kernel().options.strace {
        cx.own.trace = Some(format!("syscall_{nr}({raw:x?})"));
    }
}

/// Logs the line with its answer.
pub fn exit(cx: &mut CurrentTask<'_>, answer: Result<u64, Errno>) {
    if let Some(line) = cx.own.trace.take() {
        match answer {
            Ok(value) => log::info!(target: "strace", "[{}] {line} = {:#x}", cx.task.tid.0, value),
            Err(e) => log::info!(target: "strace", "[{}] {line} = -1 {e}", cx.task.tid.0),
        }
    }
}
