//! `nanovisor syscalls`: what the sandbox's kernel serves.

use std::fmt::Write;

use sentry::syscalls::{Support, Syscall, SyscallTable};

use crate::failure::Result;
use crate::output;

/// `nanovisor syscalls`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(json: bool) -> Result<()> {
    output::print(&if json { objects() } else { table() })
}

fn note(call: &Syscall) -> Option<&'static str> {
    match call.support {
        Support::Full => None,
        Support::Partial(note) => Some(note),
    }
}

fn table() -> String {
    let mut text = String::from("NUMBER  SUPPORT  CALL\n");
    for call in SyscallTable::new().iter() {
        let level = if note(call).is_some() { "partial" } else { "full" };
        let _ = write!(text, "{:>6}  {level:<7}  {}({})", call.nr, call.name, call.arg_names.join(", "));
        if let Some(note) = note(call) {
            let _ = write!(text, ": {note}");
        }
        text.push('\n');
    }
    text.push_str("\nAll others answer ENOSYS; `nanovisor do --debug` logs which were called.\n");
    text
}

fn objects() -> String {
    let object = |call: &Syscall| {
        serde_json::json!({
            "number": call.nr, "name": call.name, "arguments": call.arg_names, "full": note(call).is_none(),
            "note": note(call),
        })
    };
    let list: Vec<_> = SyscallTable::new().iter().map(object).collect();
    format!("{}\n", serde_json::Value::from(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_table() {
        assert!(table().contains("  read(fd, buf, "), "{}", table());
        assert!(serde_json::from_str::<serde_json::Value>(&objects()).is_ok());
    }
}
