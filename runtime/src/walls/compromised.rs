//! Playing the attacker.

use ::trial::ATTEMPTS;

/// Defects that a sentry may have, to see how each ends. Played like attempts, after the filter is up.
const DEFECTS: [(&str, fn()); 4] = [
    ("panic", defective_index),
    ("thread-panic", thread_panic),
    ("abort", || std::process::abort()),
    ("recursion", recursion),
];

/// Tries `name`; tells on the log what came of it.
///
/// # Errors
/// It failed: a wall stands. (Where the filter stands, the process is killed instead.)
pub fn play(name: &str, victim: u32) -> Result<(), String> {
    if let Some((_, defect)) = DEFECTS.iter().find(|(n, _)| *n == name) {
        defect();
    }
    let Some((_, attempt)) = ATTEMPTS.iter().find(|(n, _)| *n == name) else {
        let all: Vec<&str> = ATTEMPTS.iter().map(|(n, _)| *n).collect();
        return Err(format!("no attempt {name}; there are {}", all.join(", ")));
    };
    ::trial::aim_at(victim);
    attempt().map_err(|e| format!("attempt {name}: failed: {e}"))?;
    eprintln!("attempt {name}: succeeded");
    Ok(())
}

fn defective_index() {
    let list: Vec<u8> = Vec::new();
    let at = std::hint::black_box(7);
    std::hint::black_box(list[at]);
}

fn thread_panic() {
    let _ = std::thread::spawn(defective_index).join();
}

fn recursion() {
    fn deeper(n: u64) -> u64 {
        let frame = std::hint::black_box([n; 64]);
        if frame[1] == u64::MAX { 0 } else { deeper(n + 1) + frame[2] }
    }
    std::hint::black_box(deeper(0));
}
