//! Holds a sandboxed run against the native one.

use crate::output::Output;

/// Compares exit status and standard output, and standard error where `stderr` is set.
///
/// # Errors
/// The first difference, with its surroundings.
pub fn compare(native: &Output, sandboxed: &Output, stderr: bool) -> Result<(), String> {
    sandboxed.sound()?;
    let mut wrong = Vec::new();
    if native.ending.status != sandboxed.ending.status {
        wrong.push(format!("exit status {}, natively {}", sandboxed.ending.status, native.ending.status));
    }
    wrong.extend(difference("standard output", &native.stdout, &sandboxed.stdout));
    if stderr {
        wrong.extend(difference("standard error", &native.stderr, &sandboxed.stderr));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}\n--- stderr of the sandbox\n{}", wrong.join("\n"), crate::output::tail(&sandboxed.stderr)))
}

fn difference(name: &str, native: &[u8], sandboxed: &[u8]) -> Option<String> {
    const SHOWN: usize = 12;
    if native == sandboxed {
        return None;
    }
    let (native, sandboxed) = (String::from_utf8_lossy(native), String::from_utf8_lossy(sandboxed));
    let (left, right): (Vec<&str>, Vec<&str>) = (native.lines().collect(), sandboxed.lines().collect());
    let first = left.iter().zip(&right).position(|(l, r)| l != r).unwrap_or(left.len().min(right.len()));
    let mut text =
        format!("{name} differs from line {} on ({} lines natively, {})", first + 1, left.len(), right.len());
    let from = first.saturating_sub(2);
    for line in left.get(from..first).unwrap_or_default() {
        text += &format!("\n    {line}");
    }
    for (sign, lines) in [('-', &left), ('+', &right)] {
        for line in lines.get(first..).unwrap_or_default().iter().take(SHOWN) {
            text += &format!("\n  {sign} {}", line.chars().take(200).collect::<String>());
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        let one = Output { stdout: b"a\nb\nc\n".to_vec(), ..Output::default() };
        let two = Output { stdout: b"a\nX\nc\n".to_vec(), ..Output::default() };
        assert!(compare(&one, &one, true).is_ok());
        let text = compare(&one, &two, false).unwrap_err();
        assert!(text.contains("line 2") && text.contains("- b") && text.contains("+ X"), "{text}");
    }
}
