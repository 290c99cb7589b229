//! Defects of the sentry: each ends its sandbox with one line that names it, and a status of its own.

mod common;

use common::{nanovisor, output_in_time, platforms, small_image, told};

fn ends(defect: &str, line: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = small_image(dir.path());
    for platform in platforms() {
        let mut command = nanovisor();
        command.args(["do", "--platform", platform, "--no-tty", "--attempt", defect, "--image"]).arg(&image);
        let text = told(&output_in_time(command.args(["--", "/bin/true"])), 117);
        assert!(text.contains(line), "{defect} on {platform}: {text}");
    }
}

#[test]
fn a_panic_is_told_with_its_cause_and_place() {
    ends("panic", "walls/compromised.rs:");
    ends("panic", "index out of bounds");
}

#[test]
fn a_panic_of_another_thread_ends_the_sandbox_too() {
    ends("thread-panic", "index out of bounds");
}

#[test]
fn an_abort_is_no_mysterious_fault() {
    ends("abort", "SIGABRT");
}

#[test]
fn a_stack_overflow_is_told() {
    ends("recursion", "SIGSEGV");
}
