//! What a run left: streams, status, and what the supervisor saw.

use serde::{Deserialize, Serialize};

/// How a supervised command ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Ending {
    /// Exit status, or 128+n for signal n.
    pub status: i32,
    /// Signal that ended the command itself (not the guest's program).
    pub signal: Option<i32>,
    /// It ran out of time and was killed. What its processes were doing then.
    pub hung: Option<String>,
    /// Processes still there a moment after it had ended: one line each.
    pub left: Vec<String>,
}

/// A finished run.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub ending: Ending,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks that the run ended by itself with `status` and left no process.
    ///
    /// # Errors
    /// What happened instead, with the ends of both streams.
    pub fn expect_status(&self, status: i32) -> Result<&Self, String> {
        self.sound()?;
        if self.ending.status == status {
            return Ok(self);
        }
        Err(format!("exit status {} instead of {status}\n{}", self.ending.status, self.tails()))
    }

    /// Checks that the run ended by itself and left no process.
    ///
    /// # Errors
    /// What happened instead, with the ends of both streams.
    pub fn sound(&self) -> Result<&Self, String> {
        if let Some(doing) = &self.ending.hung {
            return Err(format!("hung: killed at its limit of time\n{doing}{}", self.tails()));
        }
        if !self.ending.left.is_empty() {
            return Err(format!("left processes behind:\n  {}\n{}", self.ending.left.join("\n  "), self.tails()));
        }
        Ok(self)
    }

    /// The last lines of both streams, for reports.
    #[must_use]
    pub fn tails(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", tail(&self.stdout), tail(&self.stderr))
    }
}

/// The last lines of a stream.
#[must_use]
pub fn tail(bytes: &[u8]) -> String {
    const LINES: usize = 25;
    const BYTES: usize = 4000;
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(BYTES)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().fold(String::new(), |all, line| all + line + "\n")
}
