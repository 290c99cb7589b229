//! Playing the attacker.

use hostsys::trial::ATTEMPTS;

/// Tries `name`; tells on the log what came of it.
///
/// # Errors
/// It failed: a wall stands. (Where the filter stands, the process is killed instead.)
pub fn play(name: &str, victim: u32) -> Result<(), String> {
    let Some((_, attempt)) = ATTEMPTS.iter().find(|(n, _)| *n == name) else {
        let all: Vec<&str> = ATTEMPTS.iter().map(|(n, _)| *n).collect();
        return Err(format!("no attempt {name}; there are {}", all.join(", ")));
    };
    hostsys::trial::aim_at(victim);
    attempt().map_err(|e| format!("attempt {name}: failed: {e}"))?;
    eprintln!("attempt {name}: succeeded");
    Ok(())
}
